//! Dropout with draws named by sequence, position and feature.

use rayon::prelude::*;

use super::math::vectorised;
use crate::random::{Site, Stream};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// Draws taken at once: enough for vector registers, few enough for the stack.
const DRAWS: usize = 256;

/// The draw below which an element is dropped, of 2³².
pub fn threshold(probability: f32) -> u32 {
    (f64::from(probability) * 4_294_967_296.0) as u32
}

/// Multiplies a row by 0 or `1 / (1 − probability)`, element `i` by the draw `i` of the blocks from `first` on.
#[inline(always)]
pub fn mask_row(stream: &Stream, first: u32, probability: f32, row: &mut [f32]) {
    let (threshold, scale) = (threshold(probability), 1.0 / (1.0 - probability));
    let mut draws = [0; DRAWS];
    for (index, chunk) in row.chunks_mut(DRAWS).enumerate() {
        let draws = &mut draws[..chunk.len()];
        stream.fill(first + (index * DRAWS / 4) as u32, draws);
        for (x, &draw) in chunk.iter_mut().zip(&*draws) {
            *x *= if draw < threshold { 0.0 } else { scale };
        }
    }
}

/// Blocks of four draws that a row of `columns` elements takes.
pub fn blocks_per_row(columns: usize) -> u32 {
    columns.div_ceil(4) as u32
}

pub fn dropout(x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor) {
    let columns = x.columns();
    let x = x.data();
    let bounds = sequences.cu_seqlens().data();
    let blocks = blocks_per_row(columns);
    out.data_mut().par_chunks_mut(columns).enumerate().with_min_len(8).for_each(|(row, out)| {
        let sequence = bounds.partition_point(|&begin| begin as usize <= row) - 1;
        let position = row as u32 - bounds[sequence];
        let stream = site.stream(sequences.ids().data()[sequence], 0, 0);
        vectorised(
            #[inline(always)]
            || {
                out.copy_from_slice(&x[row * columns..][..columns]);
                mask_row(&stream, position * blocks, probability, out);
            },
        );
    });
}
