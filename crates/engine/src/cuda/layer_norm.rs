//! Layer norm over rows, alone and of a residual sum.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program;
use super::{DropoutWords, owners_begins_and_ids, partial_sums, suffix, sum_rows};
use crate::ops::residual_norm::ResidualDropout;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

const WARPS: usize = 8;
const GRADIENT_WARPS: usize = 4;

/// Blocks of the backward pass that share a multiprocessor; all are under way at once, and each has its part of the sums
/// over rows. What a row takes of registers says how many.
fn blocks_at_once(columns: usize) -> usize {
    if columns == 384 { 5 } else { 3 }
}

/// Where dropout's draws come from, as the kernels take it.
fn draws(dropout: Option<(&Sequences, ResidualDropout)>) -> ([u64; 3], DropoutWords) {
    let words = DropoutWords::new(dropout.map(|(_, ResidualDropout { probability, site })| (probability, site)));
    (dropout.map_or([0; 3], |(sequences, _)| owners_begins_and_ids(sequences)), words)
}

pub fn forward(context: &Context, x: &Tensor, affine: [&Tensor; 2], epsilon: f32, [y, statistics]: [&mut Tensor; 2]) {
    norm(context, x, None, None, affine, epsilon, [y, statistics]);
}

pub fn residual_forward(
    context: &Context,
    [x, residual]: [&Tensor; 2],
    dropout: Option<(&Sequences, ResidualDropout)>,
    affine: [&Tensor; 2],
    epsilon: f32,
    y: &mut Tensor,
    saved: Option<[&mut Tensor; 2]>,
) {
    let mut room;
    let [sum, statistics] = match saved {
        Some(saved) => saved,
        None => {
            room = [y.empty_like(), Tensor::empty(y.device(), &[y.rows(), 2])];
            room.each_mut()
        }
    };
    norm(context, x, Some((residual, sum)), dropout, affine, epsilon, [y, statistics]);
}

fn norm(
    context: &Context,
    x: &Tensor,
    residual: Option<(&Tensor, &mut Tensor)>,
    dropout: Option<(&Sequences, ResidualDropout)>,
    [gain, bias]: [&Tensor; 2],
    epsilon: f32,
    [y, statistics]: [&mut Tensor; 2],
) {
    let (rows, columns, kind) = (x.rows(), x.columns(), y.slice().kind());
    let x = as_kind(context, x, kind);
    let residual = residual.map(|(residual, sum)| (as_kind(context, residual, kind), sum.slice_mut().address()));
    let (residual, sum) = residual.as_ref().map_or((0, 0), |(residual, sum)| (residual.slice().address(), *sum));
    let [gain, bias] = [gain, bias].map(|x| x.slice().address());
    let [y, statistics] = [y, statistics].map(|x| x.slice_mut().address());
    let x = x.slice().address();
    context.launch(
        Program::LayerNorm,
        &format!("norm_{}", suffix(kind)),
        Grid::line(rows.div_ceil(WARPS), 32 * WARPS),
        arguments![x, residual, draws(dropout), gain, bias, epsilon, sum, y, statistics, rows as i32, columns as i32,],
    );
}

/// Gradients of either: in the sum, the gain and the bias, and through the dropout in `masked`.
pub fn backward(
    context: &Context,
    [x, gain, statistics]: [&Tensor; 3],
    dy: &Tensor,
    dropout: Option<(&Sequences, ResidualDropout)>,
    [dx, dgain, dbias]: [&mut Tensor; 3],
    masked: Option<&mut Tensor>,
) {
    let (rows, columns, kind) = (x.rows(), x.columns(), dx.slice().kind());
    let (x, dy) = (as_kind(context, x, kind), as_kind(context, dy, kind));
    let most = context.info().multiprocessors * blocks_at_once(columns);
    let blocks = rows.div_ceil(GRADIENT_WARPS).clamp(1, most);
    let width = if matches!(columns, 384 | 768) { columns.to_string() } else { "any".to_owned() };
    let of_parameters = sum_rows::room(x.device(), blocks, &[columns; 2]);
    let of_last = Tensor::empty(x.device(), &[blocks, columns]);
    let [from, gain, statistics, gradient] = [&x, gain, statistics, &dy].map(|x| x.slice().address());
    let (to, sums, sums_of_last) =
        (dx.slice_mut().address(), of_parameters[0].slice().address(), of_last.slice().address());
    let last: &Tensor = masked.map_or(dx, |masked| {
        masked.slice_mut();
        masked
    });
    let masked = if last.slice().address() == to { 0 } else { last.slice().address() };
    context.launch(
        Program::LayerNormGradient,
        &format!("norm_gradient_{width}_{}", suffix(kind)),
        Grid::line(blocks, 32 * GRADIENT_WARPS),
        arguments![
            from,
            gain,
            statistics,
            gradient,
            draws(dropout),
            to,
            masked,
            sums,
            sums_of_last,
            rows as i32,
            columns as i32,
        ],
    );
    partial_sums::keep(last, of_last);
    sum_rows::totals_aside(context, of_parameters, &[dgain.slice_mut(), dbias.slice_mut()]);
}
