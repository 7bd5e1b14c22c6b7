//! Section 3b of docs/genetic-attention.md: the infinite population.

use super::{Evolving, pressed};
use crate::cpu::gene_fitness::fitness_of_means;
use crate::cpu::math;
use crate::cpu::parallel::Block;
use crate::ops::evolve::Evolve;

/// The ancestry and the gene means of one sequence and head.
#[inline(always)]
pub(super) fn mean_field(options: &Evolve, evolving: Evolving<'_, f32>) {
    let Evolving { expression, mut ancestry, means, .. } = evolving;
    let d = options.head_dim;
    let tokens = expression.len() / d;
    let (mutation, even) = (options.mutation_rate, 1.0 / tokens as f32);
    let keep = (1.0 - options.crossover_rate / 2.0) * (1.0 - mutation);
    let (mut inverse, mut fitness) = (vec![0.0; d], vec![0.0; d]);
    let mut organism = vec![0.0; tokens];
    let mut selected = vec![0.0; expression.len()];
    (0..tokens).for_each(|token| ancestry.row(token).fill(even));
    let mut linkage = 1.0;
    for _ in 0..options.num_generations {
        gene_means(expression, &mut ancestry, means);
        inverse.copy_from_slice(means);
        fitness_of_means(d, &mut inverse, &mut fitness);
        for (phi, p) in organism.iter_mut().zip(expression.chunks_exact(d)) {
            *phi = math::dot(p, &fitness);
        }
        let average = math::dot(means, &fitness);
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
    gene_means(expression, &mut ancestry, means);
}

/// `M[g] = Σ_i A[i,g] P[i,g]`
#[inline(always)]
fn gene_means(expression: &[f32], ancestry: &mut Block<'_>, means: &mut [f32]) {
    means.fill(0.0);
    for (token, p) in expression.chunks_exact(means.len()).enumerate() {
        for ((mean, &share), &p) in means.iter_mut().zip(&*ancestry.row(token)).zip(p) {
            *mean += share * p;
        }
    }
}
