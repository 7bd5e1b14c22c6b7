//! InfoNCE from cosines, with its gradient.

use super::math;
use super::softmax::exponentiate;
use crate::ops::info_nce::InfoNce;
use crate::tensor::Tensor;

pub fn info_nce(scores: &Tensor, options: &InfoNce, loss: &mut Tensor, dscores: &mut Tensor) {
    let (queries, candidates) = (scores.rows(), scores.columns());
    let mut logits: Vec<f32> = scores.data().iter().map(|score| score / options.temperature).collect();
    for &(query, candidate) in &options.excluded {
        logits[query as usize * candidates + candidate as usize] = f32::NEG_INFINITY;
    }
    let directions = if options.symmetric { 2.0 } else { 1.0 };
    let weight = 1.0 / (directions * queries as f32);
    let d = dscores.data_mut();
    d.fill(0.0);
    let mut total = 0.0_f64;
    let mut row = vec![0.0; candidates];
    for query in 0..queries {
        row.copy_from_slice(&logits[query * candidates..][..candidates]);
        total += cross_entropy(&mut row, query);
        for (d, &row) in d[query * candidates..].iter_mut().zip(&row) {
            *d += row * weight / options.temperature;
        }
    }
    if options.symmetric {
        let mut column = vec![0.0; queries];
        for positive in 0..queries {
            for (query, x) in column.iter_mut().enumerate() {
                *x = logits[query * candidates + positive];
            }
            total += cross_entropy(&mut column, positive);
            for (query, &x) in column.iter().enumerate() {
                d[query * candidates + positive] += x * weight / options.temperature;
            }
        }
    }
    loss.data_mut()[0] = (total * f64::from(weight)) as f32;
}

/// `−log softmax(logits)[target]`; leaves its gradient in `logits`.
fn cross_entropy(logits: &mut [f32], target: usize) -> f64 {
    let positive = logits[target];
    let excluded: Vec<usize> = (0..logits.len()).filter(|&i| logits[i] == f32::NEG_INFINITY).collect();
    let (max, _) = exponentiate(logits);
    excluded.into_iter().for_each(|i| logits[i] = 0.0);
    let sum = math::sum(logits);
    logits.iter_mut().for_each(|p| *p /= sum);
    logits[target] -= 1.0;
    f64::from(sum.ln()) + f64::from(max - positive)
}
