//! Children from their parents: crossover and mutation.

use super::genes::words_of;
use super::selection::{Couples, SIBLINGS};
#[cfg(target_arch = "x86_64")]
use super::{avx512, has_avx512};
use crate::cpu::math::LANES;
use crate::random;

/// By how many bits a child's draws are turned: two siblings share a word of random bits for each gene, which one reads
/// from its beginning and the other from its middle. Their first 16 bits, which decide all but one in 2¹⁴, are independent.
#[inline(always)]
fn turn_of(child: usize) -> u32 {
    16 * (child % 2) as u32
}

/// Random words of some siblings: a block of four for each four genes of each two of them, and as many as a vector
/// register may read beyond the last.
pub fn words_of_draws(siblings: usize, d: usize) -> usize {
    siblings.div_ceil(2) * d.next_multiple_of(4) + LANES
}

/// What a draw's share of the tokens is multiplied by, so that no rounding makes it all of them.
const BELOW_ONE: f32 = 1.0 - 1.0 / 4_194_304.0;

/// A gene's draw is one of 2³²: below the threshold it mutates, and the draw names the token that it is replaced by; of
/// the others the lower half inherit from the first parent. (Where all mutate, one in 2³² does not.)
pub struct Breeding<'a> {
    /// The genes of all tokens `[T, words]`.
    pub table: &'a [u32],
    pub d: usize,
    pub threshold: u32,
    pub middle: u32,
    pub tokens_per_draw: f32,
}

impl<'a> Breeding<'a> {
    #[inline(always)]
    pub fn new(mutation_rate: f32, d: usize, table: &'a [u32]) -> Self {
        let tokens = table.len() / words_of(d);
        let threshold = random::threshold(mutation_rate);
        let middle = threshold + (u32::MAX - threshold) / 2;
        let tokens_per_draw = BELOW_ONE * tokens as f32 / threshold.max(1) as f32;
        Breeding { table, d, threshold, middle, tokens_per_draw }
    }

    /// Words that [`Breeding::breed`] lists mutants in: which they are, and where their genes are.
    pub const MUTANTS: usize = 2 * (SIBLINGS * LANES + LANES);

    /// Some siblings `[n, words]` from the living `[N, words]`.
    #[inline(always)]
    pub fn breed(&self, couples: &Couples, living: &[u32], draws: &[u32], children: &mut [u32], mutants: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if has_avx512() && words_of(self.d) <= avx512::MOST_WORDS {
            // SAFETY: the machine has the instructions.
            return unsafe { avx512::breed(self, couples, living, draws, children, mutants) };
        }
        let _ = mutants;
        self.breed_anywhere(couples, living, draws, children);
    }

    #[inline(always)]
    fn breed_anywhere(&self, couples: &Couples, living: &[u32], draws: &[u32], children: &mut [u32]) {
        let (d, words) = (self.d, words_of(self.d));
        for (child, genes) in children.chunks_exact_mut(words).enumerate() {
            let draws = &draws[child / 2 * d.next_multiple_of(4)..];
            let [of_a, of_b] = couples.0.map(|parents| &living[parents[child] as usize..][..d]);
            let (genes, behind) = genes.split_at_mut(d);
            let parents = of_a.iter().zip(of_b);
            for (g, ((gene, &word), (&a, &b))) in genes.iter_mut().zip(draws).zip(parents).enumerate() {
                let draw = word.rotate_left(turn_of(child));
                let token = (draw as f32 * self.tokens_per_draw) as usize;
                let inherited = if draw < self.middle { a } else { b };
                *gene = if draw < self.threshold { self.table[token * words + g] } else { inherited };
            }
            behind.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vector_instructions_breed_the_same_children(
            (tokens, size) in (1..40_usize, 1..=SIBLINGS), rate in 0.0..=1.0_f32, seed in 0..1000_u64,
            d in prop_oneof![20 => 1..70_usize, 1 => 2040..2060_usize],
        ) {
            let (stream, words) = (Stream::weights(seed, "children"), words_of(d));
            // Behind an organism's genes are zeros.
            let organisms = |n: usize, first: u32| {
                let mut genes = vec![0; n * words];
                stream.fill(first, &mut genes);
                genes.chunks_exact_mut(words).for_each(|genes| genes[d..].fill(0));
                genes
            };
            let (table, living) = (organisms(tokens, 0), organisms(size, 10_000));
            let mut draws = vec![0; words_of_draws(size, d)];
            stream.fill(20_000, &mut draws);
            let parent = |n: usize| (n.min(size - 1) * words) as u32;
            let couples = Couples([std::array::from_fn(parent), std::array::from_fn(|n| parent(SIBLINGS - 1 - n))]);
            let breeding = Breeding::new(rate, d, &table);
            let (mut children, mut expected) = (vec![1; size * words], vec![1; size * words]);
            breeding.breed(&couples, &living, &draws, &mut children, &mut [0; Breeding::MUTANTS]);
            breeding.breed_anywhere(&couples, &living, &draws, &mut expected);
            prop_assert_eq!(children, expected);
        }
    }
}
