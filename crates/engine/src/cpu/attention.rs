//! Softmax attention within each sequence, head by head.
//!
//! The backward pass computes the probabilities again from the saved log-sum-exp (as FlashAttention does), so that
//! memory grows with the number of tokens and not with the squares of the lengths.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::dropout::{blocks_per_row, mask_row};
use super::math::{self, vectorised};
use super::matmul::{Strided, product};
use super::parallel::{Block, SharedMatrix};
use super::softmax::exponentiate;
use crate::ops::attention::Attention;
use crate::random::Stream;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of unspecified contents that the thread keeps for the next time.
fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with(|scratch| {
        let mut buffer = scratch.take();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        let result = f(&mut buffer[..len]);
        scratch.replace(buffer);
        result
    })
}

/// One query head of one sequence.
struct Head<'a> {
    options: &'a Attention,
    stream: Option<Stream>,
    rows: Range<usize>,
    query: Range<usize>,
    key: Range<usize>,
}

impl<'a> Head<'a> {
    fn new(options: &'a Attention, sequences: &Sequences, s: usize, head: usize, head_dim: usize) -> Self {
        let kv_head = head / (options.n_heads / options.n_kv_heads);
        Head {
            options,
            stream: options.dropout.map(|dropout| dropout.site.stream(sequences.ids().data()[s], head as u32, 0)),
            rows: sequences.range(s),
            query: head * head_dim..(head + 1) * head_dim,
            key: kv_head * head_dim..(kv_head + 1) * head_dim,
        }
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn head_dim(&self) -> usize {
        self.query.len()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim() as f32).sqrt()
    }

    fn strided(&self, x: &Tensor, columns: &Range<usize>) -> Strided {
        Strided::rows(x.data()[self.rows.start * x.columns() + columns.start..].as_ptr(), x.columns())
    }

    /// How many keys the query at `row` sees.
    #[inline(always)]
    fn visible(&self, row: usize) -> usize {
        if self.options.causal { row + 1 } else { self.len() }
    }

    /// `out = Q Kᵀ / √d`
    fn scores(&self, [q, k, _]: [&Tensor; 3], out: &mut [f32]) {
        let (t, d) = (self.len(), self.head_dim());
        let (q, k) = (self.strided(q, &self.query), self.strided(k, &self.key));
        // SAFETY: q and k are views inside their tensors, out holds t × t elements.
        unsafe { product([t, t, d], self.scale(), q, k.transposed(), (out.as_mut_ptr(), t), false) }
    }

    /// Applies attention dropout to a row; its own gradient.
    #[inline(always)]
    fn drop_out(&self, row: usize, values: &mut [f32]) {
        if let (Some(stream), Some(dropout)) = (&self.stream, self.options.dropout) {
            mask_row(stream, row as u32 * blocks_per_row(self.len()), dropout.probability, values);
        }
    }

    fn forward(&self, qkv: [&Tensor; 3], mut out: Block<'_>, mut lse: Block<'_>) {
        let (t, d) = (self.len(), self.head_dim());
        with_scratch(t * t, |scores| {
            self.scores(qkv, scores);
            vectorised(
                #[inline(always)]
                || {
                    for (row, scores) in scores.chunks_exact_mut(t).enumerate() {
                        let (seen, unseen) = scores.split_at_mut(self.visible(row));
                        let (max, sum) = exponentiate(seen);
                        seen.iter_mut().for_each(|p| *p /= sum);
                        unseen.fill(0.0);
                        lse.row(row)[0] = max + sum.ln();
                        self.drop_out(row, scores);
                    }
                },
            );
            let probabilities = Strided::rows(scores.as_ptr(), t);
            // SAFETY: v is a view inside its tensor, out is this head's block of t × d.
            unsafe { product([t, d, t], 1.0, probabilities, self.strided(qkv[2], &self.key), out.as_mut_ptr(), false) }
        });
    }

    /// `gradients`: dq of this head; dk and dv of its kv head, added to unless this is the group's `first` head.
    fn backward(
        &self,
        qkv: [&Tensor; 3],
        lse: &Tensor,
        head: usize,
        dout: &Tensor,
        [dq, dk, dv]: [&mut Block<'_>; 3],
        first: bool,
    ) {
        let (t, d) = (self.len(), self.head_dim());
        with_scratch(3 * t * t, |scratch| {
            let (p, rest) = scratch.split_at_mut(t * t);
            let (dropped, dp) = rest.split_at_mut(t * t);
            self.scores(qkv, p);
            let (dout, v) = (self.strided(dout, &self.query), self.strided(qkv[2], &self.key));
            // SAFETY: dout and v are views inside their tensors, dp holds t × t elements.
            unsafe { product([t, t, d], 1.0, dout, v.transposed(), (dp.as_mut_ptr(), t), false) };
            vectorised(
                #[inline(always)]
                || {
                    let rows = p.chunks_exact_mut(t).zip(dropped.chunks_exact_mut(t)).zip(dp.chunks_exact_mut(t));
                    for (row, ((p, dropped), dp)) in rows.enumerate() {
                        let lse = lse.data()[(self.rows.start + row) * self.options.n_heads + head];
                        self.row_gradient(row, lse, p, dropped, dp);
                    }
                },
            );
            let (dropped, ds) = (Strided::rows(dropped.as_ptr(), t), Strided::rows(dp.as_ptr(), t));
            let (q, k) = (self.strided(qkv[0], &self.query), self.strided(qkv[1], &self.key));
            // SAFETY: inputs are views inside their tensors or scratch; outputs are this task's own blocks of t × d.
            unsafe {
                product([t, d, t], 1.0, dropped.transposed(), dout, dv.as_mut_ptr(), !first);
                product([t, d, t], self.scale(), ds, k, dq.as_mut_ptr(), false);
                product([t, d, t], self.scale(), ds.transposed(), q, dk.as_mut_ptr(), !first);
            }
        });
    }

    /// From scores `p` and `dp = dO Vᵀ`: the probabilities after dropout in `dropped`, the scores' gradient in `dp`.
    #[inline(always)]
    fn row_gradient(&self, row: usize, lse: f32, p: &mut [f32], dropped: &mut [f32], dp: &mut [f32]) {
        let seen = self.visible(row);
        for p in &mut p[..seen] {
            *p = math::exp(*p - lse);
        }
        p[seen..].fill(0.0);
        dropped.copy_from_slice(p);
        self.drop_out(row, dropped);
        self.drop_out(row, dp);
        let mean = math::dot(p, dp);
        for (dp, &p) in dp.iter_mut().zip(&*p) {
            *dp = p * (*dp - mean);
        }
    }
}

pub fn forward(qkv: [&Tensor; 3], sequences: &Sequences, options: &Attention, out: &mut Tensor, lse: &mut Tensor) {
    let (columns, n_heads) = (qkv[0].columns(), options.n_heads);
    let head_dim = columns / n_heads;
    let out = SharedMatrix::new(out.data_mut(), columns);
    let lse = SharedMatrix::new(lse.data_mut(), n_heads);
    (0..sequences.len() * n_heads).into_par_iter().for_each(|task| {
        let (s, head) = (task / n_heads, task % n_heads);
        let work = Head::new(options, sequences, s, head, head_dim);
        // SAFETY: each sequence and head is one task's, and their blocks are disjoint.
        let (out, lse) =
            unsafe { (out.block(work.rows.clone(), work.query.clone()), lse.block(work.rows.clone(), head..head + 1)) };
        work.forward(qkv, out, lse);
    });
}

pub fn backward(
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    lse: &Tensor,
    dout: &Tensor,
    [dq, dk, dv]: [&mut Tensor; 3],
) {
    let head_dim = qkv[0].columns() / options.n_heads;
    let kv_columns = qkv[1].columns();
    let group = options.n_heads / options.n_kv_heads;
    let dq = SharedMatrix::new(dq.data_mut(), qkv[0].columns());
    let dk = SharedMatrix::new(dk.data_mut(), kv_columns);
    let dv = SharedMatrix::new(dv.data_mut(), kv_columns);
    (0..sequences.len() * options.n_kv_heads).into_par_iter().for_each(|task| {
        let (s, kv_head) = (task / options.n_kv_heads, task % options.n_kv_heads);
        for head in kv_head * group..(kv_head + 1) * group {
            let work = Head::new(options, sequences, s, head, head_dim);
            // SAFETY: each sequence and kv head, with the query heads that share it, is one task's.
            let mut blocks = unsafe {
                [
                    dq.block(work.rows.clone(), work.query.clone()),
                    dk.block(work.rows.clone(), work.key.clone()),
                    dv.block(work.rows.clone(), work.key.clone()),
                ]
            };
            work.backward(qkv, lse, head, dout, blocks.each_mut(), head == kv_head * group);
        }
    });
}
