//! What this machine can do at most, measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::matmul::{Depth, Operands, TILE, Unit, UnitName, with_unit};
use super::scratch::with_scratch;
use crate::memory::Memory;
use crate::precision::Precision;

/// How often the matrix unit is kept busy for how long; the fastest time counts, as other programs only slow it down.
const WINDOWS: usize = 20;
const BUSY: Duration = Duration::from_millis(5);
/// Bytes of the right panel that is multiplied, and of the left one at most: both stay in the first-level cache.
const PANEL_BYTES: usize = 16 * 1024;
/// Numbers that are streamed through: 256 MB, more than caches hold.
const STREAMED: usize = 64 << 20;
const PART: usize = 64 * 1024;
/// How often memory is gone through; the fastest counts.
const REPETITIONS: usize = 5;

/// Operations per second of the matrix unit on all current threads, its operands in the first-level cache.
pub fn matrix_peak(precision: Precision) -> f64 {
    let rates = rayon::broadcast(|_| with_unit!(UnitName::best(precision), U => peak_of_a_thread::<U>()));
    rates.into_iter().sum()
}

fn peak_of_a_thread<U: Unit>() -> f64 {
    let steps = PANEL_BYTES / (U::COLUMNS * U::STEP * size_of::<U::Element>());
    let depth = steps * U::STEP;
    // Not of zeros, which take less power: at that the machine runs faster than with numbers.
    let ones = [[1.0; TILE]; TILE];
    let [mut left, mut right] = [U::ROWS, U::COLUMNS].map(|side| Memory::<U::Element>::new(side * depth));
    for step in left.first_mut(U::ROWS * depth).chunks_exact_mut(U::ROWS * U::STEP) {
        U::place_left(&ones, Depth::Columns, step);
    }
    for step in right.first_mut(U::COLUMNS * depth).chunks_exact_mut(U::COLUMNS * U::STEP) {
        U::place_right(&ones, Depth::Columns, step);
    }
    with_scratch(U::ROWS * U::COLUMNS, |block| {
        let mut window = || {
            let (started, mut products) = (Instant::now(), 0);
            U::begin();
            while started.elapsed() < BUSY {
                for _ in 0..20 {
                    let [left, right] = [left.first(U::ROWS * depth), right.first(U::COLUMNS * depth)];
                    let [left, right] = [left.as_ptr(), right.as_ptr()].map(black_box);
                    let operands = Operands {
                        steps,
                        rows: U::ROWS,
                        left,
                        left_depth: Depth::Columns,
                        right,
                        next: left,
                        share: U::COLUMNS * depth,
                    };
                    // SAFETY: the panels hold `steps` steps, the block as many sums as are written; `begin` was called.
                    unsafe { U::multiply(operands, block.as_mut_ptr(), U::COLUMNS, false) };
                }
                products += 20;
            }
            U::end();
            (2 * products * U::ROWS * U::COLUMNS * depth) as f64 / started.elapsed().as_secs_f64()
        };
        (0..WINDOWS).map(|_| window()).fold(0.0, f64::max)
    })
}

/// Bytes per second between memory and all current threads.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBandwidth {
    /// Reading alone.
    pub read: f64,
    /// Reading and writing back, both counted.
    pub update: f64,
}

/// Measures [`MemoryBandwidth`].
pub fn memory_bandwidth() -> MemoryBandwidth {
    let mut memory = Memory::<f32>::new(STREAMED);
    let data = memory.first_mut(STREAMED);
    data.par_chunks_mut(PART).for_each(|part| part.fill(1.0));
    let bytes = size_of_val(data) as f64;
    let read = fastest(|| {
        let sum = |part: &[f32]| {
            vectorised(
                #[inline(always)]
                || math::sum(part),
            )
        };
        black_box(data.par_chunks(PART).map(sum).collect::<Vec<f32>>());
    });
    let update = fastest(|| data.par_chunks_mut(PART).for_each(|part| part.iter_mut().for_each(|x| *x *= 1.5)));
    MemoryBandwidth { read: bytes / read, update: 2.0 * bytes / update }
}

fn fastest(mut work: impl FnMut()) -> f64 {
    let seconds = (0..REPETITIONS).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}
