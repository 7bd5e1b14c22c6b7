//! Gene fitness (docs/genetic-attention.md, sections 1, 4 and 5; Genetic AI, arXiv 2501.19113).

use crate::error::{Result, ensure_shape};
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
    pub ancestry: Option<Tensor>,
}

impl Var {
    /// `γ` of values `[N, v·d]`: with `P = σ(V)`, gene means `M[g] = Σ_i A[i,g] P[i,g]` over each sequence and
    /// `u = 1 / (M + ½)`, each head's `γ[g] = u[g] / Σ_s u[s]`. The result is `[S, v·d]`, causal `[N, v·d]`.
    pub fn gene_fitness(&self, sequences: &Sequences, options: GeneFitness) -> Result<Var> {
        let values = self.value().clone();
        let GeneFitness { head_dim, causal, ref ancestry } = options;
        ensure_shape!(
            values.rows() == sequences.tokens()
                && head_dim > 0
                && values.columns().is_multiple_of(head_dim)
                && ancestry.as_ref().is_none_or(|a| a.shape() == values.shape() && !causal),
            "gene_fitness",
            "values {:?} and ancestry {:?} do not fit {} tokens, head dimension {head_dim}, causal {causal}",
            values.shape(),
            ancestry.as_ref().map(Tensor::shape),
            sequences.tokens()
        );
        let rows = if causal { values.rows() } else { sequences.len() };
        let mut fitness = Tensor::empty(values.device(), &[rows, values.columns()]);
        let mut inverse = fitness.empty_like();
        values.device().kernels().gene_fitness(&values, sequences, &options, &mut fitness, &mut inverse);
        let (node, kept, sequences) = (self.node(), fitness.clone(), sequences.clone());
        Ok(Var::record(fitness, &[self], move |dfitness, gradients| {
            let mut dvalues = values.empty_like();
            let kernels = dfitness.device().kernels();
            kernels.gene_fitness_backward(&values, &sequences, &options, [&kept, &inverse], dfitness, &mut dvalues);
            gradients.add(node, dvalues);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::evolve::{Evolve, Population, evolve};
    use crate::testing::{check_gradients, random, sequences};
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
                Some(evolve(&values, &sequences, evolved).unwrap()),
                Some(evolve(&values, &sequences, Evolve { population: Population::Infinite, ..evolved }).unwrap()),
            ];
            for ancestry in ancestries {
                let options = GeneFitness { head_dim: d, causal: false, ancestry };
                check_gradients(std::slice::from_ref(&values), |v| v[0].gene_fitness(&sequences, options.clone())?.scale(4.0));
            }
            let causal = GeneFitness { head_dim: d, causal: true, ancestry: None };
            check_gradients(&[values], |v| v[0].gene_fitness(&sequences, causal.clone())?.scale(4.0));
        }
    }
}
