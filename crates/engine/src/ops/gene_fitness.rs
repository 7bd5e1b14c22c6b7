//! Gene fitness (docs/genetic-attention.md, sections 1, 4 and 5; Genetic AI, arXiv 2501.19113).

use crate::error::{Result, ensure_shape};
use crate::ops::evolve::Ancestry;
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::Tensor;

/// How gene fitness is computed.
#[derive(Clone, Debug)]
pub struct GeneFitness {
    /// Genes: the head dimension `d`.
    pub head_dim: usize,
    /// Whether each position has the fitness of its prefix; takes no ancestry.
    pub causal: bool,
    /// `A` `[N, v·d]`, a constant; without it every token has the share `1/T` (the fixed point).
    pub ancestry: Option<Ancestry>,
}

/// The fitness of values, and `u`.
pub(super) fn fitness_of(values: &Tensor, sequences: &Sequences, options: &GeneFitness) -> Result<[Tensor; 2]> {
    let GeneFitness { head_dim, causal, ref ancestry } = *options;
    ensure_shape!(
        values.rows() == sequences.tokens()
            && head_dim > 0
            && values.columns().is_multiple_of(head_dim)
            && ancestry.as_ref().is_none_or(|a| a.shape() == values.shape() && !causal),
        "gene_fitness",
        "values {:?} and ancestry {:?} do not fit {} tokens, head dimension {head_dim}, causal {causal}",
        values.shape(),
        ancestry.as_ref().map(Ancestry::shape),
        sequences.tokens()
    );
    let rows = if causal { values.rows() } else { sequences.len() };
    let mut fitness = Tensor::empty(values.device(), &[rows, values.columns()]);
    let mut inverse = fitness.empty_like();
    values.device().kernels().gene_fitness(values, sequences, options, &mut fitness, &mut inverse);
    Ok([fitness, inverse])
}

impl Var {
    /// `γ` of values `[N, v·d]`: with `P = σ(V)`, gene means `M[g] = Σ_i A[i,g] P[i,g]` over each sequence and
    /// `u = 1 / (M + ½)`, each head's `γ[g] = u[g] / Σ_s u[s]`. The result is `[S, v·d]`, causal `[N, v·d]`.
    pub fn gene_fitness(&self, sequences: &Sequences, options: GeneFitness) -> Result<Var> {
        let values = self.value().clone();
        let [fitness, inverse] = fitness_of(&values, sequences, &options)?;
        let (node, kept, sequences) = (self.node(), fitness.clone(), sequences.clone());
        Ok(Var::record(fitness, &[self], move |dfitness, gradients| {
            let before = gradients.take(node);
            let add = before.is_some();
            let mut dvalues = before.unwrap_or_else(|| values.empty_like());
            let (kernels, fitness) = (dfitness.device().kernels(), [&kept, &inverse, dfitness]);
            kernels.gene_fitness_backward(&values, &sequences, &options, fitness, &mut dvalues, add);
            gradients.put(node, dvalues);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::evolve::{Evolve, Population, evolve};
    use crate::testing::{check_gradients, random, sequences};
    use crate::{Tape, Tensor};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn gene_fitness_has_the_right_gradient_with_the_ancestry_held(
            lengths in prop::collection::vec(1..7_usize, 1..4), heads in 1..3_usize, d in 1..9_usize, seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let values = random(&[sequences.tokens(), heads * d], seed);
            let population = Population::Sampled { size: 8, seed, step: 1, layer: 0 };
            let evolved = Evolve {
                head_dim: d, num_generations: 2, mutation_rate: 0.2, crossover_rate: 0.5, selection_pressure: 2.0, population,
            };
            let ancestries = [
                None,
                Some(evolve(&values, &sequences, evolved).unwrap().ancestry),
                Some(evolve(&values, &sequences, Evolve { population: Population::Infinite, ..evolved }).unwrap().ancestry),
            ];
            for ancestry in ancestries {
                let options = GeneFitness { head_dim: d, causal: false, ancestry };
                check_gradients(std::slice::from_ref(&values), |v| v[0].gene_fitness(&sequences, options.clone())?.scale(4.0));
            }
            let causal = GeneFitness { head_dim: d, causal: true, ancestry: None };
            check_gradients(&[values], |v| v[0].gene_fitness(&sequences, causal.clone())?.scale(4.0));
        }

        #[test]
        fn gene_fitness_is_that_of_the_definition_in_double_precision_and_sums_to_one(
            lengths in prop::collection::vec(1..20_usize, 1..4), heads in 1..3_usize, d in 1..70_usize, causal: bool,
            spread in 0.1..20.0_f32, seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let mut values = random(&[sequences.tokens(), heads * d], seed);
            values.data_mut().iter_mut().for_each(|x| *x *= spread);
            let options = GeneFitness { head_dim: d, causal, ancestry: None };
            let gamma = Tape::inference().constant(values.clone()).gene_fitness(&sequences, options).unwrap();
            let mut rows = gamma.value().data().chunks(heads * d);
            for range in sequences.ranges() {
                for end in if causal { range.start + 1..range.end + 1 } else { range.end..range.end + 1 } {
                    let row = rows.next().unwrap();
                    let seen = range.start..end;
                    let mean = |column: usize| {
                        let p = |i: usize| 1.0 / (1.0 + (-f64::from(values.data()[i * heads * d + column])).exp());
                        seen.clone().map(p).sum::<f64>() / seen.len() as f64
                    };
                    for head in 0..heads {
                        let means: Vec<f64> = (head * d..(head + 1) * d).map(mean).collect();
                        for (g, m) in means.iter().enumerate() {
                            let expected = 1.0 / means.iter().map(|other| (m + 0.5) / (other + 0.5)).sum::<f64>();
                            let got = f64::from(row[head * d + g]);
                            prop_assert!((got / expected - 1.0).abs() < 1e-6, "{got}, expected {expected}");
                            prop_assert!(got > 0.0 && (got < 1.0 || d == 1));
                        }
                        let sum: f64 = row[head * d..(head + 1) * d].iter().map(|&x| f64::from(x)).sum();
                        prop_assert!((sum - 1.0).abs() < 1e-6);
                    }
                }
            }
            prop_assert!(rows.next().is_none());
        }

        #[test]
        fn equal_gene_means_give_one_over_d_exactly(
            power in 0..10_u32, length in 1..20_usize, generations in 0..4_usize, causal: bool, seed in 0..1_000_000_u64,
        ) {
            let d = 2_usize.pow(power);
            let of_token = random(&[length, 1], seed);
            let rows: Vec<f32> = of_token.data().iter().flat_map(|&x| std::iter::repeat_n(x, d)).collect();
            let values = Tensor::from_slice(of_token.device(), &[length, d], &rows).unwrap();
            let evolved = Evolve {
                head_dim: d, num_generations: generations, mutation_rate: 0.1, crossover_rate: 0.8, selection_pressure: 1.0,
                population: Population::Infinite,
            };
            let ancestry = (generations > 0 && !causal).then(|| evolve(&values, &sequences(&[length]), evolved).unwrap().ancestry);
            let options = GeneFitness { head_dim: d, causal, ancestry };
            let gamma = Tape::inference().constant(values).gene_fitness(&sequences(&[length]), options).unwrap();
            prop_assert!(gamma.value().data().iter().all(|&x| x == 1.0 / d as f32), "{:?}", gamma.value());
        }
    }
}
