//! RMS norm over rows.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::RmsNorm;
use super::{suffix, sum_rows};
use crate::tensor::Tensor;

const WARPS: usize = 8;

/// Rows that a block takes at once: a row's lanes have four columns each.
fn rows_at_once(columns: usize) -> usize {
    WARPS * 32 / columns.div_ceil(4).next_power_of_two().min(32)
}

/// Blocks of the backward pass, each with its part of the gain's gradient.
const BLOCKS: usize = 528;

pub fn forward(context: &Context, x: &Tensor, gain: &Tensor, epsilon: f32, [y, inverse_rms]: [&mut Tensor; 2]) {
    let (rows, columns, kind) = (x.rows(), x.columns(), y.slice().kind());
    let x = as_kind(context, x, kind);
    let [from, gain] = [x.slice().address(), gain.slice().address()];
    let [to, inverse] = [y.slice_mut().address(), inverse_rms.slice_mut().address()];
    let grid = Grid::line(rows.div_ceil(rows_at_once(columns)), 32 * WARPS);
    let arguments = arguments![from, gain, epsilon, to, inverse, rows as i32, columns as i32];
    context.launch(RmsNorm, &format!("rms_norm_{}", suffix(kind)), grid, arguments);
}

pub fn backward(
    context: &Context,
    x: &Tensor,
    gain: &Tensor,
    inverse_rms: &Tensor,
    dy: &Tensor,
    [dx, dgain]: [&mut Tensor; 2],
) {
    let (rows, columns, kind) = (x.rows(), x.columns(), dx.slice().kind());
    let (x, dy) = (as_kind(context, x, kind), as_kind(context, dy, kind));
    let at_once = rows_at_once(columns);
    let blocks = rows.div_ceil(at_once).clamp(1, BLOCKS);
    let mut partial = Tensor::empty(x.device(), &[blocks, columns]);
    let [from, gain, inverse] = [x.slice().address(), gain.slice().address(), inverse_rms.slice().address()];
    let [gradient, to] = [dy.slice().address(), dx.slice_mut().address()];
    let sums = partial.slice_mut().address();
    let arguments = arguments![from, gain, inverse, gradient, to, sums, rows as i32, columns as i32];
    let grid = Grid { shared: 4 * at_once * columns, ..Grid::line(blocks, 32 * WARPS) };
    context.launch(RmsNorm, &format!("rms_norm_gradient_{}", suffix(kind)), grid, arguments);
    sum_rows::totals_aside(context, vec![partial], &[dgain.slice_mut()]);
}
