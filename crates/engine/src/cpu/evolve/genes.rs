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

/// Each token's share of the genes' ancestry, `share` for each of its descendants `[T, words]`, and by it the gene means
/// `M[g] = Σ_i A[i,g] P[i,g]` of the expression `[T, d]`.
#[inline(always)]
pub fn share_ancestry(counts: &[u32], share: f32, expression: &[f32], ancestry: &mut Block<'_>, means: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::share_ancestry(counts, share, expression, ancestry, means) };
    }
    share_ancestry_anywhere(counts, share, expression, ancestry, means);
}

#[inline(always)]
fn share_ancestry_anywhere(
    counts: &[u32],
    share: f32,
    expression: &[f32],
    ancestry: &mut Block<'_>,
    means: &mut [f32],
) {
    let d = means.len();
    means.fill(0.0);
    for (token, (counts, p)) in counts.chunks_exact(words_of(d)).zip(expression.chunks_exact(d)).enumerate() {
        let shares = ancestry.row(token).iter_mut();
        for ((out, mean), (&count, &p)) in shares.zip(&mut *means).zip(counts.iter().zip(p)) {
            *out = count as f32 * share;
            *mean += *out * p;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::SharedMatrix;
    use crate::random::{Stream, fill_normal};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vector_instructions_make_the_same_genes_and_ancestry(
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
                let (mut ancestry, mut means) = (vec![9.0; tokens * (d + 3)], vec![9.0; d]);
                let matrix = SharedMatrix::new(&mut ancestry, d + 3);
                // SAFETY: there is one block.
                let mut block = unsafe { matrix.block(0..tokens, 1..d + 1) };
                if anywhere {
                    share_ancestry_anywhere(&table, 0.3, &expression, &mut block, &mut means);
                } else {
                    share_ancestry(&table, 0.3, &expression, &mut block, &mut means);
                }
                (ancestry, means)
            };
            prop_assert_eq!(run(false), run(true));
        }
    }
}
