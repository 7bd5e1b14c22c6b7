//! One head of one sequence: forward a panel of queries at a time, back a block of them.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use crate::cpu::dropout::blocks_per_row;
use crate::cpu::math::vectorised;
use crate::cpu::matmul::{
    Depth, Finished, PanelRows, Products, TILE, Unit, View, left_here, multiply_here, right_here, scratch_len,
    with_panels,
};
use crate::cpu::parallel::Block;
use crate::cpu::rows::{Drops, soften, soften_backward};
use crate::ops::attention::{Attention, AttentionDropout};
use crate::random::{Stream, threshold};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// Queries whose scores are in memory at once on the way back.
const QUERIES: usize = 96;

/// Numbers in the widest vector register.
const LANES: usize = 16;

/// One query head of one sequence.
pub struct Head<'a> {
    options: &'a Attention,
    stream: Option<Stream>,
    /// The sequence's tokens.
    pub rows: Range<usize>,
    /// The head's columns in queries and output.
    pub query: Range<usize>,
    /// Its kv head's columns in keys and values.
    pub key: Range<usize>,
}

impl<'a> Head<'a> {
    pub fn new(options: &'a Attention, sequences: &Sequences, s: usize, head: usize, head_dim: usize) -> Self {
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

    /// Numbers in a row of scores: whole vector registers, filled up with what counts for nothing.
    fn row_len(&self) -> usize {
        self.len().next_multiple_of(LANES)
    }

    /// The sequence's queries in blocks, numbered from its first token.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let len = self.len();
        (0..len).step_by(QUERIES).map(move |begin| begin..len.min(begin + QUERIES))
    }

    /// This head's columns of some of its sequence's rows.
    fn view<'t>(&self, x: &'t Tensor, rows: &Range<usize>, columns: &Range<usize>) -> View<'t> {
        let begin = self.rows.start;
        View::of(x).part(&(begin + rows.start..begin + rows.end), columns)
    }

    /// How many keys the query at `row` sees.
    #[inline(always)]
    fn visible(&self, row: usize) -> usize {
        if self.options.causal { row + 1 } else { self.len() }
    }

    /// What is dropped of the row of one query.
    #[inline(always)]
    fn drops(&self, row: usize) -> Option<Drops<'_>> {
        let (stream, AttentionDropout { probability, .. }) = (self.stream.as_ref()?, self.options.dropout?);
        let first = row as u32 * blocks_per_row(self.len());
        Some(Drops { stream, first, threshold: threshold(probability), kept: 1.0 / (1.0 - probability) })
    }

    /// `factors`, where there are any, are what the output's columns are multiplied by.
    pub fn forward<U: Unit>(
        &self,
        [q, k, v]: [&Tensor; 3],
        factors: Option<&[f32]>,
        mut out: Block<'_>,
        mut lse: Block<'_>,
    ) {
        let (t, d) = (self.len(), self.head_dim());
        let [seen, width] = [t, d].map(|columns| columns.next_multiple_of(U::COLUMNS));
        let lens =
            [scratch_len::<U>(t, d), scratch_len::<U>(t, d), scratch_len::<U>(d, t), scratch_len::<U>(U::ROWS, t)];
        let kept = self.options.dropout.map_or(1.0, |dropout| 1.0 / (1.0 - dropout.probability));
        with_panels::<U, _, 4, 2>(lens, [U::ROWS * seen, U::ROWS * width], |panels, [scores, mixed]| {
            let [queries, keys, values, powers] = panels;
            let queries = left_here::<U>(&self.view(q, &(0..t), &self.query), Depth::Columns, queries);
            let keys = right_here::<U>(&self.view(k, &(0..t), &self.key), Depth::Columns, keys);
            let values = right_here::<U>(&self.view(v, &(0..t), &self.key), Depth::Rows, values);
            let mut powers = PanelRows::<U> { data: powers, depth: t };
            // SAFETY: all operands but `powers` are packed; what follows makes no other product.
            let products = unsafe { Products::<U>::begin() };
            for (panel, first) in (0..t).step_by(U::ROWS).enumerate() {
                let rows = first..t.min(first + U::ROWS);
                // What a query's powers of its scores are multiplied by; it waits for the output, which is shorter.
                let mut of_rows = [0.0; TILE];
                products.of_panel(queries, panel, keys, scores, seen);
                vectorised(
                    #[inline(always)]
                    || {
                        for (place, row) in rows.clone().enumerate() {
                            let scores = &mut scores[place * seen..][..seen];
                            let (max, sum) = soften(scores, self.scale() * LOG2_E, self.visible(row), self.drops(row));
                            powers.write(place, scores);
                            lse.row(row)[0] = max * LN_2 + sum.ln();
                            of_rows[place] = kept / sum;
                        }
                    },
                );
                products.of_panel(powers.panels(rows.len()), 0, values, mixed, width);
                vectorised(
                    #[inline(always)]
                    || {
                        for ((row, mixed), factor) in rows.zip(mixed.chunks_exact(width)).zip(of_rows) {
                            write_scaled(out.row(row), mixed, factor, factors);
                        }
                    },
                );
            }
        });
    }

    /// From the gradient of its output: dq of this head; dk and dv of its kv head, added to unless this is the group's
    /// `first` head.
    pub fn backward<U: Unit>(
        &self,
        [q, k, v]: [&Tensor; 3],
        lse: &Tensor,
        head: usize,
        dout: View<'_>,
        [dq, dk, dv]: [&mut Block<'_>; 3],
        first: bool,
    ) {
        let (t, d, row_len) = (self.len(), self.head_dim(), self.row_len());
        let queries = t.min(QUERIES);
        let (by_key, by_depth) = (scratch_len::<U>(t, d), scratch_len::<U>(d, t));
        let left = scratch_len::<U>(queries, d.max(t)).max(scratch_len::<U>(t, queries));
        let lens = [by_key, by_key, by_depth, left, scratch_len::<U>(d, queries)];
        with_panels::<U, _, 5, 3>(
            lens,
            [queries * row_len, queries * row_len, queries * row_len],
            |panels, [p, dropped, ds]| {
                let [keys, values, keys_again, left, right] = panels;
                let whole = |x| self.view(x, &(0..t), &self.key);
                let keys = right_here::<U>(&whole(k), Depth::Columns, keys);
                let values = right_here::<U>(&whole(v), Depth::Columns, values);
                let keys_again = right_here::<U>(&whole(k), Depth::Rows, keys_again);
                for block in self.blocks() {
                    let len = block.len() * row_len;
                    let (p, dropped, ds) = (&mut p[..len], &mut dropped[..len], &mut ds[..len]);
                    let add = !first || block.start > 0;
                    let (q, dout) = (self.view(q, &block, &self.query), dout.part(&block, &(0..d)));
                    let scale = self.scale() * LOG2_E;
                    multiply_here(left_here::<U>(&q, Depth::Columns, left), keys, write(p, row_len, scale));
                    multiply_here(left_here::<U>(&dout, Depth::Columns, left), values, write(ds, row_len, 1.0));
                    vectorised(
                        #[inline(always)]
                        || {
                            let rows = p.chunks_exact_mut(row_len).zip(dropped.chunks_exact_mut(row_len));
                            let rows = rows.zip(ds.chunks_exact_mut(row_len));
                            for (row, ((p, dropped), ds)) in block.clone().zip(rows) {
                                let lse = lse.data()[(self.rows.start + row) * self.options.n_heads + head];
                                soften_backward([p, dropped, ds], self.visible(row), lse * LOG2_E, self.drops(row));
                            }
                        },
                    );
                    let (dropped, ds) = (View::rows_of(dropped, row_len, t), View::rows_of(ds, row_len, t));
                    let dout = right_here::<U>(&dout, Depth::Rows, right);
                    multiply_here(left_here::<U>(&dropped, Depth::Rows, left), dout, write_block(dv, 0, 1.0, add));
                    let q = right_here::<U>(&q, Depth::Rows, right);
                    multiply_here(left_here::<U>(&ds, Depth::Rows, left), q, write_block(dk, 0, self.scale(), add));
                    let ds = left_here::<U>(&ds, Depth::Columns, left);
                    multiply_here(ds, keys_again, write_block(dq, block.start, self.scale(), false));
                }
            },
        );
    }
}

/// Stores a product times a factor in rows of `columns`.
fn write(out: &mut [f32], columns: usize, factor: f32) -> impl FnMut(Finished<'_>) + '_ {
    #[inline(always)]
    move |part: Finished<'_>| {
        for row in part.rows.clone() {
            let out = &mut out[row * columns..][part.columns.clone()];
            out.iter_mut().zip(part.row(row)).for_each(|(out, &x)| *out = factor * x);
        }
    }
}

/// Stores a row times its factor, and each column times its own, if they have any.
#[inline(always)]
fn write_scaled(out: &mut [f32], row: &[f32], factor: f32, of_columns: Option<&[f32]>) {
    let terms = out.iter_mut().zip(row);
    match of_columns {
        None => terms.for_each(|(out, &x)| *out = factor * x),
        Some(of_columns) => terms.zip(of_columns).for_each(|((out, &x), of_column)| *out = factor * x * of_column),
    }
}

/// Stores a product times a factor in the rows of a block from `begin` on, or adds it to them.
fn write_block(out: &mut Block<'_>, begin: usize, factor: f32, add: bool) -> impl FnMut(Finished<'_>) {
    #[inline(always)]
    move |part: Finished<'_>| {
        for row in part.rows.clone() {
            let out = &mut out.row(begin + row)[part.columns.clone()];
            if add {
                out.iter_mut().zip(part.row(row)).for_each(|(out, &x)| *out += factor * x);
            } else {
                out.iter_mut().zip(part.row(row)).for_each(|(out, &x)| *out = factor * x);
            }
        }
    }
}
