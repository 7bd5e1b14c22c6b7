//! Gene fitness of each sequence and head (docs/genetic-attention.md, sections 1, 4 and 5).

use std::ops::Range;

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::matmul::View;
use super::parallel::{Block, SharedMatrix, prefetch};
use super::rows;
use crate::ops::evolve::Ancestry;
use crate::ops::gene_fitness::GeneFitness;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// `u = 1 / (M + ½)` and, head by head, `γ = u / Σ u`, from the gene means `M` in `inverse`. The sum folds halves onto
/// each other, so that 2ᵏ equal numbers sum exactly: equal means then give `γ = 1/d` exactly (section 8).
#[inline(always)]
pub fn fitness_of_means(head_dim: usize, inverse: &mut [f32], fitness: &mut [f32]) {
    for (u, gamma) in inverse.chunks_exact_mut(head_dim).zip(fitness.chunks_exact_mut(head_dim)) {
        u.iter_mut().for_each(|m| *m = 1.0 / (*m + 0.5));
        gamma.copy_from_slice(u);
        let mut len = head_dim;
        while len > 1 {
            let (low, high) = gamma[..len].split_at_mut(len.div_ceil(2));
            low.iter_mut().zip(high).for_each(|(a, &mut b)| *a += b);
            len = len.div_ceil(2);
        }
        let sum = gamma[0];
        for (gamma, &u) in gamma.iter_mut().zip(&*u) {
            *gamma = u / sum;
        }
    }
}

/// `dM = u γ (Σ_s γ_s dγ_s − dγ)`, head by head, in place of `dγ`.
#[inline(always)]
fn means_gradient(head_dim: usize, inverse: &[f32], fitness: &[f32], dfitness: &mut [f32]) {
    let heads = inverse.chunks_exact(head_dim).zip(fitness.chunks_exact(head_dim));
    for ((u, gamma), d) in heads.zip(dfitness.chunks_exact_mut(head_dim)) {
        let mean = math::dot(gamma, d);
        for ((d, &u), &gamma) in d.iter_mut().zip(u).zip(gamma) {
            *d = u * gamma * (mean - *d);
        }
    }
}

/// The rows of `fitness` that belong to sequence `s`: one, or one per token.
fn fitness_rows(sequences: &Sequences, s: usize, causal: bool) -> Range<usize> {
    if causal { sequences.range(s) } else { s..s + 1 }
}

pub fn forward(
    values: &Tensor,
    sequences: &Sequences,
    options: &GeneFitness,
    fitness: &mut Tensor,
    inverse: &mut Tensor,
) {
    let GeneFitness { head_dim, causal, ref ancestry } = *options;
    let ancestry = ancestry.as_ref().map(Ancestry::shares);
    let columns = values.columns();
    let values = values.data();
    let fitness = SharedMatrix::new(fitness.data_mut(), columns);
    let inverse = SharedMatrix::new(inverse.data_mut(), columns);
    (0..sequences.len()).into_par_iter().for_each(|s| {
        let (tokens, own) = (sequences.range(s), fitness_rows(sequences, s, causal));
        // SAFETY: each sequence has rows of its own.
        let (mut fitness, mut inverse) =
            unsafe { (fitness.block(own.clone(), 0..columns), inverse.block(own, 0..columns)) };
        vectorised(
            #[inline(always)]
            || {
                let (mut sums, mut expression) = (vec![0.0; columns], vec![0.0; columns]);
                for (position, token) in tokens.clone().enumerate() {
                    rows::sigmoid(&values[token * columns..][..columns], &mut expression);
                    let terms = sums.iter_mut().zip(&expression);
                    match &ancestry {
                        Some(shares) => {
                            let shares = &shares.data()[token * columns..];
                            terms.zip(shares).for_each(|((sum, p), share)| *sum += share * p);
                        }
                        None => terms.for_each(|(sum, p)| *sum += p),
                    }
                    if causal || token + 1 == tokens.end {
                        let index = if causal { position } else { 0 };
                        let share = if ancestry.is_some() { 1.0 } else { 1.0 / (position + 1) as f32 };
                        for (mean, &sum) in inverse.row(index).iter_mut().zip(&sums) {
                            *mean = sum * share;
                        }
                        fitness_of_means(head_dim, inverse.row(index), fitness.row(index));
                    }
                }
            },
        );
    });
}

pub fn backward(
    values: &Tensor,
    sequences: &Sequences,
    options: &GeneFitness,
    [fitness, inverse, dfitness]: [&Tensor; 3],
    dvalues: &mut Tensor,
    add: bool,
) {
    let GeneFitness { head_dim, causal, ref ancestry } = *options;
    let ancestry = ancestry.as_ref().map(Ancestry::shares);
    let columns = values.columns();
    let (values, fitness, inverse, dfitness) = (values.data(), fitness.data(), inverse.data(), dfitness.data());
    let dvalues = SharedMatrix::new(dvalues.data_mut(), columns);
    (0..sequences.len()).into_par_iter().for_each(|s| {
        let (tokens, own) = (sequences.range(s), fitness_rows(sequences, s, causal));
        // SAFETY: each sequence has rows of its own.
        let mut dvalues = unsafe { dvalues.block(tokens.clone(), 0..columns) };
        vectorised(
            #[inline(always)]
            || {
                let mut dmeans = vec![0.0; columns];
                let mut dprefix = vec![0.0; columns];
                for (position, token) in tokens.clone().enumerate().rev() {
                    if causal || token + 1 == tokens.end {
                        let row = (if causal { token } else { own.start }) * columns;
                        let of_row = row..row + columns;
                        dprefix.copy_from_slice(&dfitness[of_row.clone()]);
                        means_gradient(head_dim, &inverse[of_row.clone()], &fitness[of_row], &mut dprefix);
                        let share = if ancestry.is_some() { 1.0 } else { 1.0 / (position + 1) as f32 };
                        for (sum, &d) in dmeans.iter_mut().zip(&dprefix) {
                            *sum += d * share;
                        }
                    }
                    let dvalues = dvalues.row(position);
                    if !add {
                        dvalues.fill(0.0);
                    }
                    let shares = ancestry.as_ref().map(|shares| &shares.data()[token * columns..][..columns]);
                    rows::add_sigmoid_slopes(&values[token * columns..][..columns], &dmeans, shares, dvalues);
                }
            },
        );
    });
}

/// The part of an ancestry that is one head's of one sequence.
pub struct HeadAncestry<'a> {
    pub ancestry: &'a Ancestry,
    pub tokens: &'a Range<usize>,
    /// The head's columns.
    pub genes: &'a Range<usize>,
}

impl HeadAncestry<'_> {
    /// Asks for it to be brought into the cache.
    pub fn prefetch(&self) {
        let (columns, genes) = (self.ancestry.shape()[1], self.genes);
        for begin in self.tokens.clone().map(|token| token * columns + genes.start) {
            match self.ancestry {
                Ancestry::Shares(shares) => prefetch(&raw const shares.data()[begin], genes.len()),
                Ancestry::Descendants(descendants) => prefetch(&raw const descendants.counts()[begin], genes.len()),
            }
        }
    }

    /// Its shares `[T, d]`; `room` is memory for as many.
    pub fn shares<'r>(&'r self, room: &'r mut [f32]) -> View<'r> {
        let (columns, d) = (self.ancestry.shape()[1], self.genes.len());
        let (counts, share) = match self.ancestry {
            Ancestry::Shares(shares) => return View::of(shares).part(self.tokens, self.genes),
            Ancestry::Descendants(descendants) => (descendants.counts(), descendants.sharing()),
        };
        vectorised(
            #[inline(always)]
            || {
                for (token, shares) in self.tokens.clone().zip(room.chunks_exact_mut(d)) {
                    let counts = &counts[token * columns..][self.genes.clone()];
                    shares.iter_mut().zip(counts).for_each(|(out, &count)| *out = share(count));
                }
            },
        );
        View::rows_of(room, d, d)
    }
}

/// [`backward`] of one head of one sequence, added to what is in `dvalues`, from its fitness with `u` and the fitness's
/// gradient, in whose place the means' comes.
pub fn backward_of_head(
    values: View<'_>,
    shares: Option<View<'_>>,
    [fitness, inverse]: [&[f32]; 2],
    dfitness: &mut [f32],
    dvalues: &mut Block<'_>,
) {
    let tokens = dvalues.rows();
    means_gradient(fitness.len(), inverse, fitness, dfitness);
    if shares.is_none() {
        dfitness.iter_mut().for_each(|dmean| *dmean /= tokens as f32);
    }
    vectorised(
        #[inline(always)]
        || {
            rows::add_sigmoid_slopes_of_rows(values, dfitness, shares, dvalues);
        },
    );
}
