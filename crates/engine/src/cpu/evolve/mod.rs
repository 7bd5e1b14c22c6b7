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
use crate::ops::evolve::{Evolve, Population};
use crate::random::{Purpose, Site};
use crate::sequences::Sequences;
use crate::tensor::Tensor;
use mean_field::mean_field;
use sampled::{Draws, Room, sample};

pub fn evolve(
    values: &Tensor,
    sequences: &Sequences,
    options: &Evolve,
    ancestry: &mut Tensor,
    [fitness, inverse]: [&mut Tensor; 2],
) {
    let (columns, d) = (values.columns(), options.head_dim);
    let heads = columns / d;
    let [ancestry, fitness, inverse] = [ancestry, fitness, inverse].map(SharedMatrix::of);
    (0..sequences.len() * heads).into_par_iter().for_each(|task| {
        let (s, head) = (task / heads, task % heads);
        let (tokens, genes) = (sequences.range(s), head * d..(head + 1) * d);
        // SAFETY: each sequence and head is one task's.
        let (mut ancestry, [mut fitness, mut inverse]) = unsafe {
            let of_genes = [&fitness, &inverse].map(|matrix| matrix.block(s..s + 1, genes.clone()));
            (ancestry.block(tokens.clone(), genes.clone()), of_genes)
        };
        let cells = tokens.len() * d;
        let room = match options.population {
            Population::Infinite => 0,
            Population::Sampled { size, .. } => Room::of(size, d, tokens.len()).len(),
        };
        // The memory is lent out here, since what is compiled for vector instructions must be inlined.
        with_scratch(cells + room, |scratch| {
            let (expression, room) = scratch.split_at_mut(cells);
            vectorised(
                #[inline(always)]
                || {
                    (0..tokens.len()).for_each(|token| ancestry.prefetch(token));
                    // P = σ(V) of this sequence and head, `[T, d]`.
                    rows::sigmoid_of_rows(View::of(values).part(&tokens, &genes), &mut Block::of(expression, d));
                    let (means, fitness) = (inverse.row(0), fitness.row(0));
                    match options.population {
                        Population::Infinite => mean_field(options, expression, &mut ancestry, means),
                        Population::Sampled { size, seed, step, layer } => {
                            let site = Site { seed, step, layer, purpose: Purpose::Founders };
                            let draws = Draws { site, sequence: sequences.ids().data()[s], head: head as u32 };
                            sample(options, size, &draws, expression, room, &mut ancestry, means);
                        }
                    }
                    fitness_of_means(d, means, fitness);
                },
            );
        });
    });
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
