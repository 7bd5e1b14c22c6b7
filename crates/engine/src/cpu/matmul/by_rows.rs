//! Products whose left operand is packed some rows at a time, by the thread that multiplies them, so that its panels
//! never leave the cache. Each is one of linear maps, forward or backward.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::pack::{Cells, Layout, Packed, Panels, fill_both, left_here, scratch_len, with_panels};
use super::source::{Activated, Source, View};
use super::unit::{Depth, Unit};
use super::{Finished, GROUP_COLUMNS, GROUP_ROWS, PADDING, WORTH_THREADS, add_up, group};
use crate::arena::Arena;
use crate::cpu::parallel::SharedMatrix;
use crate::cpu::rows;
use crate::cpu::scratch::with_scratch;
use crate::precision::Precision;

/// What the gradients of linear maps leave besides the product that they take part in.
pub struct Turned<U: Unit> {
    /// Each transposed, as the left operand of the weight's gradient.
    pub transposed: Vec<Packed<U>>,
    /// Each one's sums by column, part by part of its rows.
    pub sums: Vec<Vec<Vec<f32>>>,
}

/// `source · right` for each of the right operands; `store` is told which.
pub fn multiply_rows<U: Unit>(
    source: &Activated<'_>,
    rights: &[Panels<'_, U>],
    store: impl Fn(usize, Finished<'_>) + Sync,
) {
    let [rows, columns] = source.x.shape();
    by_rows(rows, rows_at_once::<U>(rows, columns), |rows| {
        with_panels::<U, _, 1, 0>([scratch_len::<U>(rows.len(), columns)], [], |[data], []| {
            multiply_group(
                left_here::<U>(&source.rows(&rows), Depth::Columns, data),
                rows.start,
                rights,
                #[inline(always)]
                |index, part| {
                    store(index, part);
                },
            );
        });
    });
}

/// `source · right`, handed to `store` by whole rows.
#[expect(clippy::redundant_closure, reason = "a closure can be inlined always, a reference to one cannot")]
pub fn multiply_whole_rows<U: Unit>(source: &Activated<'_>, right: Panels<'_, U>, store: impl Fn(Finished<'_>) + Sync) {
    let [rows, columns] = source.x.shape();
    by_rows(rows, whole_rows_at_once::<U>(rows, columns, right), |rows| {
        with_panels::<U, _, 1, 0>([scratch_len::<U>(rows.len(), columns)], [], |[data], []| {
            let left = left_here::<U>(&source.rows(&rows), Depth::Columns, data);
            multiply_whole_group(
                left,
                rows.start,
                right,
                #[inline(always)]
                |part| store(part),
            );
        });
    });
}

/// The two maps of a feed-forward block, `gelu(source · inner + bias) · outer`, the outer as deep as the inner is wide. What
/// is between them goes from the sums of one product into the panels of the other, some rows at a time. Handed to `store` by
/// whole rows.
#[expect(clippy::redundant_closure, reason = "a closure can be inlined always, a reference to one cannot")]
pub fn multiply_twice<U: Unit>(
    source: &View<'_>,
    (inner, bias): (Panels<'_, U>, Option<&[f32]>),
    outer: Panels<'_, U>,
    store: impl Fn(Finished<'_>) + Sync,
) {
    const { assert!(GROUP_COLUMNS.is_multiple_of(U::STEP), "a part fills whole steps") };
    let [rows, columns] = source.shape();
    let width = inner.extent;
    let steps = width.div_ceil(U::STEP);
    assert!(steps == outer.steps);
    by_rows(rows, whole_rows_at_once::<U>(rows, columns.max(width), outer), |rows| {
        let lens = [columns, width].map(|depth| scratch_len::<U>(rows.len(), depth));
        with_panels::<U, _, 2, 0>(lens, [], |[data, between], []| {
            let left = left_here::<U>(&source.part(&rows, &(0..columns)), Depth::Columns, data);
            let cells = Cells::<U>::new(between, U::ROWS, steps, 0);
            multiply_group(
                left,
                0,
                &[inner],
                #[inline(always)]
                |_, part| {
                    let (begin, len) = (part.columns.start, part.columns.len());
                    let bias = bias.map(|bias| &bias[part.columns.clone()]);
                    let mut numbers = [0.0; GROUP_COLUMNS];
                    for row in part.rows.clone() {
                        rows::gelu(part.row(row), bias, U::PRECISION, &mut numbers[..len]);
                        // SAFETY: there is room for all columns. A part begins at a multiple of `GROUP_COLUMNS`, so its steps
                        // are its own.
                        unsafe { cells.write(row, begin, &numbers[..len.next_multiple_of(U::STEP)]) };
                    }
                },
            );
            let left = Panels { data: between, steps, extent: rows.len(), depth: Depth::Columns };
            multiply_whole_group(
                left,
                rows.start,
                outer,
                #[inline(always)]
                |part| store(part),
            );
        });
    });
}

/// The product of gradients, which follow each other in depth, with `right`, if there is one; and from the same reading
/// what else a backward pass takes of them.
pub fn multiply_gradients<U: Unit>(
    arena: &Arc<Arena>,
    gradients: &[View<'_>],
    right: Option<&Packed<U>>,
    store: impl Fn(Finished<'_>) + Sync,
) -> Turned<U> {
    let layouts: Vec<Layout> = gradients.iter().map(|x| Layout::of::<U>(x, Depth::Columns)).collect();
    let steps: usize = layouts.iter().map(|layout| layout.steps).sum();
    let mut transposed: Vec<Packed<U>> =
        gradients.iter().map(|x| Packed::empty(arena, &Layout::of::<U>(x, Depth::Rows), Depth::Rows)).collect();
    let turned: Vec<_> = transposed.iter_mut().map(|packed| packed.cells(U::ROWS, 0)).collect();
    let parts = by_rows(gradients.first().map_or(0, |x| x.shape()[0]), GROUP_ROWS, |rows| {
        with_panels::<U, _, 1, 0>([scratch_len::<U>(rows.len(), steps * U::STEP)], [], |[data], []| {
            let mut first = 0;
            let sums: Vec<Vec<f32>> = gradients
                .iter()
                .zip(&layouts)
                .zip(&turned)
                .map(|((gradient, layout), turned)| {
                    let plain = Cells::<U>::new(data, U::ROWS, steps, first);
                    first += layout.steps;
                    let part = gradient.part(&rows, &(0..gradient.shape()[1]));
                    // SAFETY: the rows are whole steps, which are this task's alone in what is turned; the data are too.
                    unsafe { fill_both([&plain, &turned.from(rows.start / U::STEP)], &part) }
                })
                .collect();
            let left = Panels { data, steps, extent: rows.len(), depth: Depth::Columns };
            if let Some(right) = right {
                multiply_group(
                    left,
                    rows.start,
                    &[right.panels()],
                    #[inline(always)]
                    |_, part: Finished<'_>| store(part),
                );
            }
            sums
        })
    });
    let mut sums: Vec<Vec<Vec<f32>>> = gradients.iter().map(|_| Vec::with_capacity(parts.len())).collect();
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sums, part)| sums.push(part));
    }
    Turned { transposed, sums }
}

/// `f` of each group of so many rows: whole panels and whole steps of every unit.
fn by_rows<R: Send>(rows: usize, group: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R> {
    let groups = (0..rows.div_ceil(group)).into_par_iter();
    groups.map(|number| f(number * group..rows.min((number + 1) * group))).collect()
}

/// How many rows of a forward pass are a group, for which weights are read once. In bf16 those of a thread's own pass are one,
/// where they are not too deep; of more rows there are several for threads to share.
fn rows_at_once<U: Unit>(rows: usize, depth: usize) -> usize {
    /// Rows that are one group at most.
    const ROWS: usize = 512;
    /// Elements of their operand at most: 1.5 MB.
    const ELEMENTS: usize = ROWS * 1536;
    if U::PRECISION == Precision::Bf16 && rows <= ROWS && rows * depth <= ELEMENTS { ROWS } else { GROUP_ROWS }
}

/// The same where whole rows of the product are in memory, whose sums take room as well.
fn whole_rows_at_once<U: Unit>(rows: usize, depth: usize, right: Panels<'_, U>) -> usize {
    /// Sums at most: 1 MB.
    const SUMS: usize = 512 * 512;
    if rows * right.extent > SUMS { GROUP_ROWS } else { rows_at_once::<U>(rows, depth) }
}

/// Columns that one thread adds up at once where whole rows are in memory: an operand of many rows and steps is then read
/// fewer times from beyond the second-level cache.
const WHOLE_COLUMNS: usize = 192;
/// Whole rows that one thread stores at once: whole panels of every unit.
const WHOLE_ROWS: usize = 96;

/// The product of a group of rows, which begins at `first`, with a right operand, by whole rows. Threads that are idle help.
fn multiply_whole_group<U: Unit>(
    left: Panels<'_, U>,
    first: usize,
    right: Panels<'_, U>,
    store: impl Fn(Finished<'_>) + Sync,
) {
    assert!(left.steps == right.steps, "both operands are as deep");
    let (panels, columns) = (left.count(U::ROWS), right.count(U::COLUMNS));
    let apart = columns * U::COLUMNS + PADDING;
    with_scratch(panels * U::ROWS * apart, |sums| {
        let shared = SharedMatrix::new(&mut *sums, apart);
        for_each_group(left, right, WHOLE_COLUMNS, |columns| {
            let (begin, width) = (columns.start * U::COLUMNS, columns.len() * U::COLUMNS);
            // SAFETY: the columns of a group are one task's.
            let mut block = unsafe { shared.block(0..panels * U::ROWS, begin..begin + width) };
            add_up(left, right, [0..panels, columns], &mut block);
        });
        let parts = sums.par_chunks(WHOLE_ROWS * apart).enumerate();
        parts.for_each(|(part, sums)| {
            let begin = part * WHOLE_ROWS;
            let rows = first + begin..first + left.extent.min(begin + WHOLE_ROWS);
            let finished = Finished { rows, columns: 0..right.extent, sums, apart };
            U::vectorised(
                #[inline(always)]
                || store(finished),
            );
        });
    });
}

/// The product of a group of rows, which begins at `first`, with each right operand. Threads that are idle help.
fn multiply_group<U: Unit>(
    left: Panels<'_, U>,
    first: usize,
    rights: &[Panels<'_, U>],
    store: impl Fn(usize, Finished<'_>) + Sync,
) {
    let panels = left.count(U::ROWS);
    for (index, &right) in rights.iter().enumerate() {
        assert!(left.steps == right.steps, "both operands are as deep");
        for_each_group(left, right, GROUP_COLUMNS, |columns| {
            group(
                left,
                right,
                [0..panels, columns],
                #[inline(always)]
                |mut part| {
                    part.rows = first + part.rows.start..first + part.rows.end;
                    store(index, part);
                },
            );
        });
    }
}

/// `f` of each group of a right operand's panels, by as many threads as the product is worth.
fn for_each_group<U: Unit>(left: Panels<'_, U>, right: Panels<'_, U>, width: usize, f: impl Fn(Range<usize>) + Sync) {
    let (columns, at_once) = (right.count(U::COLUMNS), width / U::COLUMNS);
    let work = |task: usize| f(task * at_once..columns.min((task + 1) * at_once));
    let tasks = columns.div_ceil(at_once);
    if left.extent * right.extent * left.steps * U::STEP < WORTH_THREADS {
        (0..tasks).for_each(work);
    } else {
        (0..tasks).into_par_iter().for_each(work);
    }
}
