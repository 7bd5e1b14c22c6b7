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

    fn sums_of_columns(&self, rows: Range<usize>) -> Vec<f32> {
        let mut sums = vec![0.0; self.columns];
        vectorised(
            #[inline(always)]
            || {
                for row in rows {
                    for (sum, &x) in sums.iter_mut().zip(&self.data[row * self.stride..]) {
                        *sum += x;
                    }
                }
            },
        );
        sums
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
        let at = row * self.stride + column;
        prefetch(self.data, at + AHEAD, out.len());
        out.copy_from_slice(&self.data[at..][..out.len()]);
    }
}

/// Tiles go along many rows at once, too many for the machine to see what comes next: so far ahead it is told.
const AHEAD: usize = 4 * TILE;

/// Asks for `len` numbers from `at` on to be brought into the cache.
#[inline(always)]
fn prefetch(data: &[f32], at: usize, len: usize) {
    const LINE: usize = 16;
    #[cfg(target_arch = "x86_64")]
    for place in (at..at + len).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, at, len, LINE);
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
            out.iter_mut().for_each(|x| *x = math::gelu(*x));
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

/// What gradients of linear maps are packed to.
pub struct OfGradients<U: Unit> {
    /// All of them, one after the other in depth.
    pub beside: Packed<U>,
    /// Each, transposed.
    pub transposed: Vec<Packed<U>>,
    /// Each one's sums by column, part by part of its rows.
    pub sums: Vec<Vec<Vec<f32>>>,
}

/// Rows of a gradient that are packed together: whole panels and whole steps of every unit.
const ROWS_AT_ONCE: usize = 96;

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

    /// The left operands of the two products that a gradient takes part in: all of them side by side, and each
    /// transposed. A thread goes through some rows for both, and for their sums by column, while they are in its cache.
    pub fn of_gradients(device: &Device, gradients: &[View<'_>]) -> OfGradients<U> {
        let plain: Vec<Layout> = gradients.iter().map(|x| Layout::of::<U>(x, Depth::Columns)).collect();
        let steps = plain.iter().map(|layout| layout.steps).sum();
        let mut beside = Packed::empty(device, plain.first().map_or(0, |layout| layout.extent), steps, Depth::Columns);
        let (mut transposed, mut sums, mut first) = (Vec::new(), Vec::new(), 0);
        for (gradient, plain) in gradients.iter().zip(plain) {
            let [rows, columns] = gradient.shape();
            let layout = Layout::of::<U>(gradient, Depth::Rows);
            let mut turned = Packed::empty(device, layout.extent, layout.steps, Depth::Rows);
            let (cells, turned_cells) = (beside.cells(U::ROWS, first), turned.cells(U::ROWS, 0));
            let of_rows = |part: usize| {
                let rows = part * ROWS_AT_ONCE..rows.min((part + 1) * ROWS_AT_ONCE);
                let panels = rows.start / U::ROWS..rows.end.div_ceil(U::ROWS);
                let steps = rows.start / U::STEP..rows.end.div_ceil(U::STEP);
                // SAFETY: rows at once are whole panels and whole steps, and each is one task's.
                unsafe {
                    cells.fill::<Left>(gradient, Depth::Columns, panels, 0..plain.steps);
                    turned_cells.fill::<Left>(gradient, Depth::Rows, 0..columns.div_ceil(U::ROWS), steps);
                }
                gradient.sums_of_columns(rows)
            };
            sums.push((0..rows.div_ceil(ROWS_AT_ONCE)).into_par_iter().map(of_rows).collect());
            transposed.push(turned);
            first += plain.steps;
        }
        OfGradients { beside, transposed, sums }
    }

    fn empty(device: &Device, extent: usize, steps: usize, depth: Depth) -> Self {
        let data = Buffer::new(device.pools(), extent.div_ceil(U::ROWS) * U::ROWS * steps * U::STEP);
        Packed { data, steps, extent, depth }
    }

    fn cells(&mut self, width: usize, first: usize) -> Cells<U> {
        let (size, steps) = (width * U::STEP, self.steps);
        Cells { data: self.data.as_mut_slice().as_mut_ptr(), size, steps, first }
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
        for (i, out) in tile[..height].iter_mut().enumerate() {
            source.read(row + i, column, &mut out[..width]);
        }
    } else {
        *tile = [[0.0; TILE]; TILE];
        for (i, out) in tile[..height.min(rows - row)].iter_mut().enumerate() {
            source.read(row + i, column, &mut out[..width.min(columns - column)]);
        }
    }
}
