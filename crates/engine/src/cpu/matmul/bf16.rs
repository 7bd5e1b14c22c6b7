//! Half-width operands (bf16) with sums in single precision: panels of 32 rows and 32 columns in tiles of a kilobyte.
//!
//! A step of a left panel is two tiles of 16 rows of 32 numbers; a step of a right panel two tiles of 16 columns, in
//! which the two numbers that follow each other in depth stand side by side. That is the layout of the AMX tiles
//! (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS), which AVX-512 can read as well.

#[cfg(target_arch = "x86_64")]
pub mod x86;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::unit::{Depth, Operands, TILE, Tile, Unit};
use crate::cpu::math::vectorised;
use crate::precision::Precision;

/// Numbers in one tile.
pub const TILE_LEN: usize = 512;
/// Rows or columns of one tile, and pairs of numbers in a row of it.
pub const SIDE: usize = 16;

/// A tile, by pairs of numbers.
type Pairs = [[u32; SIDE]; SIDE];

/// By AMX tiles.
#[derive(Clone, Copy)]
pub struct Amx;

/// By AVX-512-BF16.
#[derive(Clone, Copy)]
pub struct Avx512;

/// As the compiler does it for any machine.
#[derive(Clone, Copy)]
pub struct Portable;

/// The nearest bf16, to even between two; not a number stays one.
#[inline(always)]
pub fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    (if x.is_nan() { quiet } else { rounded }) as u16
}

/// The number that a bf16 is.
#[inline(always)]
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Pairs of rows, the two numbers of each column side by side.
#[inline(always)]
fn pairs_of_rows(tile: &Tile, column: usize) -> Pairs {
    let mut pairs = [[0; SIDE]; SIDE];
    for (pair, out) in pairs.iter_mut().enumerate() {
        let (low, high) = (&tile[2 * pair][column..column + SIDE], &tile[2 * pair + 1][column..column + SIDE]);
        for i in 0..SIDE {
            out[i] = u32::from(round(low[i])) | u32::from(round(high[i])) << 16;
        }
    }
    pairs
}

/// Rows as pairs of numbers that follow each other.
#[inline(always)]
fn rows_of_pairs(tile: &Tile, row: usize) -> Pairs {
    let mut pairs = [[0; SIDE]; SIDE];
    for (out, row) in pairs.iter_mut().zip(&tile[row..row + SIDE]) {
        for i in 0..SIDE {
            out[i] = u32::from(round(row[2 * i])) | u32::from(round(row[2 * i + 1])) << 16;
        }
    }
    pairs
}

#[inline(always)]
fn transposed(pairs: &Pairs) -> Pairs {
    std::array::from_fn(|i| std::array::from_fn(|j| pairs[j][i]))
}

#[inline(always)]
fn write(pairs: &Pairs, out: &mut [u16]) {
    for (out, &pair) in bytemuck::cast_slice_mut::<u16, u32>(out).iter_mut().zip(pairs.as_flattened()) {
        *out = pair.to_le();
    }
}

#[inline(always)]
fn convert(numbers: &[f32], out: &mut [u16]) {
    out.iter_mut().zip(numbers).for_each(|(out, &x)| *out = round(x));
}

/// Where a row of a left step begins.
#[inline(always)]
fn place_of_row(row: usize) -> usize {
    row / SIDE * TILE_LEN + row % SIDE * TILE
}

/// A tile of rows as they are, or of columns, in the order of a left panel.
#[inline(always)]
fn place_left(tile: &Tile, depth: Depth, half: usize, out: &mut [u16]) {
    match depth {
        Depth::Columns => write(&rows_of_pairs(tile, half * SIDE), out),
        Depth::Rows => write(&transposed(&pairs_of_rows(tile, half * SIDE)), out),
    }
}

/// The same in the order of a right panel.
#[inline(always)]
fn place_right(tile: &Tile, depth: Depth, half: usize, out: &mut [u16]) {
    match depth {
        Depth::Columns => write(&transposed(&rows_of_pairs(tile, half * SIDE)), out),
        Depth::Rows => write(&pairs_of_rows(tile, half * SIDE), out),
    }
}

macro_rules! half_width {
    ($unit:ident, $block:path, $vectorised:path, $convert:path, $place_left:path, $place_right:path $(, $begin:path, $end:path)?) => {
        impl Unit for $unit {
            type Element = u16;
            const PRECISION: Precision = Precision::Bf16;
            const ROWS: usize = TILE;
            const STEP: usize = TILE;

            #[inline(always)]
            fn place_left(tile: &Tile, depth: Depth, step: &mut [u16]) {
                for (half, out) in step.chunks_exact_mut(TILE_LEN).enumerate() {
                    $place_left(tile, depth, half, out);
                }
            }

            #[inline(always)]
            fn place_row(numbers: &[f32], row: usize, step: &mut [u16]) {
                $convert(numbers, &mut step[place_of_row(row)..][..TILE]);
            }

            #[inline(always)]
            fn place_right(tile: &Tile, depth: Depth, step: &mut [u16]) {
                for (half, out) in step.chunks_exact_mut(TILE_LEN).enumerate() {
                    $place_right(tile, depth, half, out);
                }
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

            unsafe fn multiply(operands: Operands<u16>, block: *mut f32, stride: usize, accumulate: bool) {
                // SAFETY: as the caller promises.
                unsafe { $block(operands, block, stride, accumulate) }
            }
        }
    };
}

half_width!(Portable, portable, vectorised, convert, place_left, place_right);
#[cfg(target_arch = "x86_64")]
half_width!(Avx512, x86::avx512, x86::vectorised, x86::convert, x86::place_left, x86::place_right);
#[cfg(target_arch = "x86_64")]
half_width!(
    Amx,
    amx::multiply,
    x86::vectorised,
    x86::convert,
    x86::place_left,
    x86::place_right,
    amx::configure_tiles,
    amx::release_tiles
);

unsafe fn portable(operands: Operands<u16>, block: *mut f32, stride: usize, accumulate: bool) {
    let Operands { steps, left, right, .. } = operands;
    vectorised(
        #[inline(always)]
        || {
            for row in 0..TILE {
                for half in 0..2 {
                    // SAFETY: as the caller promises: reads are in the panels, writes in the block.
                    unsafe {
                        let out = block.add(row * stride + half * SIDE).cast::<[f32; SIDE]>();
                        let mut sums = if accumulate { out.read_unaligned() } else { [0.0; SIDE] };
                        for pair in 0..steps * SIDE {
                            let (step, place) = (pair / SIDE, pair % SIDE);
                            let a = left.add((2 * step + row / SIDE) * TILE_LEN + (row % SIDE * SIDE + place) * 2);
                            let b = right.add((2 * step + half) * TILE_LEN + place * TILE).cast::<[[u16; 2]; SIDE]>();
                            let (b, a) = (b.read_unaligned(), [widen(*a), widen(*a.add(1))]);
                            for (sum, b) in sums.iter_mut().zip(b) {
                                *sum += a[0] * widen(b[0]) + a[1] * widen(b[1]);
                            }
                        }
                        out.write_unaligned(sums);
                    }
                }
            }
        },
    );
}
