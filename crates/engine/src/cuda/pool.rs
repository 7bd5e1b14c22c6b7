//! One vector per sequence.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::Pool;
use super::slice::Kind;
use super::suffix;
use crate::ops::pool::Pooling;
use crate::sequences::Sequences;
use crate::tensor::{Ids, Tensor};

const THREADS: usize = 128;

fn number_of(pooling: Pooling) -> i32 {
    match pooling {
        Pooling::Mean => 0,
        Pooling::Cls => 1,
        Pooling::Max => 2,
    }
}

pub fn forward(
    context: &Context,
    x: &Tensor,
    sequences: &Sequences,
    pooling: Pooling,
    out: &mut Tensor,
    argmax: &mut Ids,
) {
    let (x, columns) = (x.contiguous(), x.columns());
    let [from, begins] = [x.slice().address(), sequences.cu_seqlens().slice().address()];
    let [to, places] = [out.slice_mut().address(), argmax.slice_mut().address()];
    let grid = Grid { blocks: [columns.div_ceil(THREADS), sequences.len(), 1], threads: THREADS, shared: 0 };
    let arguments = arguments![number_of(pooling), from, begins, to, places, columns as i32];
    context.launch(Pool, &format!("pool_{}", suffix(x.slice().kind())), grid, arguments);
}

pub fn backward(
    context: &Context,
    dout: &Tensor,
    sequences: &Sequences,
    pooling: Pooling,
    argmax: &Ids,
    dx: &mut Tensor,
) {
    let (dout, columns) = (as_kind(context, dout, Kind::F32), dout.columns() as i32);
    let [begins, owners] = [sequences.cu_seqlens(), sequences.owners()].map(|ids| ids.slice().address());
    let [from, places, to] = [dout.slice().address(), argmax.slice().address(), dx.slice_mut().address()];
    let arguments = arguments![number_of(pooling), from, begins, owners, places, to, columns];
    let kernel = format!("pool_gradient_{}", suffix(dx.slice().kind()));
    context.launch(Pool, &kernel, Grid::line(sequences.tokens(), THREADS), arguments);
}
