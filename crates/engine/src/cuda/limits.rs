//! What a GPU can do at most, measured.

use std::sync::Arc;

use cudarc::driver::result::mem_get_info;

use super::context::Context;
use super::error::Calling;
use super::products::{Epilogue, Operand, multiply};
use super::slice::{Kind, Slice};
use crate::cpu::limits::MemoryBandwidth;

/// Rows and columns of the matrices at most, by how fast their products are.
const SIDE: usize = 8192;
const SIDE_F32: usize = 4096;
/// The matrices take at most one part in so many of the memory that is free.
const SHARE_OF_MEMORY: usize = 16;
/// How often each thing is done; the fastest counts.
const REPETITIONS: usize = 8;
/// Bytes that are copied, more than caches hold.
const COPIED: usize = 1 << 30;

/// Seconds of the fastest of some repetitions.
fn fastest(context: &Arc<Context>, mut work: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let began = context.mark();
        work();
        let ended = context.mark();
        if let (Some(began), Some(ended)) = (began, ended) {
            least = least.min(ended.seconds_since(&began));
        }
    }
    if context.has_failed() { f64::NAN } else { least }
}

/// Operations per second of cuBLASLt with random operands: zeros would be faster than any training step's.
pub fn matrix_peak(context: &Arc<Context>, kind: Kind) -> f64 {
    context.enter();
    let (free, _) = context.keep(mem_get_info().calling("cuMemGetInfo")).unwrap_or_default();
    let mut side = if kind == Kind::F32 { SIDE_F32 } else { SIDE };
    while 3 * side * side * kind.size() > free / SHARE_OF_MEMORY && side > 1 {
        side /= 2;
    }
    let [left, right, out] = [(); 3].map(|()| Slice::new(context, kind, side * side));
    let operand = |slice: &Slice| Operand { rows: side, ..slice.operand(side) };
    for (seed, slice) in [(1, &left), (2, &right)] {
        fill_with_numbers(context, slice, seed);
    }
    let seconds = fastest(context, || {
        context.keep(multiply(
            context,
            context.stream(),
            operand(&left),
            operand(&right),
            operand(&out),
            false,
            Epilogue::None,
        ));
    });
    2.0 * (side as f64).powi(3) / seconds
}

/// Numbers of either sign and like size: a part drawn on the host, repeated on the device.
fn fill_with_numbers(context: &Context, slice: &Slice, seed: u32) {
    let bytes = slice.len() * slice.kind().size();
    let part = bytes.min(1 << 22);
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let words: Vec<u32> = (0..part / 4)
        .map(|_| {
            // Xorshift (Marsaglia 2003); sign and significands are random, exponents those of numbers around 1.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state & 0x807F_807F | 0x3F00_3F00
        })
        .collect();
    context.upload(bytemuck::cast_slice(&words), slice.address());
    for begin in (part..bytes).step_by(part) {
        let width = part.min(bytes - begin);
        context.copy_rows(slice.address(), slice.address() + begin as u64, [width; 2], width, 1);
    }
}

/// Of a copy within the GPU, bytes read and bytes written both counted.
pub fn memory_bandwidth(context: &Arc<Context>) -> MemoryBandwidth {
    let [from, to] = [(); 2].map(|()| Slice::new(context, Kind::F32, COPIED / 4));
    context.fill(from.address(), 1, COPIED / 4);
    let seconds = fastest(context, || context.copy_rows(from.address(), to.address(), [COPIED; 2], COPIED, 1));
    let rate = 2.0 * COPIED as f64 / seconds;
    MemoryBandwidth { read: rate, update: rate }
}
