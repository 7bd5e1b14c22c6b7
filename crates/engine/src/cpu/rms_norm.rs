//! RMS norm over rows.

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::parallel::{rows_per_part, sum_over_rows};
use crate::tensor::Tensor;

pub fn forward(x: &Tensor, gain: &Tensor, epsilon: f32, y: &mut Tensor, inverse_rms: &mut Tensor) {
    let columns = x.columns();
    let gain = gain.data();
    let part = rows_per_part(columns);
    let parts = x.data().par_chunks(part * columns).zip(inverse_rms.data_mut().par_chunks_mut(part));
    y.data_mut().par_chunks_mut(part * columns).zip(parts).for_each(|(y, (x, inverse_rms))| {
        vectorised(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(columns).zip(inverse_rms);
                for (y, (x, inverse_rms)) in y.chunks_exact_mut(columns).zip(rows) {
                    *inverse_rms = 1.0 / (math::dot(x, x) / columns as f32 + epsilon).sqrt();
                    for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
                        *y = x * *inverse_rms * gain;
                    }
                }
            },
        );
    });
}

/// With `r = 1/rms` and `g = gain ⊙ dy`: `dx = r·g − x·r³·mean(g ⊙ x)`.
pub fn backward(x: &Tensor, gain: &Tensor, inverse_rms: &Tensor, dy: &Tensor, [dx, dgain]: [&mut Tensor; 2]) {
    let columns = x.columns();
    let rows = x.rows();
    let (x, gain, dy, inverse_rms) = (x.data(), gain.data(), dy.data(), inverse_rms.data());
    let part = rows_per_part(columns);
    dx.data_mut().par_chunks_mut(part * columns).enumerate().for_each(|(index, dx)| {
        vectorised(
            #[inline(always)]
            || {
                for (row, dx) in dx.chunks_exact_mut(columns).enumerate() {
                    let row = index * part + row;
                    let (x, dy) = (&x[row * columns..][..columns], &dy[row * columns..][..columns]);
                    let r = inverse_rms[row];
                    for ((dx, &gain), &dy) in dx.iter_mut().zip(gain).zip(dy) {
                        *dx = gain * dy;
                    }
                    let mean_gx = math::dot(dx, x) / columns as f32;
                    for (dx, &x) in dx.iter_mut().zip(x) {
                        *dx = r * (*dx - x * r * r * mean_gx);
                    }
                }
            },
        );
    });
    let sums = dgain.data_mut();
    sums.fill(0.0);
    sum_over_rows(rows, sums, |row, sums| {
        let (x, dy) = (&x[row * columns..][..columns], &dy[row * columns..][..columns]);
        for ((sum, &x), &dy) in sums.iter_mut().zip(x).zip(dy) {
            *sum += dy * x * inverse_rms[row];
        }
    });
}
