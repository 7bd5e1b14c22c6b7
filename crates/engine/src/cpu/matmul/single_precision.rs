//! Single precision: panels of 12 rows and 32 columns, a step of depth after the other.

use super::unit::{Depth, Operands, TILE, Tile, Unit};
use crate::cpu::parallel::prefetch_near;
use crate::precision::Precision;

const ROWS: usize = 12;
const STEP: usize = 16;
/// Numbers that the second-level cache is asked for in a step: what a sixteenth of a right panel's step takes, since at
/// most sixteen left panels share the asking. Of fewer not all are asked for.
const NUMBERS_A_STEP: usize = TILE * STEP / 16;

/// By AVX-512: the block's sums stay in 24 registers.
#[derive(Clone, Copy)]
pub struct Avx512;

/// By AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Avx2;

/// As the compiler does it for any machine.
#[derive(Clone, Copy)]
pub struct Portable;

/// A step in the order of the tile's rows.
#[inline(always)]
fn copy(tile: &Tile, [height, width]: [usize; 2], step: &mut [f32]) {
    for i in 0..height {
        step[i * width..(i + 1) * width].copy_from_slice(&tile[i][..width]);
    }
}

/// A left step is as it is read, and the kernel reads it either way: what it reads are single numbers.
#[inline(always)]
fn place_left(tile: &Tile, depth: Depth, step: &mut [f32]) {
    match depth {
        Depth::Columns => copy(tile, [ROWS, STEP], step),
        Depth::Rows => copy(tile, [STEP, ROWS], step),
    }
}

/// A right step goes down its columns: what the kernel reads are rows of columns.
#[inline(always)]
fn place_right(tile: &Tile, depth: Depth, step: &mut [f32]) {
    match depth {
        Depth::Rows => copy(tile, [STEP, TILE], step),
        Depth::Columns => {
            for at in 0..STEP {
                for column in 0..TILE {
                    step[at * TILE + column] = tile[column][at];
                }
            }
        }
    }
}

macro_rules! single_precision {
    ($unit:ident, $block:ident) => {
        impl Unit for $unit {
            type Element = f32;
            const PRECISION: Precision = Precision::F32;
            const ROWS: usize = ROWS;
            const STEP: usize = STEP;

            #[inline(always)]
            fn place_left(tile: &Tile, depth: Depth, step: &mut [f32]) {
                place_left(tile, depth, step);
            }

            #[inline(always)]
            fn place_row(numbers: &[f32], row: usize, step: &mut [f32]) {
                step[row * STEP..][..STEP].copy_from_slice(numbers);
            }

            #[inline(always)]
            fn place_right(tile: &Tile, depth: Depth, step: &mut [f32]) {
                place_right(tile, depth, step);
            }

            unsafe fn multiply(operands: Operands<f32>, block: *mut f32, stride: usize, accumulate: bool) {
                // SAFETY: as the caller promises.
                unsafe {
                    match operands.left_depth {
                        Depth::Columns => $block::<STEP, 1>(operands, block, stride, accumulate),
                        Depth::Rows => $block::<1, ROWS>(operands, block, stride, accumulate),
                    }
                }
            }
        }
    };
}

single_precision!(Portable, portable);
#[cfg(target_arch = "x86_64")]
single_precision!(Avx2, avx2);
#[cfg(target_arch = "x86_64")]
single_precision!(Avx512, avx512);

/// `ROW` and `DEPTH` are the distances between a left step's rows, and between their numbers in depth.
unsafe fn portable<const ROW: usize, const DEPTH: usize>(
    operands: Operands<f32>,
    block: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: as the caller promises.
    unsafe { some_rows::<4, false, ROW, DEPTH>(operands, block, stride, accumulate) }
}

/// Some rows and sixteen columns at a time, as many sums as the machine has registers for.
#[inline(always)]
unsafe fn some_rows<const AT_ONCE: usize, const FUSED: bool, const ROW: usize, const DEPTH: usize>(
    operands: Operands<f32>,
    block: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    let Operands { steps, left, right, next, .. } = operands;
    for row in (0..ROWS).step_by(AT_ONCE) {
        for column in (0..TILE).step_by(16) {
            // SAFETY: as the caller promises: rows and columns are inside the block and the panels.
            unsafe {
                let out = block.add(row * stride + column);
                let mut sums = [[0.0_f32; 16]; AT_ONCE];
                if accumulate {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        *sums = out.add(i * stride).cast::<[f32; 16]>().read_unaligned();
                    }
                }
                for step in 0..steps {
                    let (left, right) = (left.add(step * ROWS * STEP), right.add(step * TILE * STEP));
                    if row == 0 && column == 0 {
                        prefetch_near(next.wrapping_add(step * NUMBERS_A_STEP), NUMBERS_A_STEP);
                    }
                    for at in 0..STEP {
                        let b = right.add(at * TILE + column).cast::<[f32; 16]>().read_unaligned();
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let a = *left.add((row + i) * ROW + at * DEPTH);
                            for (sum, b) in sums.iter_mut().zip(b) {
                                *sum = if FUSED { a.mul_add(b, *sum) } else { *sum + a * b };
                            }
                        }
                    }
                }
                for (i, sums) in sums.into_iter().enumerate() {
                    out.add(i * stride).cast::<[f32; 16]>().write_unaligned(sums);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use x86::{avx2, avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};

    use super::{NUMBERS_A_STEP, Operands, ROWS, STEP, TILE, prefetch_near, some_rows};

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2<const ROW: usize, const DEPTH: usize>(
        operands: Operands<f32>,
        block: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: as the caller promises.
        unsafe { some_rows::<6, true, ROW, DEPTH>(operands, block, stride, accumulate) }
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn avx512<const ROW: usize, const DEPTH: usize>(
        operands: Operands<f32>,
        block: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: as the caller promises: all reads are in the panels, all writes in the block.
        let Operands { steps, left, right, next, .. } = operands;
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            if accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let at = block.add(row * stride);
                    *sums = [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16))];
                }
            }
            for step in 0..steps {
                let (left, right) = (left.add(step * ROWS * STEP), right.add(step * TILE * STEP));
                prefetch_near(next.wrapping_add(step * NUMBERS_A_STEP), NUMBERS_A_STEP);
                for at in 0..STEP {
                    let right = right.add(at * TILE);
                    let b = [_mm512_loadu_ps(right), _mm512_loadu_ps(right.add(16))];
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = _mm512_set1_ps(*left.add(row * ROW + at * DEPTH));
                        sums[0] = _mm512_fmadd_ps(a, b[0], sums[0]);
                        sums[1] = _mm512_fmadd_ps(a, b[1], sums[1]);
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                let at = block.add(row * stride);
                _mm512_storeu_ps(at, sums[0]);
                _mm512_storeu_ps(at.add(16), sums[1]);
            }
        }
    }
}
