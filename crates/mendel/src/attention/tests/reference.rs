//! The attention module in double precision, written from docs/genetic-attention.md for clarity.

use std::collections::BTreeMap;

use crate::attention::{AttentionConfig, FitnessScale};

/// Inputs and parameters by name, row by row.
pub type Named = BTreeMap<String, Vec<f64>>;

/// A matrix as a list of rows.
type Rows = Vec<Vec<f64>>;

/// `x Wᵀ + b`; the bias is optional.
fn linear(named: &Named, name: &str, x: &Rows) -> Rows {
    let (weight, bias) = (&named[&format!("{name}.weight")], named.get(&format!("{name}.bias")));
    let width = x[0].len();
    let output = |row: &[f64], o: usize| {
        let sum: f64 = row.iter().zip(&weight[o * width..]).map(|(x, w)| x * w).sum();
        sum + bias.map_or(0.0, |bias| bias[o])
    };
    x.iter().map(|row| (0..weight.len() / width).map(|o| output(row, o)).collect()).collect()
}

/// RMS norm with a gain, head by head.
fn rms_norm(x: &mut Rows, gain: &[f64]) {
    for head in x.iter_mut().flat_map(|row| row.chunks_mut(gain.len())) {
        let mean_square = head.iter().map(|x| x * x).sum::<f64>() / gain.len() as f64;
        head.iter_mut().zip(gain).for_each(|(x, g)| *x *= g / (mean_square + 1e-6).sqrt());
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Attention probabilities of query row `i` over the tokens that it sees.
fn probabilities(query: &[f64], keys: &[&[f64]]) -> Vec<f64> {
    let scores: Vec<f64> = keys.iter().map(|key| dot(query, key) / (query.len() as f64).sqrt()).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// Gene fitness of one head from the values of its tokens and their shares.
fn gene_fitness(values: &[&[f64]], share: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let d = values[0].len();
    let mean = |g: usize| (0..values.len()).map(|i| share(i, g) / (1.0 + (-values[i][g]).exp())).sum::<f64>();
    let means: Vec<f64> = (0..d).map(mean).collect();
    means.iter().map(|m| 1.0 / means.iter().map(|other| (m + 0.5) / (other + 0.5)).sum::<f64>()).collect()
}

/// The module's output `[N, H]` for the input `x` and parameters in `named`; without an ancestry `[N, n_kv_heads·d]`
/// the genetic part takes the fixed point. No dropout.
pub fn output(config: &AttentionConfig, named: &Named, lengths: &[usize], ancestry: Option<&[f32]>) -> Vec<f64> {
    let d = config.head_dim();
    let x: Rows = named["x"].chunks(config.hidden_size).map(<[f64]>::to_vec).collect();
    let latent = if config.in_proj_dim.is_some() { linear(named, "in_proj", &x) } else { x };
    let [mut query, mut key, value] = ["query", "key", "value"].map(|name| linear(named, name, &latent));
    if config.qk_norm {
        rms_norm(&mut query, &named["query_norm.weight"]);
        rms_norm(&mut key, &named["key_norm.weight"]);
    }
    let mut mixed: Rows = vec![vec![0.0; config.hidden_size]; query.len()];
    let mut begin = 0;
    for &length in lengths {
        for head in 0..config.n_heads {
            let kv_head = head / (config.n_heads / config.n_kv_heads);
            let of = kv_head * d..(kv_head + 1) * d;
            for i in begin..begin + length {
                let end = if config.causal { i + 1 } else { begin + length };
                let keys: Vec<&[f64]> = key[begin..end].iter().map(|row| &row[of.clone()]).collect();
                let values: Vec<&[f64]> = value[begin..end].iter().map(|row| &row[of.clone()]).collect();
                let shares = probabilities(&query[i][head * d..][..d], &keys);
                let modulation = match &config.genetic {
                    None => vec![1.0; d],
                    Some(genetic) => {
                        let scale = if genetic.fitness_scale == FitnessScale::UnitMean { d as f64 } else { 1.0 };
                        let share = |j: usize, g: usize| match ancestry {
                            Some(shares) => f64::from(shares[(begin + j) * config.n_kv_heads * d + of.start + g]),
                            None => 1.0 / values.len() as f64,
                        };
                        gene_fitness(&values, share).iter().map(|gamma| gamma * scale).collect()
                    }
                };
                for g in 0..d {
                    let sum: f64 = shares.iter().zip(&values).map(|(share, v)| share * v[g]).sum();
                    mixed[i][head * d + g] = modulation[g] * sum;
                }
            }
        }
        begin += length;
    }
    linear(named, "output", &mixed).concat()
}
