//! Gene fitness (docs/genetic-attention.md, sections 1, 4 and 5).

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::GeneFitness as Kernels;
use super::slice::Kind;
use super::suffix;
use crate::ops::evolve::Ancestry;
use crate::ops::gene_fitness::GeneFitness;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

const THREADS: usize = 128;
/// Groups of threads of a block, at most.
const ROOMS: usize = 16;
/// Warps that share a multiprocessor. Fewer sequences and heads than all have get several each.
const WARPS_AT_ONCE: usize = 64;

/// The ancestry in a kind that has kernels with values of `kind`, the end of those kernels' names, and its address.
fn ancestry(context: &Context, options: &GeneFitness, kind: Kind) -> (Option<Tensor>, String, u64) {
    let ancestry = options.ancestry.as_ref().map(Ancestry::shares).map(|shares| match (kind, shares.slice().kind()) {
        (Kind::Bf16, _) => shares.contiguous(),
        _ => as_kind(context, &shares, Kind::F32),
    });
    let of_ancestry = ancestry.as_ref().map_or(Kind::F32, |ancestry| ancestry.slice().kind());
    let address = ancestry.as_ref().map_or(0, |ancestry| ancestry.slice().address());
    (ancestry, format!("{}_{}", suffix(kind), suffix(of_ancestry)), address)
}

/// A block for each sequence and head, with room for numbers in shared memory.
fn grid(values: &Tensor, sequences: &Sequences, head_dim: usize, room: usize) -> Grid {
    Grid { shared: 4 * room, ..Grid::line(sequences.len() * (values.columns() / head_dim), THREADS) }
}

pub fn forward(
    context: &Context,
    values: &Tensor,
    sequences: &Sequences,
    options: &GeneFitness,
    [fitness, inverse]: [&mut Tensor; 2],
) {
    let (d, slice) = (options.head_dim, values.slice());
    let (_kept, kinds, shares) = ancestry(context, options, slice.kind());
    let [fitness, inverse] = [fitness, inverse].map(|x| x.slice_mut().address());
    let (stride, begins) = (slice.stride(values.columns()) as i32, sequences.cu_seqlens().slice().address());
    let (causal, heads) = (i32::from(options.causal), (values.columns() / d) as i32);
    // Eight values at once need rows that begin on their boundary.
    let wide = stride % 8 == 0 && slice.address().is_multiple_of(8 * slice.kind().size() as u64);
    if matches!(d, 32 | 64) && !options.causal && wide {
        let places = sequences.len() * heads as usize;
        let at_once = context.info().multiprocessors * WARPS_AT_ONCE;
        let warps = if places < at_once { THREADS / 32 } else { 1 };
        let (count, grid) = (sequences.len() as i32, Grid::each(32 * warps * places, THREADS));
        #[rustfmt::skip]
        let arguments = arguments![
            slice.address(), stride, shares, begins, count, d as i32, heads, warps as i32, fitness, inverse
        ];
        return context.launch_yielding(Kernels, &format!("gene_fitness_of_warps_{kinds}"), grid, arguments, fitness);
    }
    let arguments = arguments![slice.address(), stride, shares, begins, d as i32, heads, causal, fitness, inverse];
    let room = (2 + ROOMS) * d;
    context.launch(Kernels, &format!("gene_fitness_{kinds}"), grid(values, sequences, d, room), arguments);
}

pub fn backward(
    context: &Context,
    values: &Tensor,
    sequences: &Sequences,
    options: &GeneFitness,
    [fitness, inverse, dfitness]: [&Tensor; 3],
    dvalues: &mut Tensor,
    add: bool,
) {
    let (d, slice, columns) = (options.head_dim, values.slice(), values.columns());
    if dvalues.slice().kind() != slice.kind() {
        *dvalues = as_kind(context, dvalues, slice.kind());
    }
    let (_kept, kinds, shares) = ancestry(context, options, slice.kind());
    let out = dvalues.slice_mut();
    let dfitness = as_kind(context, dfitness, Kind::F32);
    let [fitness, inverse, dfitness] = [fitness, inverse, &dfitness].map(|x| x.slice().address());
    let begins = sequences.cu_seqlens().slice().address();
    let (stride, dstride) = (slice.stride(columns) as i32, out.stride(columns) as i32);
    let (causal, add) = (i32::from(options.causal), i32::from(add));
    context.launch(
        Kernels,
        &format!("gene_fitness_gradient_{kinds}"),
        grid(values, sequences, d, d),
        arguments![
            slice.address(),
            stride,
            shares,
            begins,
            d as i32,
            (columns / d) as i32,
            causal,
            fitness,
            inverse,
            dfitness,
            out.address(),
            dstride,
            add,
        ],
    );
}
