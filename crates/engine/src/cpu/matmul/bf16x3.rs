//! Single precision by half-width units: every number is the sum of three bf16, which hold its 24 bits, 8 each.
//!
//! Of the nine products of two such sums those six are added that reach the last bit of single precision (Henry, Tang and
//! Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, ARITH 2019). A
//! tile's sums begin at zero, so a product is rounded fewer times than by fused multiplications.
//!
//! At the ends of the range it differs. Operands and products below about 2⁻¹⁰³ lose their last bits, and what is below 2⁻¹²⁶
//! is 0, as tiles take it. An operand that is infinite, or from 3.39·10³⁸ on, which bf16 rounds to infinity, makes the sums that
//! it is in not a number.

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::bf16;
use super::unit::{Depth, Operands, TILE, Tile, Unit};
use crate::precision::Precision;

/// The parts of a number, the largest first.
pub type Parts = [u16; 3];

/// A half-width unit that multiplies numbers of three parts as well.
pub trait MultipliesParts: Unit<Element = u16> {
    /// As [`Unit::multiply`]. Of each step there is first one part of all numbers, as the half-width unit has them, then the next.
    ///
    /// # Safety
    /// As [`Unit::multiply`].
    unsafe fn multiply_parts(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool);
}

/// Single precision by a half-width unit.
#[derive(Clone, Copy)]
pub struct InParts<H>(PhantomData<H>);

/// What is left of a number when its nearest bf16 is taken away.
#[inline(always)]
fn rest(x: f32) -> f32 {
    let bits = x.to_bits();
    x - f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// A step's parts, each of all numbers.
#[inline(always)]
fn planes(step: &mut [Parts]) -> impl Iterator<Item = &mut [u16]> {
    let numbers = step.len();
    step.as_flattened_mut().chunks_exact_mut(numbers)
}

#[inline(always)]
fn place(tile: &Tile, step: &mut [Parts], place: impl Fn(&Tile, &mut [u16])) {
    let mut tile = *tile;
    for plane in planes(step) {
        place(&tile, plane);
        tile.as_flattened_mut().iter_mut().for_each(|x| *x = rest(*x));
    }
}

impl<H: MultipliesParts> Unit for InParts<H> {
    type Element = Parts;
    const PRECISION: Precision = Precision::F32;
    const ROWS: usize = H::ROWS;
    const STEP: usize = H::STEP;

    #[inline(always)]
    fn place_left(tile: &Tile, depth: Depth, step: &mut [Parts]) {
        place(
            tile,
            step,
            #[inline(always)]
            |tile, plane| H::place_left(tile, depth, plane),
        );
    }

    #[inline(always)]
    fn place_row(numbers: &[f32], row: usize, step: &mut [Parts]) {
        let mut numbers: [f32; TILE] = std::array::from_fn(|i| numbers[i]);
        for plane in planes(step) {
            H::place_row(&numbers, row, plane);
            numbers = numbers.map(rest);
        }
    }

    #[inline(always)]
    fn place_right(tile: &Tile, depth: Depth, step: &mut [Parts]) {
        place(
            tile,
            step,
            #[inline(always)]
            |tile, plane| H::place_right(tile, depth, plane),
        );
    }

    #[inline(always)]
    fn vectorised<R>(f: impl FnOnce() -> R) -> R {
        H::vectorised(f)
    }

    fn begin() {
        H::begin();
    }

    fn end() {
        H::end();
    }

    unsafe fn multiply(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool) {
        // SAFETY: as the caller promises.
        unsafe { H::multiply_parts(operands, block, stride, accumulate) }
    }
}

#[cfg(target_arch = "x86_64")]
impl MultipliesParts for bf16::Amx {
    unsafe fn multiply_parts(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool) {
        // SAFETY: as the caller promises.
        unsafe { amx::multiply_parts(operands, block, stride, accumulate) }
    }
}

/// Slower than single precision alone: for tests of the parts.
#[cfg(test)]
impl MultipliesParts for bf16::Portable {
    unsafe fn multiply_parts(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool) {
        /// The parts of the left and of the right operand that are multiplied, in this order.
        const PRODUCTS: [[usize; 2]; 6] = [[2, 0], [1, 0], [1, 1], [0, 1], [0, 2], [0, 0]];
        let Operands { steps, rows, left_depth, .. } = operands;
        let [left, right] = [operands.left, operands.right].map(|panel| panel.cast::<u16>());
        let of_parts = |at: [usize; 2]| {
            let [left, right] = [left.wrapping_add(at[0] * TILE * TILE), right.wrapping_add(at[1] * TILE * TILE)];
            Operands { steps: 1, rows, left, left_depth, right, next: right, share: 0 }
        };
        // SAFETY: as the caller promises: of each of the steps' planes one step of a half-width product, which is added to the
        // block as a tile's sums are.
        unsafe {
            let sums = (0..TILE).map(|row| block.add(row * stride).cast::<[f32; TILE]>());
            if !accumulate {
                // Sums of rows that no one wants may be anything: whoever takes one all the same shall see it.
                let begin = |row| if row < rows { 0.0 } else { f32::NAN };
                sums.clone().enumerate().for_each(|(row, sums)| sums.write_unaligned([begin(row); TILE]));
            }
            for (step, parts) in (0..steps).flat_map(|step| PRODUCTS.map(|parts| (step, parts))) {
                let mut product = [[0.0_f32; TILE]; TILE];
                bf16::Portable::multiply(
                    of_parts(parts.map(|part| 3 * step + part)),
                    product.as_mut_ptr().cast(),
                    TILE,
                    false,
                );
                for (row, product) in sums.clone().zip(product) {
                    let sum = row.read_unaligned();
                    row.write_unaligned(std::array::from_fn(|i| sum[i] + product[i]));
                }
            }
        }
    }
}
