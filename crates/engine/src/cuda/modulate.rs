//! The modulation of attention's output by gene fitness (docs/genetic-attention.md, section 2).

use super::context::{Context, Grid, arguments};
use super::elementwise::{as_kind, grid};
use super::programs::Program::Modulate as Kernels;
use super::slice::Kind;
use super::suffix;
use crate::ops::modulate::Modulate;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

const THREADS: usize = 256;

/// What the backward pass has kept of the forward pass.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    /// What was modulated.
    Input(&'a Tensor),
    /// The modulated output.
    Output(&'a Tensor),
}

fn per_token(fitness: &Tensor, sequences: &Sequences) -> bool {
    fitness.rows() != sequences.len()
}

pub fn forward(
    context: &Context,
    x: &Tensor,
    fitness: &Tensor,
    sequences: &Sequences,
    options: &Modulate,
    out: &mut Tensor,
) {
    let (kind, count, columns) = (out.slice().kind(), x.len(), x.columns());
    let x = as_kind(context, x, kind);
    let owners = if per_token(fitness, sequences) { 0 } else { sequences.owners().slice().address() };
    let (d, fitness_columns) = (options.head_dim as i32, fitness.columns() as i32);
    let [from, gamma] = [x.slice().address(), fitness.slice().address()];
    let to = out.slice_mut().address();
    let arguments = arguments![from, gamma, owners, d, fitness_columns, options.scale, to, count, columns as i32];
    context.launch(Kernels, &format!("modulate_{}", suffix(kind)), grid(count), arguments);
}

pub fn backward(
    context: &Context,
    of: Of<'_>,
    fitness: &Tensor,
    sequences: &Sequences,
    options: &Modulate,
    dout: &Tensor,
    [dx, dfitness]: [&mut Tensor; 2],
) {
    let (x, of_output) = match of {
        Of::Input(x) => (x, 0),
        Of::Output(out) => (out, 1),
    };
    let (kind, columns, d) = (dx.slice().kind(), x.columns(), options.head_dim);
    let (x, dout) = (as_kind(context, x, kind), as_kind(context, dout, kind));
    if dfitness.slice().kind() != Kind::F32 {
        *dfitness = Tensor::empty(fitness.device(), fitness.shape());
    }
    let [from, gamma, gradient] = [&x, fitness, &dout].map(|x| x.slice().address());
    let [to, sums] = [dx.slice_mut().address(), dfitness.slice_mut().address()];
    let tokens = i32::from(per_token(fitness, sequences));
    let grid = Grid { blocks: [sequences.len(), fitness.columns() / d, 1], threads: THREADS, shared: 0 };
    context.launch(
        Kernels,
        &format!("modulate_gradient_{}", suffix(kind)),
        grid,
        arguments![
            from,
            of_output,
            gamma,
            sequences.cu_seqlens().slice().address(),
            tokens,
            d as i32,
            fitness.columns() as i32,
            options.scale,
            gradient,
            to,
            sums,
            columns as i32,
        ],
    );
}
