//! Rows of unit length.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::L2Normalize as Kernels;
use super::slice::Kind;
use crate::tensor::Tensor;

const THREADS: usize = 128;

pub fn forward(context: &Context, x: &Tensor, out: &mut Tensor, norms: &mut Tensor) {
    let x = as_kind(context, x, Kind::F32);
    let [to, norms] = [out.slice_mut().address(), norms.slice_mut().address()];
    let arguments = arguments![x.slice().address(), to, norms, x.columns() as i32];
    context.launch(Kernels, "l2_normalize", Grid::line(x.rows(), THREADS), arguments);
}

pub fn backward(context: &Context, y: &Tensor, norms: &Tensor, dy: &Tensor, dx: &mut Tensor) {
    let dy = as_kind(context, dy, Kind::F32);
    let [from, norms, gradient] = [y, norms, &dy].map(|x| x.slice().address());
    let arguments = arguments![from, norms, gradient, dx.slice_mut().address(), y.columns() as i32];
    context.launch(Kernels, "l2_normalize_gradient", Grid::line(y.rows(), THREADS), arguments);
}
