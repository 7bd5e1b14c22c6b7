//! The ancestry that evolution leaves, as a backward pass finds it.

use std::fmt;
use std::sync::Arc;

use crate::arena::Buffer;
use crate::device::Device;
use crate::tensor::Tensor;

/// The ancestry `A` `[N, v·d]`: the share of the final population whose gene descends from each token. Each sequence's
/// and head's columns sum to 1.
#[derive(Clone, Debug)]
pub enum Ancestry {
    /// Itself.
    Shares(Tensor),
    /// By counts, of a population drawn on a CPU.
    Descendants(Descendants),
}

impl Ancestry {
    /// As shares.
    pub fn shares(&self) -> Tensor {
        match self {
            Ancestry::Shares(shares) => shares.clone(),
            Ancestry::Descendants(descendants) => descendants.shares(),
        }
    }

    /// `[N, v·d]`
    pub fn shape(&self) -> &[usize] {
        match self {
            Ancestry::Shares(shares) => shares.shape(),
            Ancestry::Descendants(descendants) => &descendants.shape,
        }
    }
}

/// How many organisms descend from each token, by genes: a byte each, since those of all layers lie in memory until the
/// backward pass has come to them. In memory of the host's, where alone they are counted.
#[derive(Clone)]
pub struct Descendants {
    device: Device,
    shape: Vec<usize>,
    counts: Arc<Buffer<u8>>,
    organisms: usize,
}

impl Descendants {
    /// The largest population whose descendants a byte counts.
    pub(crate) const MOST_ORGANISMS: usize = u8::MAX as usize;

    /// Those of the tokens that have `values` `[N, v·d]`, counted by `count`.
    pub(crate) fn of(values: &Tensor, organisms: usize, count: impl FnOnce(&mut [u8])) -> Self {
        assert!(organisms <= Self::MOST_ORGANISMS);
        let device = values.device().clone();
        let mut counts = Buffer::new(device.arena(), values.len());
        count(counts.as_mut_slice());
        Descendants { device, shape: values.shape().to_vec(), counts: Arc::new(counts), organisms }
    }

    /// The counts `[N, v·d]`.
    pub(crate) fn counts(&self) -> &[u8] {
        self.counts.as_slice()
    }

    /// What makes shares of counts.
    pub(crate) fn sharing(&self) -> impl Fn(u8) -> f32 + Copy + use<> {
        let share = share_of_one(self.organisms);
        #[inline(always)]
        move |count| f32::from(count) * share
    }

    fn shares(&self) -> Tensor {
        let share = self.sharing();
        Tensor::filled(&self.device, &self.shape, |shares| {
            shares.iter_mut().zip(self.counts()).for_each(|(out, &count)| *out = share(count));
        })
    }
}

impl fmt::Debug for Descendants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} descendants of {} organisms", self.shape, self.organisms)
    }
}

/// The share of one of so many organisms.
pub(crate) fn share_of_one(organisms: usize) -> f32 {
    1.0 / organisms as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::attention::{Attention, Genetic};
    use crate::ops::evolve::{Evolve, Population, evolve};
    use crate::ops::gene_fitness::GeneFitness;
    use crate::ops::modulate::Modulate;
    use crate::testing::{random, sequences};
    use crate::{Tape, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn counts_give_genetic_attention_the_gradients_that_their_shares_give_to_the_bit(
            lengths in prop::collection::vec(1..40_usize, 1..4), (kv, group, d) in (1..3_usize, 1..3_usize, 1..40_usize),
            size in prop_oneof![1..40_usize, 250..260_usize], seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let input = |heads: usize, seed| random(&[sequences.tokens(), heads * d], seed);
            let inputs = [input(kv * group, seed), input(kv, seed + 1), input(kv, seed + 2)];
            let evolved = Evolve {
                head_dim: d, num_generations: 3, mutation_rate: 0.1, crossover_rate: 0.8, selection_pressure: 1.0,
                population: Population::Sampled { size, seed, step: 1, layer: 0 },
            };
            let left = evolve(&inputs[2], &sequences, evolved).unwrap();
            prop_assert_eq!(matches!(left.ancestry, Ancestry::Descendants(_)), size <= 255);
            let gradients = |ancestry: Ancestry| {
                let tape = Tape::recording();
                let [q, k, v] = inputs.each_ref().map(|x| tape.leaf(x.clone()));
                let fitness = GeneFitness { head_dim: d, causal: false, ancestry: Some(ancestry) };
                let modulate = Modulate { head_dim: d, scale: d as f32 };
                let genetic = Genetic { fitness, known: Some(left.fitness.clone()), modulate };
                let options = Attention { n_heads: kv * group, n_kv_heads: kv, causal: false, dropout: None };
                let out = Var::genetic_attention(&q, &k, &v, &sequences, options, genetic).unwrap();
                let gradients = tape.backward(&out.mul(&out).unwrap().sum().unwrap()).unwrap();
                [&q, &k, &v].map(|x| gradients.of(x).unwrap().to_vec())
            };
            let by_shares = gradients(Ancestry::Shares(left.ancestry.shares()));
            prop_assert!(gradients(left.ancestry) == by_shares);
        }
    }
}
