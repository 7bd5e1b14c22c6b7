//! Functions of single elements, copies between kinds, and sums that give back what was repeated.

use std::ops::Range;

use super::context::{Context, Grid, arguments};
use super::programs::Program::Elementwise;
use super::slice::{Kind, Slice};
use super::suffix;
use super::sum_rows::sum_rows;
use crate::kernels::{Binary, Unary};
use crate::tensor::Tensor;

pub const THREADS: usize = 256;
/// Blocks of a launch whose threads go on to further elements: enough to fill any GPU.
const MOST_BLOCKS: usize = 4096;

/// A grid whose threads take `items` in turn.
pub fn grid(items: usize) -> Grid {
    Grid::line(items.div_ceil(THREADS).min(MOST_BLOCKS), THREADS)
}

/// Runs a kernel that reads one array and writes another, both of rows of `columns`, from element to element.
fn between(
    context: &Context,
    kernel: &str,
    [x, x_stride]: [u64; 2],
    [out, out_stride]: [u64; 2],
    count: usize,
    columns: usize,
) {
    let (columns, x_stride, out_stride) = (columns as i32, x_stride as i32, out_stride as i32);
    context.launch(Elementwise, kernel, grid(count), arguments![x, out, count, columns, x_stride, out_stride]);
}

pub fn copy_rows(context: &Context, x: &Tensor, rows: Range<usize>, out: &mut Tensor, to: usize) {
    let columns = x.columns();
    let source = x.slice();
    let target = out.slice_mut();
    let kernel = format!("copy_{}_{}", suffix(source.kind()), suffix(target.kind()));
    let place = |slice: &Slice, row: usize| {
        let stride = slice.stride(columns);
        [slice.address() + (row * stride * slice.kind().size()) as u64, stride as u64]
    };
    between(context, &kernel, place(source, rows.start), place(target, to), rows.len() * columns, columns);
}

/// The array as elements of a kind with nothing between its rows.
pub fn as_kind(context: &Context, x: &Tensor, kind: Kind) -> Tensor {
    if x.slice().kind() == kind {
        return x.contiguous();
    }
    let mut out = Tensor::of_kind(x.device(), x.shape(), kind);
    copy_rows(context, x, 0..x.rows(), &mut out, 0);
    out
}

pub fn accumulate(context: &Context, x: &Tensor, sum: &mut Tensor) {
    let (columns, count) = (x.columns(), x.len());
    let source = x.slice();
    let target = sum.slice_mut();
    let kernel = format!("accumulate_{}_{}", suffix(source.kind()), suffix(target.kind()));
    let (x, sum) =
        ([source.address(), source.stride(columns) as u64], [target.address(), target.stride(columns) as u64]);
    between(context, &kernel, x, sum, count, columns);
}

pub fn scale(context: &Context, x: &Tensor, factor: f32, out: &mut Tensor) {
    let (x, out, count) = (x.contiguous(), out.slice_mut(), x.len());
    let kernel = format!("scale_{}", suffix(out.kind()));
    context.launch(Elementwise, &kernel, grid(count), arguments![x.slice().address(), factor, out.address(), count]);
}

fn number_of(function: Unary) -> i32 {
    match function {
        Unary::Sigmoid => 0,
        Unary::Gelu => 1,
    }
}

pub fn unary(context: &Context, function: Unary, x: &Tensor, out: &mut Tensor) {
    let (x, out, count) = (x.contiguous(), out.slice_mut(), x.len());
    let kernel = format!("unary_{}", suffix(out.kind()));
    let arguments = arguments![number_of(function), x.slice().address(), out.address(), count];
    context.launch(Elementwise, &kernel, grid(count), arguments);
}

pub fn unary_backward(context: &Context, function: Unary, x: &Tensor, dy: &Tensor, dx: &mut Tensor) {
    let kind = dx.slice().kind();
    let (x, dy, count) = (as_kind(context, x, kind), as_kind(context, dy, kind), x.len());
    let kernel = format!("unary_gradient_{}", suffix(kind));
    let [x, dy, dx] = [x.slice().address(), dy.slice().address(), dx.slice_mut().address()];
    context.launch(Elementwise, &kernel, grid(count), arguments![number_of(function), x, dy, dx, count]);
}

/// How a smaller tensor repeats over the rows and columns of a larger one, by the kernels' numbers.
#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    Not = 0,
    OverRows = 1,
    OverColumns = 2,
    OverBoth = 3,
}

impl Repeat {
    fn of(small: &Tensor, large: &Tensor) -> Repeat {
        if small.shape() == large.shape() {
            Repeat::Not
        } else if small.len() == 1 {
            Repeat::OverBoth
        } else if small.shape().len() == 1 {
            Repeat::OverRows
        } else {
            Repeat::OverColumns
        }
    }
}

pub fn binary(context: &Context, function: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor) {
    let (repeat, kind, count, columns) = (Repeat::of(b, a), out.slice().kind(), a.len(), a.columns() as i32);
    let (a, b) = (as_kind(context, a, kind), as_kind(context, b, kind));
    let function = match function {
        Binary::Add => 0,
        Binary::Mul => 1,
    };
    let [a, b, out] = [a.slice().address(), b.slice().address(), out.slice_mut().address()];
    let arguments = arguments![function, repeat as i32, a, b, out, count, columns];
    context.launch(Elementwise, &format!("binary_{}", suffix(kind)), grid(count), arguments);
}

pub fn reduce(context: &Context, x: &Tensor, out: &mut Tensor) {
    let (rows, columns, repeat) = (x.rows(), x.columns(), Repeat::of(out, x));
    match repeat {
        Repeat::Not => copy_rows(context, x, 0..rows, out, 0),
        Repeat::OverRows => {
            let mut sums = Tensor::empty(x.device(), &[columns]);
            sum_rows(context, x, &mut sums);
            copy_rows(context, &sums, 0..1, out, 0);
        }
        Repeat::OverColumns | Repeat::OverBoth => {
            let kind = out.slice().kind();
            let (x, out) = (as_kind(context, x, kind), out.slice_mut().address());
            let address = x.slice().address();
            if repeat == Repeat::OverBoth {
                let (kernel, grid) = (format!("sum_all_{}", suffix(kind)), Grid::line(1, THREADS));
                return context.launch(Elementwise, &kernel, grid, arguments![address, out, x.len()]);
            }
            let (kernel, grid) = (format!("sum_columns_{}", suffix(kind)), Grid::each(32 * rows, THREADS));
            context.launch(Elementwise, &kernel, grid, arguments![address, out, rows as i32, columns as i32]);
        }
    }
}
