//! Rows divided by their Euclidean norm.

use rayon::prelude::*;

use super::math;
use crate::tensor::Tensor;

/// Norms are taken to be at least this, as in PyTorch's `normalize`.
const LEAST_NORM: f32 = 1e-12;

pub fn forward(x: &Tensor, out: &mut Tensor, norms: &mut Tensor) {
    let columns = x.columns();
    let rows = x.data().par_chunks(columns).zip(norms.data_mut());
    out.data_mut().par_chunks_mut(columns).zip(rows).for_each(|(out, (x, norm))| {
        *norm = math::dot(x, x).sqrt().max(LEAST_NORM);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x / *norm;
        }
    });
}

/// `dx = (dy − y·(y·dy)) / norm`
pub fn backward(y: &Tensor, norms: &Tensor, dy: &Tensor, dx: &mut Tensor) {
    let columns = y.columns();
    let rows = y.data().par_chunks(columns).zip(dy.data().par_chunks(columns)).zip(norms.data());
    dx.data_mut().par_chunks_mut(columns).zip(rows).for_each(|(dx, ((y, dy), norm))| {
        let along = math::dot(y, dy);
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = (dy - y * along) / norm;
        }
    });
}
