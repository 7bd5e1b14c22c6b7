//! Softmax over rows.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::Softmax;
use super::suffix;
use crate::tensor::Tensor;

const THREADS: usize = 128;

pub fn forward(context: &Context, x: &Tensor, out: &mut Tensor) {
    let kind = out.slice().kind();
    let x = as_kind(context, x, kind);
    let arguments = arguments![x.slice().address(), out.slice_mut().address(), x.columns() as i32];
    context.launch(Softmax, &format!("softmax_{}", suffix(kind)), Grid::line(x.rows(), THREADS), arguments);
}

pub fn backward(context: &Context, y: &Tensor, dy: &Tensor, dx: &mut Tensor) {
    let kind = dx.slice().kind();
    let (y, dy) = (as_kind(context, y, kind), as_kind(context, dy, kind));
    let [from, gradient, to] = [y.slice().address(), dy.slice().address(), dx.slice_mut().address()];
    let (kernel, grid) = (format!("softmax_gradient_{}", suffix(kind)), Grid::line(y.rows(), THREADS));
    context.launch(Softmax, &kernel, grid, arguments![from, gradient, to, y.columns() as i32]);
}
