//! What organisms consist of. A gene is a word: in its high half the token that it descends from, in its low half what
//! it carries of that token's expression, in 15 bits. So populations are bred by moving words, and all that is summed of
//! them is whole numbers, exact in any order.

#[cfg(target_arch = "x86_64")]
use super::{avx512, has_avx512};
use crate::cpu::math::LANES;
use crate::cpu::parallel::Block;

/// What a gene carries of an expression of 1: a positive number of 16 bits that have a sign.
pub const MOST_CARRIED: u32 = 0x7FFF;

/// The genes of an organism or a token stand in whole vector registers.
pub const fn words_of(d: usize) -> usize {
    d.next_multiple_of(LANES)
}

#[inline(always)]
pub fn carried(gene: u32) -> u32 {
    gene & MOST_CARRIED
}

/// Of floats from this on the last bit is 1.
pub const WHOLE: f32 = 8_388_608.0;

/// To a whole number of 15 bits, as `x` is one but for rounding. Of what is no number it makes any.
#[inline(always)]
pub fn rounded(x: f32) -> u32 {
    (x + WHOLE).to_bits() & MOST_CARRIED
}

/// The genes `[T, words]` of tokens from their expression `[T, d]`; behind each token's are some that carry nothing.
#[inline(always)]
pub fn tabulate(expression: &[f32], d: usize, table: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::tabulate(expression, d, table) };
    }
    tabulate_anywhere(expression, d, table);
}

#[inline(always)]
fn tabulate_anywhere(expression: &[f32], d: usize, table: &mut [u32]) {
    for (token, (genes, p)) in table.chunks_exact_mut(words_of(d)).zip(expression.chunks_exact(d)).enumerate() {
        let (genes, behind) = genes.split_at_mut(d);
        for (gene, &p) in genes.iter_mut().zip(p) {
            *gene = (token as u32) << 16 | rounded(p * MOST_CARRIED as f32);
        }
        behind.fill(0);
    }
}

/// How many of the organisms `[N, words]` have a gene that descends from each token's `[T, words]`. There is room for
/// the places of the organisms' genes among the tokens'.
#[inline(always)]
pub fn count_descendants(organisms: &[u32], words: usize, places: &mut [u32], counts: &mut [u32]) {
    for (places, organism) in places.chunks_exact_mut(words).zip(organisms.chunks_exact(words)) {
        for (g, (place, &gene)) in (0..).zip(places.iter_mut().zip(organism)) {
            *place = (gene >> 16) * words as u32 + g;
        }
    }
    counts.fill(0);
    places.iter().for_each(|&place| counts[place as usize] += 1);
}

/// What is kept of a token's descendants.
pub trait FromDescendants: Send {
    /// Of so many, one of which has that share of a gene.
    fn of(descendants: u32, share: f32) -> Self;
}

/// Their share.
impl FromDescendants for f32 {
    #[inline(always)]
    fn of(descendants: u32, share: f32) -> f32 {
        descendants as f32 * share
    }
}

/// Their number, where a population has no more than a byte counts.
impl FromDescendants for u8 {
    #[inline(always)]
    fn of(descendants: u32, _: f32) -> u8 {
        descendants as u8
    }
}

/// Writes the ancestry of one head `[T, d]` from the descendants `[T, words]`, each of them `share` of a gene.
#[inline(always)]
pub fn keep_ancestry<T: FromDescendants>(descendants: &[u32], share: f32, ancestry: &mut Block<'_, T>) {
    for (token, counts) in descendants.chunks_exact(words_of(ancestry.columns())).enumerate() {
        ancestry.row(token).iter_mut().zip(counts).for_each(|(kept, &count)| *kept = T::of(count, share));
    }
}

/// The gene means `M[g] = Σ_i A[i,g] P[i,g]` of the expression `[T, d]`.
#[inline(always)]
pub fn means_of_descendants(descendants: &[u32], share: f32, expression: &[f32], means: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::means_of_descendants(descendants, share, expression, means) };
    }
    means_of_descendants_anywhere(descendants, share, expression, means);
}

#[inline(always)]
fn means_of_descendants_anywhere(descendants: &[u32], share: f32, expression: &[f32], means: &mut [f32]) {
    let d = means.len();
    means.fill(0.0);
    for (counts, p) in descendants.chunks_exact(words_of(d)).zip(expression.chunks_exact(d)) {
        for (mean, (&count, &p)) in means.iter_mut().zip(counts.iter().zip(p)) {
            *mean += count as f32 * share * p;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::SharedMatrix;
    use crate::ops::evolve::share_of_one;
    use crate::random::{Stream, fill_normal};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vector_instructions_make_the_same_genes_and_means(
            (tokens, d) in (1..40_usize, 1..70_usize), seed in 0..1000_u64,
        ) {
            let mut expression = vec![0.0; tokens * d];
            fill_normal(&Stream::weights(seed, "expression"), 1.0, &mut expression);
            expression.iter_mut().for_each(|p| *p = p.abs().min(1.0));
            let cells = tokens * words_of(d);
            let (mut table, mut expected) = (vec![9; cells], vec![8; cells]);
            tabulate(&expression, d, &mut table);
            tabulate_anywhere(&expression, d, &mut expected);
            prop_assert_eq!(&table, &expected);

            // Any numbers do for counts.
            let run = |anywhere: bool| {
                let mut means = vec![9.0; d];
                let find = if anywhere { means_of_descendants_anywhere } else { means_of_descendants };
                find(&table, 0.3, &expression, &mut means);
                means
            };
            prop_assert_eq!(run(false), run(true));
        }

        #[test]
        fn counts_are_kept_of_which_the_shares_are_those_that_would_be_kept(
            (tokens, d) in (1..40_usize, 1..70_usize), organisms in 1..=255_usize, seed in 0..1000_u64,
        ) {
            let mut descendants = vec![0; tokens * words_of(d)];
            Stream::weights(seed, "descendants").fill(0, &mut descendants);
            descendants.iter_mut().for_each(|count| *count %= organisms as u32 + 1);
            let share = share_of_one(organisms);
            let counts = in_a_wider_matrix(99_u8, [tokens, d], |block| keep_ancestry(&descendants, share, block));
            let shares = in_a_wider_matrix(99.0 * share, [tokens, d], |block| keep_ancestry(&descendants, share, block));
            let of_counts: Vec<f32> = counts.iter().map(|&count| f32::from(count) * share).collect();
            prop_assert_eq!(of_counts, shares);
        }
    }

    /// A matrix full of `before`, of which `write` has one block.
    fn in_a_wider_matrix<T: Copy>(before: T, [rows, columns]: [usize; 2], write: impl Fn(&mut Block<'_, T>)) -> Vec<T> {
        let mut numbers = vec![before; (rows + 2) * (columns + 3)];
        let matrix = SharedMatrix::new(&mut numbers, columns + 3);
        // SAFETY: there is one block.
        write(&mut unsafe { matrix.block(1..rows + 1, 1..columns + 1) });
        numbers
    }
}
