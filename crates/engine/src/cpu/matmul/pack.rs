//! Operands in the order in which a unit reads them.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::source::{Source, View};
use super::unit::{Depth, OnLines, TILE, Tile, Unit};
use crate::arena::{Arena, Buffer};
use crate::cpu::scratch::with_scratch;

/// Tiles go along many rows at once, too many for the machine to see what comes next: so far ahead it is told. What
/// comes after the rows' end are the rows below.
const AHEAD: usize = 4 * TILE;

/// A packed operand in memory of its own.
pub struct Packed<U: Unit> {
    data: Buffer<U::Element>,
    steps: usize,
    extent: usize,
    depth: Depth,
}

/// A packed operand: `extent` rows or columns of the product.
pub struct Panels<'a, U: Unit> {
    pub data: &'a [U::Element],
    pub steps: usize,
    pub extent: usize,
    /// How it was packed.
    pub depth: Depth,
}

impl<U: Unit> Clone for Panels<'_, U> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<U: Unit> Copy for Panels<'_, U> {}

impl<'a, U: Unit> Panels<'a, U> {
    /// How many panels of that width there are.
    pub fn count(&self, width: usize) -> usize {
        self.extent.div_ceil(width)
    }

    /// How many rows a left panel holds.
    pub fn rows_of(&self, panel: usize) -> usize {
        (self.extent - panel * U::ROWS).min(U::ROWS)
    }

    /// Some steps of a panel.
    pub fn part(&self, width: usize, panel: usize, steps: Range<usize>) -> &'a [U::Element] {
        let step = width * U::STEP;
        &self.data[(panel * self.steps + steps.start) * step..(panel * self.steps + steps.end) * step]
    }
}

/// One panel of a left operand, written row by row.
pub struct PanelRows<'a, U: Unit> {
    /// Room for whole steps of `U::ROWS` rows.
    pub data: &'a mut [U::Element],
    /// Numbers in a row.
    pub depth: usize,
}

impl<U: Unit> PanelRows<'_, U> {
    /// A row of the panel: `depth` numbers, and what fills up their last step. What is beyond that is not read.
    #[inline(always)]
    pub fn write(&mut self, row: usize, numbers: &[f32]) {
        assert!(numbers.len() >= self.depth.next_multiple_of(U::STEP));
        let steps = self.data.chunks_exact_mut(U::ROWS * U::STEP);
        for (numbers, step) in numbers.chunks_exact(U::STEP).zip(steps) {
            U::place_row(numbers, row, step);
        }
    }

    /// The panel, as far as its first `rows` rows have been written.
    pub fn panels(&self, rows: usize) -> Panels<'_, U> {
        Panels { data: self.data, steps: self.depth.div_ceil(U::STEP), extent: rows, depth: Depth::Columns }
    }
}

/// Which operand of a product is packed.
pub trait Side<U: Unit> {
    /// Rows or columns of a panel.
    const WIDTH: usize;
    fn place(tile: &Tile, depth: Depth, step: &mut [U::Element]);
}

pub struct Left;
pub struct Right;

impl<U: Unit> Side<U> for Left {
    const WIDTH: usize = U::ROWS;

    #[inline(always)]
    fn place(tile: &Tile, depth: Depth, step: &mut [U::Element]) {
        U::place_left(tile, depth, step);
    }
}

impl<U: Unit> Side<U> for Right {
    const WIDTH: usize = U::COLUMNS;

    #[inline(always)]
    fn place(tile: &Tile, depth: Depth, step: &mut [U::Element]) {
        U::place_right(tile, depth, step);
    }
}

impl<U: Unit> Packed<U> {
    /// The left operand of a product. Several sources follow each other in depth.
    pub fn left<S: Source>(arena: &Arc<Arena>, sources: &[S], depth: Depth) -> Self {
        Packed::new::<S, Left>(arena, sources, depth)
    }

    /// The right operand of a product. Several sources follow each other in depth.
    pub fn right<S: Source>(arena: &Arc<Arena>, sources: &[S], depth: Depth) -> Self {
        Packed::new::<S, Right>(arena, sources, depth)
    }

    fn new<S: Source, W: Side<U>>(arena: &Arc<Arena>, sources: &[S], depth: Depth) -> Self {
        let layouts: Vec<Layout> = sources.iter().map(|source| Layout::of::<U>(source, depth)).collect();
        let steps = layouts.iter().map(|layout| layout.steps).sum();
        let extent = layouts.first().map_or(0, |layout| layout.extent);
        let (panels, size) = (extent.div_ceil(W::WIDTH), W::WIDTH * U::STEP);
        let mut data = Buffer::new(arena, panels * steps * size);
        let mut first = 0;
        for (source, layout) in sources.iter().zip(&layouts) {
            let cells = Cells::<U>::new(data.as_mut_slice(), W::WIDTH, steps, first);
            // A task goes along the source's rows.
            match depth {
                Depth::Columns => (0..panels).into_par_iter().for_each(|panel| {
                    // SAFETY: each panel is one task's.
                    unsafe { cells.fill::<W>(source, depth, panel..panel + 1, 0..layout.steps) }
                }),
                Depth::Rows => (0..layout.steps).into_par_iter().for_each(|step| {
                    // SAFETY: each step is one task's.
                    unsafe { cells.fill::<W>(source, depth, 0..panels, step..step + 1) }
                }),
            }
            first += layout.steps;
        }
        Packed { data, steps, extent, depth }
    }

    /// A left operand, to be filled.
    pub fn empty(arena: &Arc<Arena>, layout: &Layout, depth: Depth) -> Self {
        let Layout { extent, steps } = *layout;
        let data = Buffer::new(arena, extent.div_ceil(U::ROWS) * U::ROWS * steps * U::STEP);
        Packed { data, steps, extent, depth }
    }

    /// Its steps from `first` on.
    pub fn cells(&mut self, width: usize, first: usize) -> Cells<U> {
        Cells::new(self.data.as_mut_slice(), width, self.steps, first)
    }

    /// What a product takes.
    pub fn panels(&self) -> Panels<'_, U> {
        Panels { data: self.data.as_slice(), steps: self.steps, extent: self.extent, depth: self.depth }
    }
}

/// How many elements the panels of a matrix of that extent and depth take at most, left or right.
pub fn scratch_len<U: Unit>(extent: usize, depth: usize) -> usize {
    extent.next_multiple_of(TILE).next_multiple_of(U::ROWS) * depth.next_multiple_of(U::STEP)
}

/// Lends memory of this thread for panels and for numbers.
pub fn with_panels<U: Unit, R, const N: usize, const M: usize>(
    panels: [usize; N],
    numbers: [usize; M],
    f: impl FnOnce([&mut [U::Element]; N], [&mut [f32]; M]) -> R,
) -> R {
    let in_floats = |len: usize| (len * size_of::<U::Element>()).div_ceil(4).next_multiple_of(16);
    let (panels, numbers_in_lines) = (panels.map(in_floats), numbers.map(|len| len.next_multiple_of(16)));
    let total = panels.iter().chain(&numbers_in_lines).sum();
    with_scratch(total, |mut rest| {
        let mut take = |len: usize| {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(len);
            rest = left;
            taken
        };
        let panels = panels.map(|len| bytemuck::cast_slice_mut(take(len)));
        f(panels, numbers_in_lines.map(take))
    })
}

/// Packs a left operand on this thread.
pub fn left_here<'a, U: Unit>(source: &impl Source, depth: Depth, data: &'a mut [U::Element]) -> Panels<'a, U> {
    pack_here::<U, Left>(source, depth, data)
}

/// Packs a right operand on this thread.
pub fn right_here<'a, U: Unit>(source: &impl Source, depth: Depth, data: &'a mut [U::Element]) -> Panels<'a, U> {
    pack_here::<U, Right>(source, depth, data)
}

fn pack_here<'a, U: Unit, W: Side<U>>(source: &impl Source, depth: Depth, data: &'a mut [U::Element]) -> Panels<'a, U> {
    let Layout { extent, steps } = Layout::of::<U>(source, depth);
    let (panels, size) = (extent.div_ceil(W::WIDTH), W::WIDTH * U::STEP);
    assert!(panels * steps * size <= data.len());
    let cells = Cells::<U>::new(data, W::WIDTH, steps, 0);
    // SAFETY: the data are ours alone, and long enough.
    unsafe { cells.fill::<W>(source, depth, 0..panels, 0..steps) };
    Panels { data, steps, extent, depth }
}

/// A source's extent in the product, and its steps of depth.
pub struct Layout {
    pub extent: usize,
    pub steps: usize,
}

impl Layout {
    pub fn of<U: Unit>(source: &impl Source, depth: Depth) -> Self {
        let [rows, columns] = source.shape();
        let (extent, depth) = match depth {
            Depth::Columns => (rows, columns),
            Depth::Rows => (columns, rows),
        };
        Layout { extent, steps: depth.div_ceil(U::STEP) }
    }
}

/// The steps of all panels, which several threads fill.
pub struct Cells<U: Unit> {
    data: *mut U::Element,
    size: usize,
    steps: usize,
    first: usize,
}

// SAFETY: the only accesses are `fill` and `write`, whose contract forbids two threads on one cell.
unsafe impl<U: Unit> Sync for Cells<U> {}

/// Packs rows as a left operand and, turned, as another, and sums their columns: from one reading of each tile where
/// steps are as deep as panels are wide.
///
/// # Safety
/// As [`Cells::fill`], of both.
pub unsafe fn fill_both<U: Unit>([plain, turned]: [&Cells<U>; 2], source: &View<'_>) -> Vec<f32> {
    let [height, width] = source.shape();
    let [rows, columns] = [height, width].map(|extent| extent.div_ceil(U::ROWS));
    let steps = width.div_ceil(U::STEP);
    if U::ROWS != U::STEP {
        // SAFETY: as the caller promises.
        unsafe {
            plain.fill::<Left>(source, Depth::Columns, 0..rows, 0..steps);
            turned.fill::<Left>(source, Depth::Rows, 0..columns, 0..height.div_ceil(U::STEP));
        }
        return source.sums_of_columns();
    }
    let mut sums = vec![0.0; steps * TILE];
    U::vectorised(
        #[inline(always)]
        || {
            let OnLines(tile) = &mut OnLines::new();
            for panel in 0..rows {
                for (step, sums) in sums.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                    read_tile(source, [panel * U::ROWS, step * U::STEP], [U::ROWS, U::STEP], tile);
                    let mut lanes = *sums;
                    for row in &tile[..U::ROWS] {
                        lanes.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
                    }
                    *sums = lanes;
                    // SAFETY: as the caller promises.
                    unsafe {
                        U::place_left(tile, Depth::Columns, plain.cell(panel, step));
                        U::place_left(tile, Depth::Rows, turned.cell(step, panel));
                    }
                }
            }
        },
    );
    sums.truncate(width);
    sums
}

impl<U: Unit> Cells<U> {
    /// Panels of that width and so many steps, of which those from `first` on are filled.
    pub fn new(data: &mut [U::Element], width: usize, steps: usize, first: usize) -> Self {
        Cells { data: data.as_mut_ptr(), size: width * U::STEP, steps, first }
    }

    /// The same from a later step on.
    pub fn from(&self, first: usize) -> Self {
        Cells { first: self.first + first, ..*self }
    }

    /// One step of a panel.
    ///
    /// # Safety
    /// As [`Cells::fill`].
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    unsafe fn cell(&self, panel: usize, step: usize) -> &mut [U::Element] {
        let at = (panel * self.steps + self.first + step) * self.size;
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), self.size) }
    }

    /// Writes whole steps of a row of left panels that are packed along columns, from a column on. What is never written comes
    /// into no other row of a product.
    ///
    /// # Safety
    /// As [`Cells::fill`].
    #[inline(always)]
    pub unsafe fn write(&self, row: usize, column: usize, numbers: &[f32]) {
        for (step, numbers) in numbers.chunks_exact(U::STEP).enumerate() {
            // SAFETY: as the caller promises.
            let cell = unsafe { self.cell(row / U::ROWS, column / U::STEP + step) };
            U::place_row(numbers, row % U::ROWS, cell);
        }
    }

    /// Packs some steps of some panels.
    ///
    /// # Safety
    /// The data must hold the cells, and no one else may use them meanwhile.
    pub unsafe fn fill<W: Side<U>>(
        &self,
        source: &impl Source,
        depth: Depth,
        panels: Range<usize>,
        steps: Range<usize>,
    ) {
        U::vectorised(
            #[inline(always)]
            || {
                let OnLines(tile) = &mut OnLines::new();
                for panel in panels {
                    for step in steps.clone() {
                        // SAFETY: as the caller promises.
                        let cell = unsafe { self.cell(panel, step) };
                        let (panel, step) = (panel * W::WIDTH, step * U::STEP);
                        match depth {
                            Depth::Columns => read_tile(source, [panel, step], [W::WIDTH, U::STEP], tile),
                            Depth::Rows => read_tile(source, [step, panel], [U::STEP, W::WIDTH], tile),
                        }
                        W::place(tile, depth, cell);
                    }
                }
            },
        );
    }
}

/// Reads the part of a source that begins at `row` and `column`; zeros where there is none.
#[inline(always)]
fn read_tile(source: &impl Source, [row, column]: [usize; 2], [height, width]: [usize; 2], tile: &mut Tile) {
    let [rows, columns] = source.shape();
    if row + height <= rows && column + width <= columns {
        let below = if column + AHEAD < columns { 0 } else { height };
        let next = (column + AHEAD) % columns;
        // Of constant width: the compiler makes register moves of it.
        for (i, out) in tile[..height].iter_mut().enumerate() {
            source.prefetch(row + below + i, next, width);
            source.read(row + i, column, &mut out[..width]);
        }
    } else {
        tile[..height].fill([0.0; TILE]);
        for (i, out) in tile[..height.min(rows - row)].iter_mut().enumerate() {
            source.read(row + i, column, &mut out[..width.min(columns - column)]);
        }
    }
}
