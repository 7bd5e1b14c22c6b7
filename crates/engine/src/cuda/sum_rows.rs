//! Sums over rows: by a kernel, or by whoever has written the rows and has added them up on the way.

use cudarc::driver::sys::CUstream;

use super::context::{Context, Grid, arguments};
use super::partial_sums;
use super::products::Operand;
use super::programs::Program::SumRows;
use super::slice::{Kind, Slice};
use super::suffix;
use crate::device::{Device, Memory};
use crate::tensor::Tensor;

/// Threads of a block, at most.
const THREADS: usize = 1024;
/// Rows that one block sums.
const ROWS_PER_SUM: usize = 128;

/// Room for `parts` partial sums of arrays of these columns, side by side in rows.
pub fn room(device: &Device, parts: usize, columns: &[usize]) -> Vec<Tensor> {
    let Memory::Cuda(context) = device.memory() else { unreachable!("an array of a GPU") };
    let shapes = columns.iter().map(|&columns| vec![parts, columns]);
    Tensor::of_slices(device, shapes, Slice::side_by_side(context, Kind::F32, parts, columns))
}

/// Partial sums over the rows: those that were found when they were written, or those of a kernel.
pub fn partial_sums(context: &Context, x: &Tensor) -> Tensor {
    // Rows of another length are another array's, of which this one is the same memory.
    if let Some(partial) = partial_sums::of(x)
        && partial.columns() == x.columns()
    {
        return partial;
    }
    let parts = x.rows().div_ceil(ROWS_PER_SUM).max(1);
    let mut partial = Tensor::empty(x.device(), &[parts, x.columns()]);
    let to = partial.slice_mut().address();
    sum_parts(context, context.stream(), x.slice().operand(x.columns()), parts, to);
    partial
}

/// The sum of all rows into `out` `[columns]` in single precision: parts of the rows by one block each, then the parts
/// in their order.
pub fn sum_rows(context: &Context, x: &Tensor, out: &mut Tensor) {
    let partial = if x.rows() > ROWS_PER_SUM { partial_sums(context, x) } else { x.clone() };
    Totals::new(&[partial], &[out.slice_mut()]).run(context, context.stream());
}

/// Sums of partial sums into the arrays of their totals, to be made in some stream: what is summed, and where to.
pub struct Totals(Vec<(Operand, u64)>);

impl Totals {
    /// One sum for all where partial sums lie side by side and their totals one after the other.
    pub fn new(partial: &[Tensor], outs: &[&Slice]) -> Self {
        let slices: Vec<(&Slice, usize)> = partial.iter().map(|partial| (partial.slice(), partial.columns())).collect();
        match Slice::joined(&slices).filter(|_| Slice::follow(outs)) {
            Some(joined) => Totals(vec![(joined, outs[0].address())]),
            None => {
                let each = slices.into_iter().zip(outs);
                Totals(each.map(|((slice, columns), out)| (slice.operand(columns), out.address())).collect())
            }
        }
    }

    /// Makes them.
    pub fn run(&self, context: &Context, stream: CUstream) {
        self.0.iter().for_each(|&(partial, out)| sum_parts(context, stream, partial, 1, out));
    }
}

/// Totals that nobody needs soon, beside what the main stream does next.
pub fn totals_aside(context: &Context, partial: Vec<Tensor>, outs: &[&Slice]) {
    let totals = Totals::new(&partial, outs);
    let writes: Vec<_> = outs.iter().map(|out| out.block()).collect();
    let work = |stream| {
        totals.run(context, stream);
        Ok(())
    };
    let reads = partial.iter().map(Tensor::shared_slice).cloned().collect();
    context.keep(context.aside().run(context.stream(), reads, &writes, work));
}

/// The sums of `parts` parts of the rows.
fn sum_parts(context: &Context, stream: CUstream, x: Operand, parts: usize, out: u64) {
    // A warp for every four rows of a part: they are all under way at once.
    let warps = x.rows.div_ceil(4 * parts).clamp(1, THREADS / 32);
    let grid = Grid { blocks: [x.columns.div_ceil(32), parts, 1], threads: 32 * warps, shared: 0 };
    let arguments = arguments![x.address, out, x.rows as i32, x.columns as i32, x.stride as i32];
    context.launch_in(stream, SumRows, &format!("sum_rows_{}", suffix(x.kind)), grid, arguments);
}
