//! Linear maps: what cuBLASLt is given, and what it leaves to do.

use std::sync::Arc;

use super::arena::Block;
use super::context::{Context, Grid, arguments};
use super::elementwise::{accumulate, as_kind, grid};
use super::products::{Epilogue, Operand, multiply};
use super::programs::Program::Linear;
use super::slice::{Kind, Slice};
use super::sum_rows::Totals;
use super::weights::Weights;
use super::{partial_sums, suffix, sum_rows};
use crate::kernels::{Activation, Affine, LinearGradients};
use crate::tensor::Tensor;

/// Threads of a block of the gradient through GELU.
const GELU_THREADS: usize = 128;
/// So many of its blocks share a multiprocessor. All are under way at once, so that there is no second, shorter, round.
const GELU_BLOCKS: usize = 16;
/// Rows of a block at least, so that its sums are few beside them.
const GELU_ROWS: usize = 16;

/// What products read of the input of linear maps.
fn activated(context: &Context, x: &Tensor, activation: Activation) -> Tensor {
    match activation {
        Activation::Identity => x.contiguous(),
        Activation::Gelu => {
            let (x, mut out) = (x.contiguous(), x.empty_like());
            let (count, to) = (x.len(), out.slice_mut().address());
            let kernel = format!("gelu_{}", suffix(x.slice().kind()));
            context.launch(Linear, &kernel, grid(count.div_ceil(4)), arguments![x.slice().address(), to, count]);
            out
        }
    }
}

pub(super) fn operand(x: &Tensor) -> Operand {
    x.slice().operand(x.columns())
}

fn transposed(operand: Operand) -> Operand {
    Operand { transposed: !operand.transposed, ..operand }
}

/// Ranges of parts whose matrices lie side by side: all of them, or each alone; and the matrix that each range makes up.
fn groups(parts: &[&Tensor]) -> Vec<(std::ops::Range<usize>, Operand)> {
    let slices: Vec<(&Slice, usize)> = parts.iter().map(|part| (part.slice(), part.columns())).collect();
    match Slice::joined(&slices) {
        Some(joined) => vec![(0..parts.len(), joined)],
        None => parts.iter().enumerate().map(|(part, x)| (part..part + 1, operand(x))).collect(),
    }
}

pub fn forward(
    context: &Context,
    weights: &Weights,
    x: &Tensor,
    activation: Activation,
    parts: &[Affine<'_>],
    outs: &mut [Tensor],
) {
    let input = activated(context, x, activation);
    let kind = input.slice().kind();
    outs.iter_mut().for_each(|out| {
        out.slice_mut();
    });
    let outs: Vec<&Tensor> = outs.iter().collect();
    for (range, out) in groups(&outs) {
        let parts = &parts[range];
        let matrices: Vec<&Tensor> = parts.iter().map(|part| part.weight).collect();
        let weight = weights.joined(context, &matrices, kind);
        let biases: Vec<Tensor> = biases(parts);
        let biases: Vec<&Tensor> = biases.iter().collect();
        let bias = (!biases.is_empty()).then(|| weights.joined(context, &biases, out.kind));
        let epilogue = bias.as_ref().map_or(Epilogue::None, |bias| Epilogue::Bias(bias.address()));
        context.keep(multiply(
            context,
            context.stream(),
            operand(&input),
            transposed(weight.operand(input.columns())),
            out,
            false,
            epilogue,
        ));
    }
}

/// The parts' biases, zeros where only some have one; empty where none has.
fn biases(parts: &[Affine<'_>]) -> Vec<Tensor> {
    if parts.iter().all(|part| part.bias.is_none()) {
        return Vec::new();
    }
    let of = |part: &Affine<'_>| match part.bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(part.weight.device(), &[part.weight.rows()]),
    };
    parts.iter().map(of).collect()
}

pub fn backward(
    context: &Context,
    weights: &Weights,
    mut x: Tensor,
    activation: Activation,
    matrices: &[&Tensor],
    douts: &[&Tensor],
    gradients: LinearGradients<'_>,
) {
    let LinearGradients { input: dx, add, weights: mut dweights, mut biases } = gradients;
    let kind = x.slice().kind();
    let of_kind: Vec<Tensor> = douts.iter().map(|dout| unlike(context, dout, kind)).collect();
    let douts: Vec<&Tensor> = of_kind.iter().collect();
    let groups = groups(&douts);
    // Of `x`, which becomes GELU's value with its gradient.
    let mut to_take = activation;
    if let Some(dx) = dx {
        // What is to be added to must not go through GELU's slope again.
        let direct = (activation == Activation::Identity || !add) && dx.slice().kind() == kind;
        let mut room = (!direct).then(|| Tensor::of_kind(x.device(), x.shape(), kind));
        let target = match &mut room {
            Some(room) => room,
            None => &mut *dx,
        };
        target.slice_mut();
        for (index, (range, dout)) in groups.iter().enumerate() {
            let weight = weights.joined(context, &matrices[range.clone()], kind);
            let adds = index > 0 || direct && add;
            context.keep(multiply(
                context,
                context.stream(),
                *dout,
                weight.operand(x.columns()),
                operand(target),
                adds,
                Epilogue::None,
            ));
        }
        if activation == Activation::Gelu {
            x = through_gelu(context, x, target);
            to_take = Activation::Identity;
        }
        match room {
            Some(room) if add => accumulate(context, &room, dx),
            Some(room) => *dx = room,
            None => {}
        }
    }
    if dweights.iter().all(Option::is_none) && biases.iter().all(Option::is_none) {
        return;
    }
    let input = activated(context, &x, to_take);
    for (range, dout) in &groups {
        let parts: Vec<&Tensor> = douts[range.clone()].to_vec();
        of_parameters(context, &input, *dout, &parts, &mut dweights[range.clone()], &mut biases[range.clone()]);
    }
}

/// The array in that kind, left in its place beside others where it has it.
pub(super) fn unlike(context: &Context, x: &Tensor, kind: Kind) -> Tensor {
    if x.slice().kind() == kind { x.clone() } else { as_kind(context, x, kind) }
}

/// Turns the gradient in `gelu(x)` into that in `x`, and gives `gelu(x)`, in the memory of `x` if nobody else has it.
fn through_gelu(context: &Context, x: Tensor, gradient: &mut Tensor) -> Tensor {
    let (rows, columns, kind) = (x.rows(), x.columns(), x.slice().kind());
    let strips = columns.div_ceil(4 * GELU_THREADS);
    let at_once = context.info().multiprocessors * GELU_BLOCKS;
    let rows_of_block = (rows * strips).div_ceil(at_once).max(GELU_ROWS);
    let parts = rows.div_ceil(rows_of_block);
    let mut partial = Tensor::empty(x.device(), &[parts, columns]);
    let x = x.into_contiguous();
    let from = x.slice().address();
    let mut out = x.reused();
    let (in_place, to) = (gradient.slice_mut().address(), out.slice_mut().address());
    let kernel = format!("gelu_gradient_{}", suffix(kind));
    let grid = Grid { blocks: [strips, parts, 1], threads: GELU_THREADS, shared: 0 };
    let sums = partial.slice_mut().address();
    let arguments = arguments![from, in_place, to, sums, rows as i32, columns as i32, rows_of_block as i32];
    context.launch(Linear, &kernel, grid, arguments);
    partial_sums::keep(gradient, partial);
    out
}

/// Gradients of weights and biases from the input and the gradients of the outputs, which lie side by side in `dout`.
fn of_parameters<'a>(
    context: &Context,
    input: &Tensor,
    dout: Operand,
    parts: &[&Tensor],
    dweights: &mut [Option<&'a mut Tensor>],
    biases: &mut [Option<&'a mut Tensor>],
) {
    dweights.iter_mut().chain(biases.iter_mut()).flatten().for_each(|gradient| {
        gradient.slice_mut();
    });
    let of_weights: Option<Vec<&Slice>> =
        dweights.iter().map(|gradient| gradient.as_ref().map(|gradient| gradient.slice())).collect();
    let Some(of_weights) = of_weights.filter(|slices| Slice::follow(slices)) else {
        return of_each(context, input, parts, dweights, biases);
    };
    let of_biases = || parts.iter().zip(&*biases).filter_map(|(part, bias)| Some((part, bias.as_ref()?.slice())));
    let sums: Vec<Tensor> = of_biases().map(|(part, _)| sum_rows::partial_sums(context, part)).collect();
    let address = of_weights[0].address();
    let (rows, columns) = (dout.columns, input.columns());
    let out = Operand { address, rows, columns, stride: columns, kind: Kind::F32, transposed: false };
    let totals = Totals::new(&sums, &of_biases().map(|(_, bias)| bias).collect::<Vec<_>>());
    let work = |stream| {
        multiply(context, stream, transposed(dout), operand(input), out, false, Epilogue::None)?;
        totals.run(context, stream);
        Ok(())
    };
    let reads = std::iter::once(input).chain(parts.iter().copied()).chain(&sums).map(Tensor::shared_slice);
    let writes: Vec<&Arc<Block>> =
        std::iter::once(of_weights[0]).chain(of_biases().map(|(_, bias)| bias)).map(Slice::block).collect();
    context.keep(context.aside().run(context.stream(), reads.cloned().collect(), &writes, work));
}

/// The same where the gradients of the weights do not lie together, or not all are wanted.
fn of_each<'a>(
    context: &Context,
    input: &Tensor,
    parts: &[&Tensor],
    dweights: &mut [Option<&'a mut Tensor>],
    biases: &mut [Option<&'a mut Tensor>],
) {
    for ((part, dweight), dbias) in parts.iter().zip(dweights).zip(biases) {
        if let Some(dweight) = dweight {
            let (left, right) = (transposed(operand(part)), operand(input));
            context.keep(multiply(context, context.stream(), left, right, operand(dweight), false, Epilogue::None));
        }
        if let Some(dbias) = dbias {
            sum_rows::sum_rows(context, part, dbias);
        }
    }
}
