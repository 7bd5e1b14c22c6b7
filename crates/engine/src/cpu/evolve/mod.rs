//! Evolution of each sequence and head: the ancestry that is left (docs/genetic-attention.md, section 3).

#[cfg(target_arch = "x86_64")]
mod avx512;
mod breeding;
mod genes;
mod mean_field;
mod sampled;
mod selection;

use rayon::prelude::*;

use super::gene_fitness::fitness_of_means;
use super::math::vectorised;
use super::matmul::View;
use super::parallel::{Block, SharedMatrix};
use super::rows;
use super::scratch::with_scratch;
use crate::ops::evolve::{Ancestry, Descendants, Evolve, Population};
use crate::random::{Purpose, Site};
use crate::sequences::Sequences;
use crate::tensor::Tensor;
use genes::FromDescendants;
use mean_field::mean_field;
use sampled::{Draws, Room, sample};

pub fn evolve(values: &Tensor, sequences: &Sequences, options: &Evolve, fitness: [&mut Tensor; 2]) -> Ancestry {
    let heads = Heads { values, sequences, options };
    let sampled = match options.population {
        Population::Infinite => None,
        Population::Sampled { size, seed, step, layer } => {
            Some((size, Site { seed, step, layer, purpose: Purpose::Founders }))
        }
    };
    if let Some((size, site)) = sampled.filter(|&(size, _)| size <= Descendants::MOST_ORGANISMS) {
        let count = |counts: &mut [u8]| heads.sample(size, site, SharedMatrix::new(counts, values.columns()), fitness);
        return Ancestry::Descendants(Descendants::of(values, size, count));
    }
    let mut shares = Tensor::empty(values.device(), values.shape());
    let ancestry = SharedMatrix::of(&mut shares);
    match sampled {
        Some((size, site)) => heads.sample(size, site, ancestry, fitness),
        None => heads.mean_field(ancestry, fitness),
    }
    Ancestry::Shares(shares)
}

/// All that evolves.
struct Heads<'a> {
    values: &'a Tensor,
    sequences: &'a Sequences,
    options: &'a Evolve,
}

/// One head of one sequence.
struct Evolving<'a, T> {
    /// `P = σ(V)` `[T, d]`
    expression: &'a [f32],
    /// As much memory as was asked for.
    room: &'a mut [f32],
    /// To be written: its part of the ancestry `[T, d]`.
    ancestry: Block<'a, T>,
    /// To be written: the gene means by that ancestry.
    means: &'a mut [f32],
}

impl Heads<'_> {
    fn mean_field(&self, shares: SharedMatrix<'_>, fitness: [&mut Tensor; 2]) {
        self.each(
            shares,
            fitness,
            |_| 0,
            #[inline(always)]
            |_, evolving| mean_field(self.options, evolving),
        );
    }

    fn sample<T: FromDescendants>(
        &self,
        size: usize,
        site: Site,
        ancestry: SharedMatrix<'_, T>,
        fitness: [&mut Tensor; 2],
    ) {
        let ids = self.sequences.ids().data();
        self.each(
            ancestry,
            fitness,
            |tokens| Room::of(size, self.options.head_dim, tokens).len(),
            #[inline(always)]
            |[s, head], evolving| {
                let draws = Draws { site, sequence: ids[s], head: head as u32 };
                sample(self.options, size, &draws, evolving);
            },
        );
    }

    /// Evolves each head of each sequence, in as much memory as `room_for` says for its number of tokens, and finds the
    /// fitness of what is left.
    fn each<T: Send>(
        &self,
        ancestry: SharedMatrix<'_, T>,
        [fitness, inverse]: [&mut Tensor; 2],
        room_for: impl Fn(usize) -> usize + Sync,
        evolve: impl Fn([usize; 2], Evolving<'_, T>) + Sync,
    ) {
        let Heads { values, sequences, options: &Evolve { head_dim: d, .. } } = *self;
        let heads = values.columns() / d;
        let [fitness, inverse] = [fitness, inverse].map(SharedMatrix::of);
        (0..sequences.len() * heads).into_par_iter().for_each(|task| {
            let (s, head) = (task / heads, task % heads);
            let (tokens, genes) = (sequences.range(s), head * d..(head + 1) * d);
            // SAFETY: each sequence and head is one task's.
            let (ancestry, [mut fitness, mut inverse]) = unsafe {
                let of_genes = [&fitness, &inverse].map(|matrix| matrix.block(s..s + 1, genes.clone()));
                (ancestry.block(tokens.clone(), genes.clone()), of_genes)
            };
            let cells = tokens.len() * d;
            // The memory is lent out here, since what is compiled for vector instructions must be inlined.
            with_scratch(cells + room_for(tokens.len()), |scratch| {
                let (expression, room) = scratch.split_at_mut(cells);
                vectorised(
                    #[inline(always)]
                    || {
                        (0..tokens.len()).for_each(|token| ancestry.prefetch(token));
                        let of_head = View::of(values).part(&tokens, &genes);
                        rows::sigmoid_of_rows(of_head, &mut Block::of(expression, d));
                        let (means, fitness) = (inverse.row(0), fitness.row(0));
                        evolve([s, head], Evolving { expression, room, ancestry, means: &mut *means });
                        fitness_of_means(d, means, fitness);
                    },
                );
            });
        });
    }
}

/// `(x / largest)^pressure`, at most 1: the largest's share stays a number however great the pressure. Where not even
/// the largest is above 0 all are alike.
#[inline(always)]
fn pressed(pressure: f32, x: f32, largest: f32) -> f32 {
    let relative = if largest > 0.0 { (x / largest).min(1.0) } else { 1.0 };
    if pressure == 1.0 { relative } else { relative.powf(pressure) }
}

/// Whether the machine has the vector instructions that populations are bred by.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("popcnt")
}
