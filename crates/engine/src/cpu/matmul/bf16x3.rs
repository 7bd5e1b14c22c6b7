//! Single precision by half-width units: every number is the sum of three bf16, which hold its 24 bits, 8 each.
//!
//! Of the nine products of two such sums those six are added that reach the last bit of single precision (Henry, Tang and
//! Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations, ARITH 2019). A
//! tile's sums begin at zero, so a product is rounded fewer times than by fused multiplications.
//!
//! At the ends of the range it differs. Operands and products below about 2⁻¹⁰³ lose their last bits, and what is below 2⁻¹²⁶
//! is 0, as tiles take it. An operand that is infinite, or from 3.39·10³⁸ on, which bf16 rounds to infinity, makes the sums that
//! it is in not a number.

use super::bf16::{self, TILE_LEN};
use super::unit::{Depth, Operands, TILE, Tile, Unit};
#[cfg(target_arch = "x86_64")]
use super::{amx, bf16::x86};
#[cfg(test)]
use crate::cpu::math::vectorised;
use crate::precision::Precision;

/// The parts of a number, the largest first.
pub type Parts = [u16; 3];

/// One part of all numbers of a step.
const PLANE: usize = TILE * TILE;

/// By AMX tiles.
#[derive(Clone, Copy)]
pub struct Amx;

/// As the compiler does it for any machine: slower than single precision alone.
#[cfg(test)]
#[derive(Clone, Copy)]
pub struct Portable;

/// What is left of a number when its nearest bf16 is taken away.
#[inline(always)]
fn rest(x: f32) -> f32 {
    let bits = x.to_bits();
    x - f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// Writes each part of a tile into its plane, tile by tile of the half-width unit.
#[inline(always)]
fn place(tile: &Tile, step: &mut [Parts], place: impl Fn(&Tile, usize, &mut [u16])) {
    let mut tile = *tile;
    for plane in step.as_flattened_mut().chunks_exact_mut(PLANE) {
        for (half, out) in plane.chunks_exact_mut(TILE_LEN).enumerate() {
            place(&tile, half, out);
        }
        tile.as_flattened_mut().iter_mut().for_each(|x| *x = rest(*x));
    }
}

#[inline(always)]
fn place_row(numbers: &[f32], row: usize, step: &mut [Parts], convert: impl Fn(&[f32], &mut [u16])) {
    let mut numbers: [f32; TILE] = std::array::from_fn(|i| numbers[i]);
    for plane in step.as_flattened_mut().chunks_exact_mut(PLANE) {
        convert(&numbers, &mut plane[bf16::place_of_row(row)..][..TILE]);
        numbers = numbers.map(rest);
    }
}

macro_rules! three_parts {
    ($unit:ident, $block:path, $vectorised:path, $convert:path, $place_left:path, $place_right:path $(, $begin:path, $end:path)?) => {
        impl Unit for $unit {
            type Element = Parts;
            const PRECISION: Precision = Precision::F32;
            const ROWS: usize = TILE;
            const STEP: usize = TILE;

            #[inline(always)]
            fn place_left(tile: &Tile, depth: Depth, step: &mut [Parts]) {
                place(
                    tile,
                    step,
                    #[inline(always)]
                    |tile, half, out| $place_left(tile, depth, half, out),
                );
            }

            #[inline(always)]
            fn place_row(numbers: &[f32], row: usize, step: &mut [Parts]) {
                place_row(
                    numbers,
                    row,
                    step,
                    #[inline(always)]
                    |numbers, out| $convert(numbers, out),
                );
            }

            #[inline(always)]
            fn place_right(tile: &Tile, depth: Depth, step: &mut [Parts]) {
                place(
                    tile,
                    step,
                    #[inline(always)]
                    |tile, half, out| $place_right(tile, depth, half, out),
                );
            }

            #[inline(always)]
            fn vectorised<R>(f: impl FnOnce() -> R) -> R {
                $vectorised(f)
            }

            $(
                fn begin() {
                    $begin();
                }

                fn end() {
                    $end();
                }
            )?

            unsafe fn multiply(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool) {
                // SAFETY: as the caller promises.
                unsafe { $block(operands, block, stride, accumulate) }
            }
        }
    };
}

#[cfg(test)]
three_parts!(Portable, portable, vectorised, bf16::convert, bf16::place_left, bf16::place_right);
#[cfg(target_arch = "x86_64")]
three_parts!(
    Amx,
    amx::multiply_parts,
    x86::vectorised,
    x86::convert,
    x86::place_left,
    x86::place_right,
    amx::configure_tiles,
    amx::release_tiles
);

/// The parts of the left and of the right operand that are multiplied, in this order.
#[cfg(test)]
const PRODUCTS: [[usize; 2]; 6] = [[2, 0], [1, 0], [1, 1], [0, 1], [0, 2], [0, 0]];

#[cfg(test)]
unsafe fn portable(operands: Operands<Parts>, block: *mut f32, stride: usize, accumulate: bool) {
    let Operands { steps, rows, left_depth, .. } = operands;
    let [left, right] = [operands.left, operands.right].map(|panel| panel.cast::<u16>());
    let of_parts = |at: [usize; 2]| {
        let [left, right] = [left.wrapping_add(at[0] * PLANE), right.wrapping_add(at[1] * PLANE)];
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
            bf16::portable(of_parts(parts.map(|part| 3 * step + part)), product.as_mut_ptr().cast(), TILE, false);
            for (row, product) in sums.clone().zip(product) {
                let sum = row.read_unaligned();
                row.write_unaligned(std::array::from_fn(|i| sum[i] + product[i]));
            }
        }
    }
}
