//! Section 3a of docs/genetic-attention.md: a finite population, bred by lot.

use super::Evolving;
use super::breeding::{Breeding, words_of_draws};
use super::genes::{FromDescendants, count_descendants, keep_ancestry, means_of_descendants, tabulate, words_of};
use super::selection::{SIBLINGS, pair, turn_wheel};
use crate::cpu::math::LANES;
use crate::ops::evolve::{Evolve, share_of_one};
use crate::random::{Purpose, Site, Stream, unit};

/// Whose random numbers.
pub struct Draws {
    pub site: Site,
    pub sequence: u32,
    pub head: u32,
}

impl Draws {
    #[inline(always)]
    fn stream(&self, purpose: Purpose, generation: usize) -> Stream {
        Site { purpose, ..self.site }.stream(self.sequence, self.head, generation as u32)
    }
}

/// How much memory each thing takes that a population is bred in.
pub struct Room([usize; 7]);

impl Room {
    /// For `size` organisms and as many tokens, of `d` genes.
    pub fn of(size: usize, d: usize, tokens: usize) -> Self {
        let (organisms, wheel) = (size * words_of(d), size.next_multiple_of(LANES));
        let draws = words_of_draws(SIBLINGS, d).next_multiple_of(LANES);
        Room([organisms, organisms, wheel, words_of(d), draws, Breeding::MUTANTS, tokens * words_of(d)])
    }

    /// Of all together.
    pub fn len(&self) -> usize {
        self.0.iter().sum()
    }
}

/// The ancestry and the gene means of one sequence and head, bred in [`Room::len`] numbers.
#[inline(always)]
pub(super) fn sample<T: FromDescendants>(options: &Evolve, size: usize, draws: &Draws, evolving: Evolving<'_, T>) {
    let Evolving { expression, room, mut ancestry, means } = evolving;
    let d = options.head_dim;
    let (words, words_of_pair) = (words_of(d), d.next_multiple_of(4));
    let mut room = bytemuck::cast_slice_mut(room);
    let [mut living, mut children, wheel, weights, gene_draws, mutants, table] =
        Room::of(size, d, expression.len() / d).0.map(|len| {
            let (taken, left) = std::mem::take(&mut room).split_at_mut(len);
            room = left;
            taken
        });
    let wheel = &mut wheel[..size];
    tabulate(expression, d, table);
    found(draws, table, words, living);
    let breeding = Breeding::new(options.mutation_rate, d, table);
    for generation in 0..options.num_generations {
        turn_wheel(options.selection_pressure, living, d, weights, wheel);
        let parents = draws.stream(Purpose::Parents, generation);
        let genes = draws.stream(Purpose::Genes, generation);
        for (group, children) in children.chunks_mut(SIBLINGS * words).enumerate() {
            let first = group * SIBLINGS;
            let mut draws_of_pairs = [0; 4 * SIBLINGS];
            parents.fill(first as u32, &mut draws_of_pairs);
            let couples = pair(&draws_of_pairs, options.crossover_rate, words, wheel);
            let drawn = (children.len() / words).div_ceil(2) * words_of_pair;
            genes.fill((first / 2 * words_of_pair / 4) as u32, &mut gene_draws[..drawn]);
            breeding.breed(&couples, living, gene_draws, children, mutants);
        }
        std::mem::swap(&mut living, &mut children);
    }
    count_descendants(living, words, children, table);
    let share = share_of_one(size);
    keep_ancestry(table, share, &mut ancestry);
    means_of_descendants(table, share, expression, means);
}

/// Systematic sampling: each founder's genes are those of its token.
#[inline(always)]
fn found(draws: &Draws, table: &[u32], words: usize, organisms: &mut [u32]) {
    let (tokens, size) = (table.len() / words, organisms.len() / words);
    let offset = f64::from(unit(draws.stream(Purpose::Founders, 0).block(0)[0]));
    for (n, genes) in organisms.chunks_exact_mut(words).enumerate() {
        let token = ((n as f64 + offset) * tokens as f64 / size as f64) as usize;
        let of_token = &table[token.min(tokens - 1) * words..][..words];
        // By whole registers: to call for a copy of so little would take longer.
        genes
            .as_chunks_mut::<LANES>()
            .0
            .iter_mut()
            .zip(of_token.as_chunks().0)
            .for_each(|(gene, of_token)| *gene = *of_token);
    }
}
