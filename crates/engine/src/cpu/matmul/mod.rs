//! Matrix products of packed operands.
//!
//! Both operands are packed into panels in the order in which the machine's [`Unit`] reads them, and converted to its
//! precision on the way. The product is computed in groups of panels whose sums stay in the cache; a finished group is
//! handed to the caller, who adds a bias or multiplies by a derivative before it goes to memory. An element's sum runs
//! over the depth in one fixed order, so it is the same bits whatever rows stand beside it, on any number of threads.

#[cfg(target_arch = "x86_64")]
mod amx;
pub(super) mod bf16;
#[cfg(any(test, target_arch = "x86_64"))]
pub(super) mod bf16x3;
mod by_rows;
mod pack;
pub(super) mod single_precision;
mod source;
mod unit;
mod units;

pub use by_rows::{Turned, multiply_gradients, multiply_rows, multiply_twice, multiply_whole_rows};
pub use pack::{Packed, PanelRows, Panels, left_here, right_here, scratch_len, with_panels};
pub use source::{Activated, Source, View};
pub use unit::{Depth, Operands, TILE, Unit};
pub use units::UnitName;
pub(super) use units::with_unit;

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::math;
use super::parallel::{Block, SharedMatrix};
use super::scratch::with_scratch;
use crate::kernels::Matrix;
use crate::precision::Precision;
use crate::tensor::Tensor;

/// Rows and columns of a product that are computed together, where nothing else is said of rows: their sums (110 kB) and the
/// rows' operand stay in the second-level cache, a panel of the columns' operand in the first.
const GROUP_ROWS: usize = 192;
pub const GROUP_COLUMNS: usize = 128;
/// By how much rows of sums are further apart than they are long: at a power of 2 the rows of a block would lie in few sets
/// of the first-level cache, where they push each other and the panel out.
pub const PADDING: usize = 16;
/// A finished part goes along many rows: so far ahead the cache is told which come next.
pub const ROWS_AHEAD: usize = 6;
/// Bytes of a panel of the columns' operand that are gone through at once, at most.
const PANEL_BYTES: usize = 24 * 1024;
/// Multiplications below which threads cost more than they bring.
const WORTH_THREADS: usize = 64 * 64 * 64;

/// A finished part of a product.
pub struct Finished<'a> {
    /// Where it lies.
    pub rows: Range<usize>,
    /// Where it lies.
    pub columns: Range<usize>,
    sums: &'a [f32],
    apart: usize,
}

impl Finished<'_> {
    /// The sums of a row of the product.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.sums[(row - self.rows.start) * self.apart..][..self.columns.len()]
    }
}

/// `left · right`, part by part, on the current threads; what `store` gives of each part, in a fixed order. `store` is
/// compiled for the machine's vector instructions if it is `#[inline(always)]`.
pub fn multiply<U: Unit, R: Send>(
    left: &Packed<U>,
    right: &Packed<U>,
    store: impl Fn(Finished<'_>) -> R + Sync,
) -> Vec<R> {
    let (left, right) = (left.panels(), right.panels());
    let (groups, tasks) = groups::<U>(left, right);
    #[expect(clippy::redundant_closure, reason = "a closure can be inlined always, a reference to one cannot")]
    let work = |task: usize| {
        group(
            left,
            right,
            groups(task),
            #[inline(always)]
            |part| store(part),
        )
    };
    if left.extent * right.extent * left.steps * U::STEP < WORTH_THREADS {
        (0..tasks).map(work).collect()
    } else {
        (0..tasks).into_par_iter().map(work).collect()
    }
}

/// [`multiply`] on this thread, of panels in scratch memory.
pub fn multiply_here<U: Unit>(left: Panels<'_, U>, right: Panels<'_, U>, mut store: impl FnMut(Finished<'_>)) {
    let (groups, tasks) = groups::<U>(left, right);
    for task in 0..tasks {
        group(
            left,
            right,
            groups(task),
            #[inline(always)]
            |part| {
                store(part);
            },
        );
    }
}

/// Products of single panels, on the thread that began them.
pub struct Products<U: Unit>(PhantomData<*const U>);

impl<U: Unit> Products<U> {
    /// Makes the thread ready, until this is dropped.
    ///
    /// # Safety
    /// Until then no other product may be made on this thread: it would end this one's readiness.
    pub unsafe fn begin() -> Self {
        U::begin();
        Products(PhantomData)
    }

    /// The product of one panel of the left operand, into rows `stride` apart.
    pub fn of_panel(&self, left: Panels<'_, U>, panel: usize, right: Panels<'_, U>, out: &mut [f32], stride: usize) {
        let columns = right.count(U::COLUMNS);
        assert!(left.steps == right.steps && columns * U::COLUMNS <= stride && U::ROWS * stride <= out.len());
        let rows = left.part(U::ROWS, panel, 0..left.steps);
        for column in 0..columns {
            let right = right.part(U::COLUMNS, column, 0..right.steps).as_ptr();
            let (steps, rows) = (left.steps, rows.as_ptr());
            let share = steps * U::COLUMNS * U::STEP;
            let next = right.wrapping_add(share);
            let wanted = left.rows_of(panel);
            let operands = Operands { steps, rows: wanted, left: rows, left_depth: left.depth, right, next, share };
            let block = out[column * U::COLUMNS..].as_mut_ptr();
            // SAFETY: both parts hold `steps` steps; the block ends inside `out`; this thread began, and ended nothing.
            unsafe { U::multiply(operands, block, stride, false) };
        }
    }
}

impl<U: Unit> Drop for Products<U> {
    fn drop(&mut self) {
        U::end();
    }
}

/// The panels of each group by its number, and how many groups there are. Groups of the same rows follow each other.
fn groups<U: Unit>(left: Panels<'_, U>, right: Panels<'_, U>) -> (impl Fn(usize) -> [Range<usize>; 2] + Sync, usize) {
    let (rows, columns) = (left.count(U::ROWS), right.count(U::COLUMNS));
    let (row_group, column_group) = (GROUP_ROWS / U::ROWS, GROUP_COLUMNS / U::COLUMNS);
    let across = columns.div_ceil(column_group).max(1);
    let of = move |task: usize| {
        let (row, column) = (task / across * row_group, task % across * column_group);
        [row..rows.min(row + row_group), column..columns.min(column + column_group)]
    };
    (of, rows.div_ceil(row_group) * columns.div_ceil(column_group))
}

/// The product of some panels, handed to `store`.
fn group<U: Unit, R>(
    left: Panels<'_, U>,
    right: Panels<'_, U>,
    [rows, columns]: [Range<usize>; 2],
    store: impl FnOnce(Finished<'_>) -> R,
) -> R {
    let apart = columns.len() * U::COLUMNS + PADDING;
    with_scratch(rows.len() * U::ROWS * apart, |sums| {
        add_up(left, right, [rows.clone(), columns.clone()], &mut Block::of(sums, apart));
        let finished = Finished {
            rows: rows.start * U::ROWS..left.extent.min(rows.end * U::ROWS),
            columns: columns.start * U::COLUMNS..right.extent.min(columns.end * U::COLUMNS),
            sums,
            apart,
        };
        U::vectorised(
            #[inline(always)]
            || store(finished),
        )
    })
}

/// The sums of some panels, into a block with room for whole ones. Those of rows that the last panel only has room for may be
/// anything.
fn add_up<U: Unit>(
    left: Panels<'_, U>,
    right: Panels<'_, U>,
    [rows, columns]: [Range<usize>; 2],
    sums: &mut Block<'_>,
) {
    assert!(rows.len() * U::ROWS <= sums.rows() && columns.len() * U::COLUMNS <= sums.columns(), "sums have room");
    let most = (PANEL_BYTES / (U::COLUMNS * U::STEP * size_of::<U::Element>())).max(1);
    // Parts of one length: a short one costs as much time for its sums. Of no steps the sums are 0.
    let parts = left.steps.div_ceil(most).max(1);
    let at_once = left.steps.div_ceil(parts);
    let left_depth = left.depth;
    U::begin();
    for begin in (0..parts).map(|part| part * at_once) {
        let steps = begin..left.steps.min(begin + at_once);
        let len = steps.len() * U::COLUMNS * U::STEP;
        for column in columns.clone() {
            let part = |column: usize| right.part(U::COLUMNS, column, steps.clone()).as_ptr();
            // The next panel; after the last of them the first one's steps that follow.
            let after = if column + 1 < columns.end { part(column + 1) } else { part(columns.start).wrapping_add(len) };
            let right = part(column);
            for row in rows.clone() {
                let (wanted, left) = (left.rows_of(row), left.part(U::ROWS, row, steps.clone()).as_ptr());
                let next = after.wrapping_add((row - rows.start) * len / rows.len());
                let share = len.div_ceil(rows.len());
                let operands = Operands { steps: steps.len(), rows: wanted, left, left_depth, right, next, share };
                let place = (row - rows.start) * U::ROWS * sums.stride() + (column - columns.start) * U::COLUMNS;
                // SAFETY: both parts hold `steps` steps; the block has room, as asserted; `begin` was called.
                unsafe { U::multiply(operands, sums.as_mut_ptr().add(place), sums.stride(), begin > 0) };
            }
        }
    }
    U::end();
}

/// `out = a · b` in single precision.
pub fn matmul(a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor) {
    product(UnitName::best(Precision::F32), a, b, out);
}

fn product(unit: UnitName, a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor) {
    let (arena, columns) = (out.device().arena().clone(), out.columns());
    let depth = |matrix: &Matrix<'_>, plain| if matrix.transposed { opposite(plain) } else { plain };
    let out = SharedMatrix::new(out.data_mut(), columns);
    with_unit!(unit, U => {
        let left = Packed::<U>::left(&arena, &[View::of(a.tensor)], depth(&a, Depth::Columns));
        let right = Packed::<U>::right(&arena, &[View::of(b.tensor)], depth(&b, Depth::Rows));
        multiply(&left, &right, store_plain(&out));
    });
}

/// Stores a product as it is.
pub fn store_plain<'a>(out: &'a SharedMatrix<'_>) -> impl Fn(Finished<'_>) + Sync + 'a {
    #[inline(always)]
    |part: Finished<'_>| {
        // SAFETY: parts of one product are disjoint.
        let mut block = unsafe { out.block(part.rows.clone(), part.columns.clone()) };
        for (row, place) in part.rows.clone().enumerate() {
            block.prefetch(row + ROWS_AHEAD);
            block.row(row).copy_from_slice(part.row(place));
        }
    }
}

/// The same past the cache, of what is not read soon; gives the sum of its squares.
pub fn store_past<'a>(out: &'a SharedMatrix<'_>) -> impl Fn(Finished<'_>) -> f64 + Sync + 'a {
    #[inline(always)]
    |part: Finished<'_>| {
        // SAFETY: parts of one product are disjoint.
        let mut block = unsafe { out.block(part.rows.clone(), part.columns.clone()) };
        let mut squares = 0.0;
        block.write_past(
            #[inline(always)]
            |row| {
                let sums = part.row(part.rows.start + row);
                squares += f64::from(math::dot(sums, sums));
                sums
            },
        );
        squares
    }
}

fn opposite(depth: Depth) -> Depth {
    match depth {
        Depth::Rows => Depth::Columns,
        Depth::Columns => Depth::Rows,
    }
}

#[cfg(test)]
mod tests;
