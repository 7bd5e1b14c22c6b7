//! Evolution of each sequence and head: the ancestry that is left (docs/genetic-attention.md, section 3).

use std::ops::Range;

use rayon::prelude::*;

use super::gene_fitness::fitness_of_means;
use super::math::{self, vectorised};
use super::parallel::{Block, SharedMatrix};
use crate::ops::evolve::{Evolve, Population};
use crate::random::{Purpose, Site, unit};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

pub fn evolve(values: &Tensor, sequences: &Sequences, options: &Evolve, ancestry: &mut Tensor) {
    let (columns, d) = (values.columns(), options.head_dim);
    let heads = columns / d;
    let ancestry = SharedMatrix::new(ancestry.data_mut(), columns);
    (0..sequences.len() * heads).into_par_iter().for_each(|task| {
        let (s, head) = (task / heads, task % heads);
        let (tokens, genes) = (sequences.range(s), head * d..(head + 1) * d);
        // SAFETY: each sequence and head is one task's.
        let ancestry = unsafe { ancestry.block(tokens.clone(), genes.clone()) };
        vectorised(
            #[inline(always)]
            || {
                let expression = express(values, tokens, genes);
                match options.population {
                    Population::Infinite => mean_field(options, &expression, ancestry),
                    Population::Sampled { size, seed, step, layer } => {
                        let site = Site { seed, step, layer, purpose: Purpose::Founders };
                        let draws = Draws { site, sequence: sequences.ids().data()[s], head: head as u32 };
                        Sampled::new(options, size, draws, &expression).run(ancestry);
                    }
                }
            },
        );
    });
}

/// `P = σ(V)` of one sequence and head, `[T, d]`.
#[inline(always)]
fn express(values: &Tensor, tokens: Range<usize>, genes: Range<usize>) -> Vec<f32> {
    let columns = values.columns();
    let mut expression = Vec::with_capacity(tokens.len() * genes.len());
    for token in tokens {
        let row = &values.data()[token * columns..][genes.clone()];
        expression.extend(row.iter().map(|&x| math::sigmoid(x)));
    }
    expression
}

/// `(x / largest)^pressure`, at most 1: the largest's share stays a number however great the pressure. Where not even
/// the largest is above 0 all are alike.
#[inline(always)]
fn pressed(pressure: f32, x: f32, largest: f32) -> f32 {
    let relative = if largest > 0.0 { (x / largest).min(1.0) } else { 1.0 };
    if pressure == 1.0 { relative } else { relative.powf(pressure) }
}

/// Section 3b: the infinite population.
#[inline(always)]
fn mean_field(options: &Evolve, expression: &[f32], mut ancestry: Block<'_>) {
    let d = options.head_dim;
    let tokens = expression.len() / d;
    let (mutation, even) = (options.mutation_rate, 1.0 / tokens as f32);
    let keep = (1.0 - options.crossover_rate / 2.0) * (1.0 - mutation);
    let (mut inverse, mut fitness) = (vec![0.0; d], vec![0.0; d]);
    let mut means = vec![0.0; d];
    let mut organism = vec![0.0; tokens];
    let mut selected = vec![0.0; expression.len()];
    (0..tokens).for_each(|token| ancestry.row(token).fill(even));
    let mut linkage = 1.0;
    for _ in 0..options.num_generations {
        means.fill(0.0);
        for (token, p) in expression.chunks_exact(d).enumerate() {
            for ((mean, &share), &p) in means.iter_mut().zip(&*ancestry.row(token)).zip(p) {
                *mean += share * p;
            }
        }
        inverse.copy_from_slice(&means);
        fitness_of_means(d, &mut inverse, &mut fitness);
        for (phi, p) in organism.iter_mut().zip(expression.chunks_exact(d)) {
            *phi = math::dot(p, &fitness);
        }
        let average = math::dot(&means, &fitness);
        // The largest among the living: one whose share has become 0 must not make the others' powers 0 too.
        let mut largest = vec![0.0_f32; d];
        let rows = selected.chunks_exact_mut(d).zip(expression.chunks_exact(d)).zip(&organism);
        for (token, ((out, p), &phi)) in rows.enumerate() {
            let shares = ancestry.row(token);
            for g in 0..d {
                let unlinked = p[g] * fitness[g] + average - means[g] * fitness[g];
                out[g] = linkage * phi + (1.0 - linkage) * unlinked;
                let living = if shares[g] > 0.0 { out[g] } else { 0.0 };
                largest[g] = largest[g].max(living);
            }
        }
        let mut sums = vec![0.0; d];
        for (token, out) in selected.chunks_exact_mut(d).enumerate() {
            let shares = ancestry.row(token);
            for g in 0..d {
                out[g] = shares[g] * pressed(options.selection_pressure, out[g], largest[g]);
                sums[g] += out[g];
            }
        }
        for (token, out) in selected.chunks_exact(d).enumerate() {
            let shares = ancestry.row(token);
            for g in 0..d {
                shares[g] = (1.0 - mutation) * out[g] / sums[g] + mutation * even;
            }
        }
        linkage *= keep;
    }
}

/// Whose random numbers.
struct Draws {
    site: Site,
    sequence: u32,
    head: u32,
}

impl Draws {
    #[inline(always)]
    fn stream(&self, purpose: Purpose, generation: usize) -> crate::random::Stream {
        Site { purpose, ..self.site }.stream(self.sequence, self.head, generation as u32)
    }
}

/// Section 3a: a finite population.
struct Sampled<'a> {
    options: &'a Evolve,
    size: usize,
    draws: Draws,
    expression: &'a [f32],
    /// `[N, d]`: the token that each gene of each organism descends from.
    ancestor: Vec<u32>,
    children: Vec<u32>,
}

impl<'a> Sampled<'a> {
    #[inline(always)]
    fn new(options: &'a Evolve, size: usize, draws: Draws, expression: &'a [f32]) -> Self {
        let d = options.head_dim;
        let tokens = expression.len() / d;
        let offset = f64::from(unit(draws.stream(Purpose::Founders, 0).block(0)[0]));
        let founder = |n: usize| ((n as f64 + offset) * tokens as f64 / size as f64) as usize;
        let ancestor = (0..size).flat_map(|n| std::iter::repeat_n(founder(n).min(tokens - 1) as u32, d)).collect();
        Sampled { options, size, draws, expression, ancestor, children: vec![0; size * d] }
    }

    #[inline(always)]
    fn run(mut self, mut ancestry: Block<'_>) {
        let d = self.options.head_dim;
        let mut carried = vec![0.0; self.ancestor.len()];
        let mut cumulative = vec![0.0; self.size];
        for generation in 0..self.options.num_generations {
            for (carried, genes) in carried.chunks_exact_mut(d).zip(self.ancestor.chunks_exact(d)) {
                gather(self.expression, genes, carried);
            }
            self.select(&carried, &mut cumulative);
            self.reproduce(generation, &cumulative);
            std::mem::swap(&mut self.ancestor, &mut self.children);
        }
        let tokens = self.expression.len() / d;
        (0..tokens).for_each(|token| ancestry.row(token).fill(0.0));
        let share = 1.0 / self.size as f32;
        for genes in self.ancestor.chunks_exact(d) {
            for (g, &token) in genes.iter().enumerate() {
                ancestry.row(token as usize)[g] += 1.0;
            }
        }
        for token in 0..tokens {
            ancestry.row(token).iter_mut().for_each(|count| *count *= share);
        }
    }

    /// The roulette wheel: `cumulative[n] = Σ_{m ≤ n} φ[m]^β`.
    #[inline(always)]
    fn select(&self, carried: &[f32], cumulative: &mut [f32]) {
        let d = self.options.head_dim;
        let (mut means, mut fitness) = (vec![0.0; d], vec![0.0; d]);
        for genes in carried.chunks_exact(d) {
            means.iter_mut().zip(genes).for_each(|(mean, &p)| *mean += p);
        }
        means.iter_mut().for_each(|mean| *mean /= self.size as f32);
        fitness_of_means(d, &mut means, &mut fitness);
        for (phi, genes) in cumulative.iter_mut().zip(carried.chunks_exact(d)) {
            *phi = math::dot(genes, &fitness);
        }
        let largest = math::max(cumulative);
        let mut sum = 0.0_f64;
        for phi in cumulative {
            sum += f64::from(pressed(self.options.selection_pressure, *phi, largest));
            *phi = sum as f32;
        }
    }

    /// One generation of children from the parents that the wheel gives.
    #[inline(always)]
    fn reproduce(&mut self, generation: usize, cumulative: &[f32]) {
        let d = self.options.head_dim;
        let total = cumulative[self.size - 1];
        let pick = |draw: u32| {
            let mark = unit(draw) * total;
            let before = if self.size <= COUNTED {
                cumulative.iter().map(|&sum| u32::from(sum <= mark)).sum::<u32>() as usize
            } else {
                cumulative.partition_point(|&sum| sum <= mark)
            };
            before.min(self.size - 1)
        };
        let mutation = Mutation::new(self.options.mutation_rate, self.expression.len() / d);
        let parents = self.draws.stream(Purpose::Parents, generation);
        let genes = self.draws.stream(Purpose::Genes, generation);
        let blocks = d.div_ceil(4);
        let (mut parent_draws, mut gene_draws) = ([0; 4 * SIBLINGS], vec![0; 4 * blocks * SIBLINGS]);
        for (group, siblings) in self.children.chunks_mut(SIBLINGS * d).enumerate() {
            let first = group * SIBLINGS;
            parents.fill(first as u32, &mut parent_draws);
            genes.fill((first * blocks) as u32, &mut gene_draws);
            let draws = parent_draws.chunks_exact(4).zip(gene_draws.chunks_exact(4 * blocks));
            for (out, (parents, genes)) in siblings.chunks_exact_mut(d).zip(draws) {
                let (a, b) = (pick(parents[0]) * d, pick(parents[1]) * d);
                let mixes = unit(parents[2]) < self.options.crossover_rate;
                mutation.cross(mixes, &self.ancestor[a..a + d], &self.ancestor[b..b + d], genes, out);
            }
        }
    }
}

/// What each gene of an organism carries: `expression[genes[g], g]`.
#[inline(always)]
fn gather(expression: &[f32], genes: &[u32], carried: &mut [f32]) {
    let d = genes.len();
    let rows = (expression.len() / d) as u32;
    assert!(genes.iter().fold(true, |all, &token| all & (token < rows)));
    for (g, (carried, &token)) in carried.iter_mut().zip(genes).enumerate() {
        // SAFETY: the token is below the number of rows, and g below their length. Checked one by one, the numbers
        // would be read one by one.
        *carried = unsafe { *expression.get_unchecked(token as usize * d + g) };
    }
}

/// A wheel of so many organisms is counted through rather than searched: counting has no branches.
const COUNTED: usize = 128;
/// Children whose draws are taken together.
const SIBLINGS: usize = 16;

/// Of a gene's 32 random bits the top one is the coin between the parents and the other 31 decide the mutation; given
/// that a gene mutates, those 31 are uniform below the threshold, and so name the token that it is replaced by.
struct Mutation {
    threshold: u32,
    tokens_per_draw: f32,
    last_token: f32,
}

impl Mutation {
    #[inline(always)]
    fn new(rate: f32, tokens: usize) -> Self {
        let threshold = (f64::from(rate) * 2_147_483_648.0) as u32;
        Mutation {
            threshold,
            tokens_per_draw: tokens as f32 / threshold.max(1) as f32,
            last_token: (tokens - 1) as f32,
        }
    }

    /// A child's genes from those of its parents.
    #[inline(always)]
    fn cross(&self, mixes: bool, a: &[u32], b: &[u32], draws: &[u32], out: &mut [u32]) {
        let coin = u32::from(mixes) << 31;
        for (((out, &draw), &a), &b) in out.iter_mut().zip(draws).zip(a).zip(b) {
            let inherited = if draw & coin != 0 { b } else { a };
            let mutant = draw & 0x7FFF_FFFF;
            let token = (mutant as i32 as f32 * self.tokens_per_draw).min(self.last_token);
            // SAFETY: a finite number from 0 to the last token. The checked conversion goes one by one.
            let token = unsafe { token.to_int_unchecked::<i32>() } as u32;
            *out = if mutant < self.threshold { token } else { inherited };
        }
    }
}
