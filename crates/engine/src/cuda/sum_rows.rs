//! Sums over rows: by a kernel, or by whoever has written the rows and has added them up on the way.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::CUstream;

use super::context::{Context, Grid, arguments};
use super::programs::Program::SumRows;
use super::slice::{Kind, Slice};
use super::suffix;
use crate::device::{Device, Memory};
use crate::tensor::Tensor;

/// Threads of a block, at most.
const THREADS: usize = 1024;
/// Rows that one block sums.
const ROWS_PER_SUM: usize = 128;

/// Partial sums over an array's rows, `[parts, columns]` in single precision, from the kernel that wrote them: they are
/// good for the contents of that stamp. A bias's gradient is such a sum, and a pass over the rows is saved.
#[derive(Debug, Default)]
pub struct PartialSums(Mutex<Option<(u64, Tensor)>>);

impl Clone for PartialSums {
    /// A copy of a slice is another slice.
    fn clone(&self) -> Self {
        PartialSums::default()
    }
}

impl PartialSums {
    fn set(&self, stamp: u64, partial: Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, partial));
    }

    fn get(&self, now: u64) -> Option<Tensor> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(stamp, _)| *stamp == now).map(|(_, partial)| partial.clone())
    }
}

/// Keeps with an array the partial sums over its rows as they are now.
pub fn keep(x: &Tensor, partial: Tensor) {
    x.slice().partial_sums().set(x.slice().stamp(), partial);
}

/// Room for `parts` partial sums of arrays of these columns, side by side in rows.
pub fn room(device: &Device, parts: usize, columns: &[usize]) -> Vec<Tensor> {
    let Memory::Cuda(context) = device.memory() else { unreachable!("an array of a GPU") };
    let shapes = columns.iter().map(|&columns| vec![parts, columns]);
    Tensor::of_slices(device, shapes, Slice::side_by_side(context, Kind::F32, parts, columns))
}

/// Partial sums over the rows: those that were kept, or those of a kernel.
pub fn partial_sums(context: &Context, x: &Tensor) -> Tensor {
    x.slice().partial_sums().get(x.slice().stamp()).unwrap_or_else(|| {
        let parts = x.rows().div_ceil(ROWS_PER_SUM).max(1);
        let mut partial = Tensor::empty(x.device(), &[parts, x.columns()]);
        sum_parts(context, context.stream(), x, parts, partial.slice_mut().address());
        partial
    })
}

/// The sum of all rows into `out` `[columns]` in single precision: parts of the rows by one block each, then the parts
/// in their order.
pub fn sum_rows(context: &Context, x: &Tensor, out: &mut Tensor) {
    if x.rows() <= ROWS_PER_SUM {
        return sum_parts(context, context.stream(), x, 1, out.slice_mut().address());
    }
    total(context, context.stream(), &partial_sums(context, x), out.slice_mut().address());
}

/// The sum of partial sums, in that stream.
pub fn total(context: &Context, stream: CUstream, partial: &Tensor, out: u64) {
    sum_parts(context, stream, partial, 1, out);
}

/// The sums of partial sums of several arrays side by side, beside what the main stream does next.
pub fn totals_aside<const K: usize>(context: &Context, partial: Vec<Tensor>, outs: [&mut Tensor; K]) {
    let outs = outs.map(|out| out.slice_mut());
    let addresses = outs.map(Slice::address);
    let sums = partial.clone();
    let work = |stream| {
        sums.iter().zip(addresses).for_each(|(partial, out)| total(context, stream, partial, out));
        Ok(())
    };
    context.keep(context.aside().run(context.stream(), partial, &outs.map(Slice::block), work));
}

/// The sums of `parts` parts of the rows.
fn sum_parts(context: &Context, stream: CUstream, x: &Tensor, parts: usize, out: u64) {
    let (rows, columns, slice) = (x.rows(), x.columns(), x.slice());
    // A warp for every four rows of a part: they are all under way at once.
    let warps = rows.div_ceil(4 * parts).clamp(1, THREADS / 32);
    let grid = Grid { blocks: [columns.div_ceil(32), parts, 1], threads: 32 * warps, shared: 0 };
    let (stride, kernel) = (slice.stride(columns) as i32, format!("sum_rows_{}", suffix(slice.kind())));
    let arguments = arguments![slice.address(), out, rows as i32, columns as i32, stride];
    context.launch_in(stream, SumRows, &kernel, grid, arguments);
}
