//! Operands in the order in which a unit reads them.

use std::ops::Range;

use rayon::prelude::*;

use super::unit::{Depth, TILE, Tile, Unit};
use crate::cpu::math::{self, vectorised};
use crate::cpu::scratch::with_scratch;
use crate::device::Device;
use crate::pool::Buffer;
use crate::tensor::Tensor;

/// A matrix to be packed.
pub trait Source: Sync {
    /// Rows and columns.
    fn shape(&self) -> [usize; 2];
    /// A part of a row, from a column on.
    fn read(&self, row: usize, column: usize, out: &mut [f32]);
}

/// A matrix in memory, its rows `stride` apart.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<'a> View<'a> {
    /// A whole tensor.
    pub fn of(tensor: &'a Tensor) -> Self {
        let columns = tensor.columns();
        View { data: tensor.data(), stride: columns, rows: tensor.rows(), columns }
    }

    /// Rows that begin `stride` apart.
    pub fn rows_of(data: &'a [f32], stride: usize, columns: usize) -> Self {
        View { data, stride, rows: data.len() / stride, columns }
    }

    /// A rectangular part.
    pub fn part(&self, rows: &Range<usize>, columns: &Range<usize>) -> Self {
        assert!(rows.end <= self.rows && columns.end <= self.columns);
        let data = &self.data[rows.start * self.stride + columns.start..];
        View { data, stride: self.stride, rows: rows.len(), columns: columns.len() }
    }
}

impl Source for View<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    #[inline(always)]
    fn read(&self, row: usize, column: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.stride + column..][..out.len()]);
    }
}

/// A matrix of which GELU is taken as it is packed, if at all.
pub struct Activated<'a> {
    /// Before.
    pub x: View<'a>,
    /// Whether GELU is taken.
    pub gelu: bool,
}

impl Source for Activated<'_> {
    fn shape(&self) -> [usize; 2] {
        self.x.shape()
    }

    #[inline(always)]
    fn read(&self, row: usize, column: usize, out: &mut [f32]) {
        self.x.read(row, column, out);
        if self.gelu {
            out.iter_mut().for_each(|x| *x *= math::normal(*x).0);
        }
    }
}

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

    /// Some steps of a panel.
    pub fn part(&self, width: usize, panel: usize, steps: Range<usize>) -> &'a [U::Element] {
        let step = width * U::STEP;
        &self.data[(panel * self.steps + steps.start) * step..(panel * self.steps + steps.end) * step]
    }
}

/// Which operand of a product is packed.
trait Side<U: Unit> {
    /// Rows or columns of a panel.
    const WIDTH: usize;
    fn place(tile: &Tile, depth: Depth, step: &mut [U::Element]);
}

struct Left;
struct Right;

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
    pub fn left<S: Source>(device: &Device, sources: &[S], depth: Depth) -> Self {
        Packed::new::<S, Left>(device, sources, depth)
    }

    /// The right operand of a product. Several sources follow each other in depth.
    pub fn right<S: Source>(device: &Device, sources: &[S], depth: Depth) -> Self {
        Packed::new::<S, Right>(device, sources, depth)
    }

    fn new<S: Source, W: Side<U>>(device: &Device, sources: &[S], depth: Depth) -> Self {
        let layouts: Vec<Layout> = sources.iter().map(|source| Layout::of::<U>(source, depth)).collect();
        let steps = layouts.iter().map(|layout| layout.steps).sum();
        let extent = layouts.first().map_or(0, |layout| layout.extent);
        let (panels, size) = (extent.div_ceil(W::WIDTH), W::WIDTH * U::STEP);
        let mut data = Buffer::new(device.pools(), panels * steps * size);
        let mut first = 0;
        for (source, layout) in sources.iter().zip(&layouts) {
            let cells = Cells::<U> { data: data.as_mut_slice().as_mut_ptr(), size, steps, first };
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

    /// What a product takes.
    pub fn panels(&self) -> Panels<'_, U> {
        Panels { data: self.data.as_slice(), steps: self.steps, extent: self.extent, depth: self.depth }
    }
}

/// How many elements of scratch [`left_here`] or [`right_here`] may take for a matrix of that extent and depth.
pub fn scratch_len<U: Unit>(extent: usize, depth: usize) -> usize {
    extent.next_multiple_of(TILE).next_multiple_of(U::ROWS) * depth.next_multiple_of(U::STEP)
}

/// Lends memory of this thread for panels and for numbers.
pub fn with_panels<U: Unit, const N: usize, const M: usize>(
    panels: [usize; N],
    numbers: [usize; M],
    f: impl FnOnce([&mut [U::Element]; N], [&mut [f32]; M]),
) {
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
        f(panels, numbers_in_lines.map(take));
    });
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
    let cells = Cells::<U> { data: data.as_mut_ptr(), size, steps, first: 0 };
    // SAFETY: the data are ours alone, and long enough.
    unsafe { cells.fill::<W>(source, depth, 0..panels, 0..steps) };
    Panels { data, steps, extent, depth }
}

/// A source's extent in the product, and its steps of depth.
struct Layout {
    extent: usize,
    steps: usize,
}

impl Layout {
    fn of<U: Unit>(source: &impl Source, depth: Depth) -> Self {
        let [rows, columns] = source.shape();
        let (extent, depth) = match depth {
            Depth::Columns => (rows, columns),
            Depth::Rows => (columns, rows),
        };
        Layout { extent, steps: depth.div_ceil(U::STEP) }
    }
}

/// The steps of all panels, which several threads fill.
struct Cells<U: Unit> {
    data: *mut U::Element,
    size: usize,
    steps: usize,
    first: usize,
}

// SAFETY: the only access is `fill`, whose contract forbids two threads on one cell.
unsafe impl<U: Unit> Sync for Cells<U> {}

impl<U: Unit> Cells<U> {
    /// Packs some steps of some panels.
    ///
    /// # Safety
    /// The data must hold the cells, and no one else may use them meanwhile.
    unsafe fn fill<W: Side<U>>(&self, source: &impl Source, depth: Depth, panels: Range<usize>, steps: Range<usize>) {
        vectorised(
            #[inline(always)]
            || {
                let mut tile: Tile = [[0.0; TILE]; TILE];
                for panel in panels {
                    for step in steps.clone() {
                        let at = (panel * self.steps + self.first + step) * self.size;
                        // SAFETY: as the caller promises.
                        let cell = unsafe { std::slice::from_raw_parts_mut(self.data.add(at), self.size) };
                        let (panel, step) = (panel * W::WIDTH, step * U::STEP);
                        match depth {
                            Depth::Columns => read_tile(source, [panel, step], [W::WIDTH, U::STEP], &mut tile),
                            Depth::Rows => read_tile(source, [step, panel], [U::STEP, W::WIDTH], &mut tile),
                        }
                        W::place(&tile, depth, cell);
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
        // Of constant width: the compiler makes register moves of it.
        for i in 0..height {
            source.read(row + i, column, &mut tile[i][..width]);
        }
    } else {
        *tile = [[0.0; TILE]; TILE];
        for (i, out) in tile[..height.min(rows - row)].iter_mut().enumerate() {
            source.read(row + i, column, &mut out[..width.min(columns - column)]);
        }
    }
}
