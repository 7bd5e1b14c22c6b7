//! What multiplies: the contract of a microkernel.

use std::fmt::Debug;

use bytemuck::Pod;

use crate::cpu::math;
use crate::precision::Precision;

/// The largest tile that is packed at once.
pub const TILE: usize = 32;

/// Which way the depth of a product runs through a matrix that is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Along its columns: each row becomes a row (or column) of the product.
    Columns,
    /// Along its rows: each column becomes a row (or column) of the product.
    Rows,
}

/// Numbers on their way into an operand: `tile[i][j]` is row `i` and column `j` of a part of the packed matrix, filled
/// up with zeros.
pub type Tile = [[f32; TILE]; TILE];

/// A tile on cache lines: what is read right after it was written comes from the store only if neither crosses a line.
#[repr(align(64))]
pub struct OnLines(pub Tile);

impl OnLines {
    /// Zeros.
    pub fn new() -> Self {
        OnLines([[0.0; TILE]; TILE])
    }
}

/// A way to multiply packed operands. Left panels hold `ROWS` rows of the left operand, right panels `COLUMNS` columns
/// of the right one; both go through the depth in steps of `STEP`, and the layout of a step is the unit's own.
pub trait Unit: Copy + Send + Sync + 'static {
    /// What operands are made of.
    type Element: Pod + Default + PartialEq + Debug + Send + Sync;
    /// What operands are rounded to.
    const PRECISION: Precision;
    /// Rows of a left panel, at most [`TILE`] and a divisor of 192.
    const ROWS: usize;
    /// Columns of a right panel.
    const COLUMNS: usize = TILE;
    /// Depth of a step, at most [`TILE`].
    const STEP: usize;

    /// Writes one step of a left panel.
    fn place_left(tile: &Tile, depth: Depth, step: &mut [Self::Element]);
    /// Writes one row's `STEP` numbers of one step of a left panel that is packed along columns.
    fn place_row(numbers: &[f32], row: usize, step: &mut [Self::Element]);
    /// Writes one step of a right panel.
    fn place_right(tile: &Tile, depth: Depth, step: &mut [Self::Element]);

    /// Runs `f` compiled for the vector instructions of the machine, and for those that the unit packs by. What `f` calls
    /// must be `#[inline(always)]`.
    #[inline(always)]
    fn vectorised<R>(f: impl FnOnce() -> R) -> R {
        math::vectorised(f)
    }

    /// Before products on this thread.
    fn begin() {}
    /// After products on this thread.
    fn end() {}

    /// `block = left · right`, or added to `block` if it accumulates: `ROWS` rows of `COLUMNS` sums, `stride` apart, of which those
    /// beyond the operands' `rows` may be anything.
    ///
    /// # Safety
    /// The machine must have the unit; the operands must hold the steps; `block` must be writable as said;
    /// [`Unit::begin`] must have been called on this thread.
    unsafe fn multiply(operands: Operands<Self::Element>, block: *mut f32, stride: usize, accumulate: bool);
}

/// Steps of a left and a right panel.
#[derive(Clone, Copy)]
pub struct Operands<E> {
    pub steps: usize,
    /// How many of the left panel's rows are wanted, from the first on; the sums of others may be anything.
    pub rows: usize,
    pub left: *const E,
    /// How the left operand was packed.
    pub left_depth: Depth,
    pub right: *const E,
    /// The share of this product in what is likely to be read next in the place of `right`: brought near meanwhile. It need not
    /// exist.
    pub next: *const E,
    /// How many elements that share is.
    pub share: usize,
}
