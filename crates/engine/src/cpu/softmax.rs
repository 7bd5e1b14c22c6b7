//! Softmax over rows.

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::parallel::rows_per_part;
use crate::tensor::Tensor;

/// Exponentials of `row − max` in place; returns the maximum and the sum.
#[inline(always)]
pub fn exponentiate(row: &mut [f32]) -> (f32, f32) {
    let max = math::max(row);
    for x in row.iter_mut() {
        *x = math::exp(*x - max);
    }
    (max, math::sum(row))
}

pub fn forward(x: &Tensor, out: &mut Tensor) {
    let columns = x.columns();
    let part = rows_per_part(columns) * columns;
    out.data_mut().par_chunks_mut(part).zip(x.data().par_chunks(part)).for_each(|(out, x)| {
        vectorised(
            #[inline(always)]
            || {
                out.copy_from_slice(x);
                for row in out.chunks_exact_mut(columns) {
                    let (_, sum) = exponentiate(row);
                    row.iter_mut().for_each(|y| *y /= sum);
                }
            },
        );
    });
}

pub fn backward(y: &Tensor, dy: &Tensor, dx: &mut Tensor) {
    let columns = y.columns();
    let rows = y.data().par_chunks(columns).zip(dy.data().par_chunks(columns));
    dx.data_mut().par_chunks_mut(columns).zip(rows).for_each(|(dx, (y, dy))| {
        let mean = math::dot(y, dy);
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = y * (dy - mean);
        }
    });
}
