//! Softmax attention over packed sequences (Vaswani et al. 2017, arXiv 1706.03762), grouped-query (Ainslie et al.
//! 2023, arXiv 2305.13245) and causal as options.

use crate::error::{Result, ensure_shape};
use crate::kernels::{AttentionGradients, AttentionOutputs, Modulation, OfValues};
use crate::ops::gene_fitness::{GeneFitness, fitness_of};
use crate::ops::modulate::{Modulate, ensure_modulates};
use crate::random::Site;
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::Tensor;

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`. Query head `i` uses kv head `i / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Whether a position sees only itself and those before it.
    pub causal: bool,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

/// Dropout on attention probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionDropout {
    /// In [0, 1).
    pub probability: f32,
    /// Where its draws come from.
    pub site: Site,
}

/// The genetic part of attention: gene fitness of the values, by which the output is modulated.
#[derive(Clone, Debug)]
pub struct Genetic {
    /// How the fitness is computed.
    pub fitness: GeneFitness,
    /// The same fitness, with `u`, where [`evolve`](crate::ops::evolve::evolve) has given it with the ancestry.
    pub known: Option<[Tensor; 2]>,
    /// How the modulation is applied.
    pub modulate: Modulate,
}

/// A fitness that modulates, as it is kept for the backward pass.
struct Kept {
    /// Where its gradient goes, if it is not made from the values.
    node: Option<usize>,
    fitness: Tensor,
    options: Modulate,
    of_values: Option<(GeneFitness, Tensor)>,
}

impl Kept {
    fn modulation(&self) -> Modulation<'_> {
        let of_values = self.of_values.as_ref().map(|(options, inverse)| OfValues { options, inverse });
        Modulation { fitness: &self.fitness, options: self.options, of_values }
    }
}

impl Var {
    /// `softmax(q kᵀ / √d) v` within each sequence: `q` `[N, n_heads·d]`, `k` and `v` `[N, n_kv_heads·d]`; the result
    /// has the shape of `q`.
    pub fn attention(q: &Var, k: &Var, v: &Var, sequences: &Sequences, options: Attention) -> Result<Var> {
        attend([q, k, v], sequences, options, None, &[])
    }

    /// [`Var::attention`] followed by [`Var::modulate`] with a fitness, in one pass.
    pub fn modulated_attention(
        q: &Var,
        k: &Var,
        v: &Var,
        sequences: &Sequences,
        options: Attention,
        (fitness, modulate): (&Var, Modulate),
    ) -> Result<Var> {
        let kept = Kept { node: fitness.node(), fitness: fitness.value().clone(), options: modulate, of_values: None };
        attend([q, k, v], sequences, options, Some(kept), &[fitness])
    }

    /// [`Var::gene_fitness`] of the values and [`Var::modulated_attention`] with it, in one pass each way.
    pub fn genetic_attention(
        q: &Var,
        k: &Var,
        v: &Var,
        sequences: &Sequences,
        options: Attention,
        genetic: Genetic,
    ) -> Result<Var> {
        let [fitness, inverse] = match genetic.known {
            Some(known) => {
                let shape = [sequences.len(), v.value().columns()];
                ensure_shape!(
                    known.iter().all(|of_genes| of_genes.shape() == shape)
                        && genetic.fitness.ancestry.as_ref().is_some_and(|a| a.shape() == v.value().shape())
                        && !genetic.fitness.causal,
                    "genetic_attention",
                    "a known fitness {:?} is not {shape:?}, or not that of an ancestry {:?}",
                    known[0].shape(),
                    v.value().shape()
                );
                known
            }
            None => fitness_of(v.value(), sequences, &genetic.fitness)?,
        };
        let of_values = Some((genetic.fitness, inverse));
        let kept = Kept { node: None, fitness, options: genetic.modulate, of_values };
        attend([q, k, v], sequences, options, Some(kept), &[])
    }
}

fn attend(
    inputs: [&Var; 3],
    sequences: &Sequences,
    options: Attention,
    modulation: Option<Kept>,
    more_inputs: &[&Var],
) -> Result<Var> {
    let qkv = inputs.map(|x| x.value().clone());
    ensure_fits(&qkv, sequences, options)?;
    if let Some(Kept { fitness, options: modulate, of_values, .. }) = &modulation {
        ensure_modulates(&qkv[0], fitness, sequences, *modulate)?;
        let head_dim = qkv[0].columns() / options.n_heads;
        let genes = of_values.as_ref().map_or(head_dim, |(fitness, _)| fitness.head_dim);
        ensure_shape!(
            fitness.columns() == qkv[1].columns() && modulate.head_dim == head_dim && genes == head_dim,
            "attention",
            "a fitness {:?} of {} and {genes} genes a head does not fit {} kv heads of {head_dim}",
            fitness.shape(),
            modulate.head_dim,
            options.n_kv_heads
        );
    }
    let nodes = inputs.map(Var::node);
    let (device, mut out) = (qkv[0].device().clone(), qkv[0].empty_like());
    let how = modulation.as_ref().map(Kept::modulation);
    let saved = device.kernels().attention(qkv.each_ref(), sequences, &options, how, &mut out);
    let (sequences, kept) = (sequences.clone(), out.clone());
    let inputs: Vec<&Var> = inputs.into_iter().chain(more_inputs.iter().copied()).collect();
    Ok(Var::record(out, &inputs, move |dout, gradients| {
        let columns = qkv.each_ref().map(Tensor::columns);
        let mut outputs = Tensor::side_by_side(&device, qkv[0].rows(), &columns);
        let given = modulation.as_ref().filter(|modulation| modulation.of_values.is_none());
        let mut dfitness = given.map(|modulation| modulation.fitness.empty_like());
        let [dq, dk, dv] = &mut outputs[..] else { unreachable!("one for each of q, k and v") };
        let wanted = AttentionGradients { qkv: [dq, dk, dv], fitness: dfitness.as_mut() };
        let how = modulation.as_ref().map(Kept::modulation);
        let kernels = device.kernels();
        let outs = AttentionOutputs { out: &kept, saved: &saved, dout };
        kernels.attention_backward(qkv.each_ref(), &sequences, &options, how, outs, wanted);
        for (node, gradient) in nodes.into_iter().zip(outputs) {
            gradients.add(node, gradient);
        }
        if let (Some(modulation), Some(dfitness)) = (given, dfitness) {
            gradients.add(modulation.node, dfitness);
        }
        Ok(())
    }))
}

fn ensure_fits([q, k, v]: &[Tensor; 3], sequences: &Sequences, options: Attention) -> Result<()> {
    let Attention { n_heads, n_kv_heads, .. } = options;
    let (rows, columns) = (sequences.tokens(), q.columns());
    ensure_shape!(
        n_kv_heads > 0 && n_heads % n_kv_heads == 0 && columns % n_heads == 0,
        "attention",
        "{columns} columns do not make {n_heads} query heads over {n_kv_heads} key heads"
    );
    let kv_shape = [rows, columns / n_heads * n_kv_heads];
    ensure_shape!(
        q.shape() == [rows, columns] && k.shape() == kv_shape && v.shape() == kv_shape,
        "attention",
        "q {:?}, k {:?} and v {:?} do not fit {rows} tokens and {n_heads} heads over {n_kv_heads}",
        q.shape(),
        k.shape(),
        v.shape()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;
    use crate::testing::{assert_close, check_gradients, random, sequences, with_threads};
    use crate::{Tape, Tensor};
    use proptest::prelude::*;

    fn options(kv: usize, group: usize, causal: bool, probability: f32) -> Attention {
        let site = Site { seed: 1, step: 2, layer: 3, purpose: Purpose::AttentionDropout };
        let dropout = (probability > 0.0).then_some(AttentionDropout { probability, site });
        Attention { n_heads: kv * group, n_kv_heads: kv, causal, dropout }
    }

    fn inputs(tokens: usize, options: Attention, d: usize, seed: u64) -> [Tensor; 3] {
        let shape = [tokens, options.n_kv_heads * d];
        [random(&[tokens, options.n_heads * d], seed), random(&shape, seed + 1), random(&shape, seed + 2)]
    }

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn attention_has_the_right_gradient(
            lengths in prop::collection::vec(1..7_usize, 1..4),
            (kv, group, d) in (1..3_usize, 1..3_usize, 1..7_usize),
            causal: bool,
            drops: bool,
            seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let options = options(kv, group, causal, if drops { 0.3 } else { 0.0 });
            check_gradients(&inputs(sequences.tokens(), options, d, seed), |v| {
                Var::attention(&v[0], &v[1], &v[2], &sequences, options)
            });
        }

        #[test]
        fn modulated_attention_has_the_right_gradient_in_the_fitness_too(
            lengths in prop::collection::vec(1..7_usize, 1..4),
            (kv, group, d) in (1..3_usize, 1..3_usize, 1..7_usize),
            per_token: bool,
            seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let rows = if per_token { sequences.tokens() } else { sequences.len() };
            let mut fitness = random(&[rows, kv * d], seed + 3);
            fitness.data_mut().iter_mut().for_each(|gamma| *gamma = 0.5 + gamma.abs());
            let [q, k, v] = inputs(sequences.tokens(), options(kv, group, per_token, 0.3), d, seed);
            check_gradients(&[q, k, v, fitness], |v| {
                let modulation = (&v[3], Modulate { head_dim: d, scale: 2.0 });
                Var::modulated_attention(&v[0], &v[1], &v[2], &sequences, options(kv, group, per_token, 0.3), modulation)
            });
        }

        #[test]
        fn attention_agrees_with_its_definition(
            length in 1..20_usize, (kv, group, d) in (1..3_usize, 1..3_usize, 1..9_usize), causal: bool, seed in 0..1000_u64,
        ) {
            let options = options(kv, group, causal, 0.0);
            let [q, k, v] = inputs(length, options, d, seed);
            let tape = Tape::inference();
            let of = |x: &Tensor| tape.constant(x.clone());
            let out = Var::attention(&of(&q), &of(&k), &of(&v), &sequences(&[length]), options).unwrap();
            let mut expected = vec![0.0; q.len()];
            for head in 0..kv * group {
                for i in 0..length {
                    let seen = if causal { i + 1 } else { length };
                    let at = |x: &Tensor, row: usize, head: usize, g: usize| f64::from(x.data()[row * x.columns() + head * d + g]);
                    let score = |j| (0..d).map(|g| at(&q, i, head, g) * at(&k, j, head / group, g)).sum::<f64>() / (d as f64).sqrt();
                    let weights: Vec<f64> = (0..seen).map(|j| score(j).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for g in 0..d {
                        let mixed: f64 = (0..seen).map(|j| weights[j] / sum * at(&v, j, head / group, g)).sum();
                        expected[i * q.columns() + head * d + g] = mixed as f32;
                    }
                }
            }
            assert_close(out.value().data(), &expected, 1e-5);
        }
    }

    #[test]
    fn gradients_of_long_sequences_agree_with_their_definition() {
        let d = 8;
        for (length, group, causal) in [(97, 1, false), (130, 2, true), (200, 2, false)] {
            let options = options(1, group, causal, 0.0);
            let [q, k, v] = inputs(length, options, d, 1);
            let dout = random(q.shape(), 9);
            let tape = Tape::recording();
            let leaves = [&q, &k, &v].map(|x| tape.leaf(x.clone()));
            let [of_q, of_k, of_v] = &leaves;
            let out = Var::attention(of_q, of_k, of_v, &sequences(&[length]), options).unwrap();
            let loss = out.mul(&tape.constant(dout.clone())).unwrap().sum().unwrap();
            let gradients = tape.backward(&loss).unwrap();

            let mut expected = [&q, &k, &v].map(|x| vec![0.0_f64; x.len()]);
            let scale = 1.0 / (d as f64).sqrt();
            for (head, i) in (0..group).flat_map(|head| (0..length).map(move |i| (head, i))) {
                let query = i * group * d + head * d;
                let along = |x: &Tensor, at: usize, y: &Tensor, place: usize| -> f64 {
                    (0..d).map(|g| f64::from(x.data()[at + g]) * f64::from(y.data()[place + g])).sum()
                };
                let seen = if causal { i + 1 } else { length };
                let powers: Vec<f64> = (0..seen).map(|j| (along(&q, query, &k, j * d) * scale).exp()).collect();
                let sum: f64 = powers.iter().sum();
                let p: Vec<f64> = powers.iter().map(|power| power / sum).collect();
                let dp: Vec<f64> = (0..seen).map(|j| along(&dout, query, &v, j * d)).collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for (j, g) in (0..seen).flat_map(|j| (0..d).map(move |g| (j, g))) {
                    let ds = p[j] * (dp[j] - mean) * scale;
                    expected[0][query + g] += ds * f64::from(k.data()[j * d + g]);
                    expected[1][j * d + g] += ds * f64::from(q.data()[query + g]);
                    expected[2][j * d + g] += p[j] * f64::from(dout.data()[query + g]);
                }
            }
            for (leaf, expected) in leaves.iter().zip(expected) {
                let expected: Vec<f32> = expected.into_iter().map(|x| x as f32).collect();
                assert_close(gradients.of(leaf).unwrap().data(), &expected, 1e-4);
            }
        }
    }

    #[test]
    fn a_fitness_of_other_heads_than_the_values_is_refused() {
        let (sequences, options) = (sequences(&[3, 2]), options(2, 2, false, 0.0));
        let tape = Tape::inference();
        let [q, k, v] = inputs(5, options, 4, 1).map(|x| tape.constant(x));
        let modulated = |columns: usize, head_dim: usize| {
            let fitness = tape.constant(random(&[2, columns], 2));
            let modulation = (&fitness, Modulate { head_dim, scale: 1.0 });
            Var::modulated_attention(&q, &k, &v, &sequences, options, modulation)
        };
        assert!(modulated(8, 4).is_ok());
        for (columns, head_dim) in [(4, 4), (16, 4), (8, 8), (8, 2)] {
            assert!(modulated(columns, head_dim).is_err(), "{columns} columns, {head_dim} genes a head");
        }
    }

    #[test]
    fn attention_has_the_same_bits_on_any_number_of_threads() {
        let sequences = sequences(&[30, 7, 90, 1]);
        let options = options(2, 2, false, 0.1);
        let run = || {
            let tape = Tape::recording();
            let [q, k, v] = inputs(sequences.tokens(), options, 16, 1).map(|x| tape.leaf(x));
            let out = Var::attention(&q, &k, &v, &sequences, options).unwrap();
            let gradients = tape.backward(&out.mul(&out).unwrap().sum().unwrap()).unwrap();
            [&q, &k, &v].map(|x| gradients.of(x).unwrap().to_vec())
        };
        assert!(with_threads(1, run) == with_threads(3, run));
    }
}
