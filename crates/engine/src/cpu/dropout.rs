//! Dropout with draws named by sequence, position and feature.

use rayon::prelude::*;

use super::math::vectorised;
use crate::ops::residual_norm::ResidualDropout;
use crate::random::{Site, Stream, threshold};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// Draws taken at once: enough for vector registers, few enough for the stack.
const DRAWS: usize = 256;

/// A row of 0 or `factor / (1 − probability)`, element `i` by the draw `i` of the blocks from `first` on.
#[inline(always)]
pub fn mask_row(stream: &Stream, first: u32, probability: f32, factor: f32, mask: &mut [f32]) {
    let (threshold, kept) = (threshold(probability), factor / (1.0 - probability));
    let mut draws = [0; DRAWS];
    for (index, chunk) in mask.chunks_mut(DRAWS).enumerate() {
        let draws = &mut draws[..chunk.len()];
        stream.fill(first + (index * DRAWS / 4) as u32, draws);
        for (mask, &draw) in chunk.iter_mut().zip(&*draws) {
            *mask = if draw < threshold { 0.0 } else { kept };
        }
    }
}

/// Blocks of four draws that a row of `columns` elements takes.
pub fn blocks_per_row(columns: usize) -> u32 {
    columns.div_ceil(4) as u32
}

/// What dropout multiplies each row of `[N, columns]` by.
pub struct Masks<'a> {
    dropout: Option<(&'a Sequences, ResidualDropout)>,
    blocks: u32,
}

impl<'a> Masks<'a> {
    /// Of rows of `columns` elements; all 1 without dropout.
    pub fn new(dropout: Option<(&'a Sequences, ResidualDropout)>, columns: usize) -> Self {
        Masks { dropout, blocks: blocks_per_row(columns) }
    }

    /// All 1.
    pub fn none() -> Self {
        Masks { dropout: None, blocks: 0 }
    }

    /// Whether they leave all as it is.
    pub fn are_all_1(&self) -> bool {
        self.dropout.is_none()
    }

    /// Those of a row.
    #[inline(always)]
    pub fn row(&self, row: usize, mask: &mut [f32]) {
        let Some((sequences, ResidualDropout { probability, site })) = self.dropout else { return mask.fill(1.0) };
        let bounds = sequences.cu_seqlens().data();
        let sequence = bounds.partition_point(|&begin| begin as usize <= row) - 1;
        let stream = site.stream(sequences.ids().data()[sequence], 0, 0);
        mask_row(&stream, (row as u32 - bounds[sequence]) * self.blocks, probability, 1.0, mask);
    }
}

pub fn dropout(x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor) {
    let columns = x.columns();
    let x = x.data();
    let masks = Masks::new(Some((sequences, ResidualDropout { probability, site })), columns);
    out.data_mut().par_chunks_mut(columns).enumerate().with_min_len(8).for_each(|(row, out)| {
        vectorised(
            #[inline(always)]
            || {
                masks.row(row, out);
                for (out, &x) in out.iter_mut().zip(&x[row * columns..]) {
                    *out *= x;
                }
            },
        );
    });
}
