//! Layer norm over rows.

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::parallel::{rows_per_part, sum_over_rows};
use crate::tensor::Tensor;

pub fn forward(x: &Tensor, gain: &Tensor, bias: &Tensor, epsilon: f32, y: &mut Tensor, statistics: &mut Tensor) {
    let columns = x.columns();
    let (gain, bias) = (gain.data(), bias.data());
    let part = rows_per_part(columns);
    let parts = x.data().par_chunks(part * columns).zip(statistics.data_mut().par_chunks_mut(part * 2));
    y.data_mut().par_chunks_mut(part * columns).zip(parts).for_each(|(y, (x, statistics))| {
        vectorised(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(columns).zip(statistics.chunks_exact_mut(2));
                for (y, (x, statistics)) in y.chunks_exact_mut(columns).zip(rows) {
                    let mean = math::sum(x) / columns as f32;
                    let variance = math::sum_with(x, x, |x, _| (x - mean) * (x - mean)) / columns as f32;
                    let inverse = 1.0 / (variance + epsilon).sqrt();
                    statistics.copy_from_slice(&[mean, inverse]);
                    for (((y, &x), &gain), &bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                        *y = (x - mean) * inverse * gain + bias;
                    }
                }
            },
        );
    });
}

pub fn backward(x: &Tensor, gain: &Tensor, statistics: &Tensor, dy: &Tensor, [dx, dgain, dbias]: [&mut Tensor; 3]) {
    let columns = x.columns();
    let (x, gain, dy, statistics) = (x.data(), gain.data(), dy.data(), statistics.data());
    let part = rows_per_part(columns);
    dx.data_mut().par_chunks_mut(part * columns).enumerate().for_each(|(index, dx)| {
        vectorised(
            #[inline(always)]
            || {
                for (row, dx) in dx.chunks_exact_mut(columns).enumerate() {
                    let row = index * part + row;
                    let (x, dy) = (&x[row * columns..][..columns], &dy[row * columns..][..columns]);
                    row_gradient(x, gain, [statistics[2 * row], statistics[2 * row + 1]], dy, dx);
                }
            },
        );
    });
    let rows = dy.len() / columns;
    let mut sums = vec![0.0; 2 * columns];
    sum_over_rows(rows, &mut sums, |row, sums| {
        vectorised(
            #[inline(always)]
            || {
                let (mean, inverse) = (statistics[2 * row], statistics[2 * row + 1]);
                let (gains, biases) = sums.split_at_mut(columns);
                let (x, dy) = (&x[row * columns..][..columns], &dy[row * columns..][..columns]);
                for (((gain, bias), &x), &dy) in gains.iter_mut().zip(biases).zip(x).zip(dy) {
                    *gain += dy * (x - mean) * inverse;
                    *bias += dy;
                }
            },
        );
    });
    dgain.data_mut().copy_from_slice(&sums[..columns]);
    dbias.data_mut().copy_from_slice(&sums[columns..]);
}

/// With `x̂` the normalised row and `g = gain ⊙ dy`: `dx = (g − mean(g) − x̂·mean(g ⊙ x̂)) / deviation`.
#[inline(always)]
fn row_gradient(x: &[f32], gain: &[f32], [mean, inverse]: [f32; 2], dy: &[f32], dx: &mut [f32]) {
    let columns = x.len() as f32;
    for ((dx, &gain), &dy) in dx.iter_mut().zip(gain).zip(dy) {
        *dx = gain * dy;
    }
    let mean_g = math::sum(dx) / columns;
    let mean_gx = math::sum_with(dx, x, |g, x| g * (x - mean)) * inverse / columns;
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = inverse * (*dx - mean_g - (x - mean) * inverse * mean_gx);
    }
}
