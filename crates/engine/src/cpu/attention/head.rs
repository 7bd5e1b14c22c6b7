//! One head of one sequence, a panel of queries at a time; what the way back adds up over queries, a block of panels.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use crate::cpu::dropout::blocks_per_row;
use crate::cpu::math::{self, LANES};
use crate::cpu::matmul::{
    Depth, Finished, PADDING, PanelRows, Panels, Products, TILE, Unit, View, left_here, multiply_here, right_here,
    scratch_len, with_panels,
};
use crate::cpu::parallel::{Block, prefetch};
use crate::cpu::rows::{self, Drops, Parts, soften, soften_backward};
use crate::ops::attention::{Attention, AttentionDropout};
use crate::random::{Stream, threshold};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// Queries whose probabilities are in memory at once on the way back: whole panels of every unit.
const QUERIES: usize = 96;

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

    /// Asks for a token's columns that follow this head's to be brought into the cache: the next head takes them.
    #[inline(always)]
    fn prefetch_next_head(&self, row: usize, qkv: [&Tensor; 3]) {
        for (x, columns) in qkv.into_iter().zip([&self.query, &self.key, &self.key]) {
            let at = (self.rows.start + row) * x.columns() + columns.end;
            prefetch(x.data().as_ptr().wrapping_add(at), columns.len());
        }
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
        let (scale, apart) = (self.scale() * LOG2_E, seen + PADDING);
        with_panels::<U, _, 4, 2>(lens, [U::ROWS * apart, U::ROWS * width], |panels, [scores, mixed]| {
            let [queries, keys, values, powers] = panels;
            let queries = left_here::<U>(&self.view(q, &(0..t), &self.query), Depth::Columns, queries);
            let keys = right_here::<U>(&self.view(k, &(0..t), &self.key), Depth::Columns, keys);
            let values = right_here::<U>(&self.view(v, &(0..t), &self.key), Depth::Rows, values);
            let mut powers = PanelRows::<U> { data: powers, depth: t };
            let mut parts = [Parts([0.0; LANES]); TILE];
            // SAFETY: all operands but `powers` are packed; what follows makes no other product.
            let products = unsafe { Products::<U>::begin() };
            for (panel, first) in (0..t).step_by(U::ROWS).enumerate() {
                let rows = first..t.min(first + U::ROWS);
                products.of_panel(queries, panel, keys, scores, apart);
                let sums = U::vectorised(
                    #[inline(always)]
                    || {
                        for (place, row) in rows.clone().enumerate() {
                            parts[place] = rows::parts_of_max(&scores[place * apart..][..self.visible(row)]);
                        }
                        let maxima: [f32; TILE] = rows::maxima(&parts[..rows.len()]);
                        for (place, row) in rows.clone().enumerate() {
                            self.prefetch_next_head(row, [q, k, v]);
                            out.prefetch(row);
                            let scores = &mut scores[place * apart..][..seen];
                            let (of_row, visible, drops) = ([maxima[place], scale], self.visible(row), self.drops(row));
                            parts[place] = soften(scores, of_row, visible, drops, U::PRECISION);
                            powers.write(place, scores);
                        }
                        let sums: [f32; TILE] = rows::sums(&parts[..rows.len()]);
                        let mut logarithms = sums;
                        for sum in &mut logarithms {
                            *sum = math::ln(*sum);
                        }
                        for (place, row) in rows.clone().enumerate() {
                            lse.row(row)[0] = maxima[place] * scale * LN_2 + logarithms[place];
                        }
                        sums
                    },
                );
                products.of_panel(powers.panels(rows.len()), 0, values, mixed, width);
                U::vectorised(
                    #[inline(always)]
                    || {
                        // A query's sum divides its output, which is shorter than its powers.
                        let shares = sums.map(|sum| kept / sum);
                        for ((row, mixed), share) in rows.zip(mixed.chunks_exact(width)).zip(shares) {
                            write_scaled(out.row(row), mixed, share, factors);
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
        let (t, d) = (self.len(), self.head_dim());
        let [seen, width] = [t, d].map(|columns| columns.next_multiple_of(U::COLUMNS));
        let at_once = t.min(QUERIES).next_multiple_of(U::ROWS);
        let whole = scratch_len::<U>(t, d);
        let of_panel = scratch_len::<U>(U::ROWS, t);
        let of_block = [t, d].map(|extent| scratch_len::<U>(extent, at_once));
        let lens = [whole, whole, whole, whole, scratch_len::<U>(d, t), of_panel, of_block[0], of_block[1]];
        let numbers = [U::ROWS * seen, at_once * seen, at_once * seen, U::ROWS * width];
        with_panels::<U, _, 8, 4>(lens, numbers, |panels, [p, dropped, ds, mixed]| {
            let [queries, douts, keys, values, keys_again, by_row, left, right] = panels;
            let [of_q, of_k, of_v] =
                [(q, &self.query), (k, &self.key), (v, &self.key)].map(|(x, columns)| self.view(x, &(0..t), columns));
            let operands = Backward::<U> {
                queries: left_here(&of_q, Depth::Columns, queries),
                douts: left_here(&dout, Depth::Columns, douts),
                keys: right_here(&of_k, Depth::Columns, keys),
                values: right_here(&of_v, Depth::Columns, values),
                keys_again: right_here(&of_k, Depth::Rows, keys_again),
            };
            let mut by_row = PanelRows { data: by_row, depth: t };
            let log2_sum = |row: usize| lse.data()[(self.rows.start + row) * self.options.n_heads + head] * LOG2_E;
            for block in self.blocks() {
                // SAFETY: all operands but `by_row` are packed; no other product is made before the end of this one.
                let products = unsafe { Products::begin() };
                let of_panels = dropped.chunks_exact_mut(U::ROWS * seen).zip(ds.chunks_exact_mut(U::ROWS * seen));
                for (begin, (dropped, ds)) in block.clone().step_by(U::ROWS).zip(of_panels) {
                    let queries = begin..block.end.min(begin + U::ROWS);
                    let rows = [&mut *p, dropped, ds, &mut *mixed];
                    self.panel_backward(&products, &operands, queries, rows, &mut by_row, log2_sum, dq);
                }
                drop(products);
                let (add, filled) = (!first || block.start > 0, block.len() * seen);
                let [dropped, ds] = [&dropped[..filled], &ds[..filled]].map(|x| View::rows_of(x, seen, t));
                let [q, dout] = [of_q, dout].map(|x| x.part(&block, &(0..d)));
                let dout = right_here::<U>(&dout, Depth::Rows, right);
                multiply_here(left_here(&dropped, Depth::Rows, left), dout, write_block(dv, 1.0, add));
                let q = right_here::<U>(&q, Depth::Rows, right);
                multiply_here(left_here(&ds, Depth::Rows, left), q, write_block(dk, self.scale(), add));
            }
        });
    }

    /// Of one panel of queries: the probabilities after dropout, the gradient of the scores, and dq.
    #[expect(clippy::too_many_arguments, reason = "the places of one pass")]
    fn panel_backward<U: Unit>(
        &self,
        products: &Products<U>,
        operands: &Backward<'_, U>,
        queries: Range<usize>,
        [p, dropped, ds, mixed]: [&mut [f32]; 4],
        by_row: &mut PanelRows<'_, U>,
        log2_sum: impl Fn(usize) -> f32,
        dq: &mut Block<'_>,
    ) {
        let (panel, seen, width) = (queries.start / U::ROWS, p.len() / U::ROWS, mixed.len() / U::ROWS);
        products.of_panel(operands.queries, panel, operands.keys, p, seen);
        products.of_panel(operands.douts, panel, operands.values, ds, seen);
        U::vectorised(
            #[inline(always)]
            || {
                let rows = p.chunks_exact_mut(seen).zip(dropped.chunks_exact_mut(seen)).zip(ds.chunks_exact_mut(seen));
                for (place, (row, ((p, dropped), ds))) in queries.clone().zip(rows).enumerate() {
                    let (scale, visible) = (self.scale() * LOG2_E, self.visible(row));
                    soften_backward([p, dropped, &mut *ds], scale, visible, log2_sum(row), self.drops(row));
                    by_row.write(place, ds);
                }
            },
        );
        products.of_panel(by_row.panels(queries.len()), 0, operands.keys_again, mixed, width);
        U::vectorised(
            #[inline(always)]
            || {
                for (row, mixed) in queries.zip(mixed.chunks_exact(width)) {
                    write_scaled(dq.row(row), mixed, self.scale(), None);
                }
            },
        );
    }
}

/// What the way back multiplies by.
struct Backward<'a, U: Unit> {
    queries: Panels<'a, U>,
    douts: Panels<'a, U>,
    keys: Panels<'a, U>,
    values: Panels<'a, U>,
    keys_again: Panels<'a, U>,
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

/// Stores a product times a factor in a block, or adds it to what is there.
fn write_block(out: &mut Block<'_>, factor: f32, add: bool) -> impl FnMut(Finished<'_>) {
    #[inline(always)]
    move |part: Finished<'_>| {
        for row in part.rows.clone() {
            let out = &mut out.row(row)[part.columns.clone()];
            if add {
                out.iter_mut().zip(part.row(row)).for_each(|(out, &x)| *out += factor * x);
            } else {
                out.iter_mut().zip(part.row(row)).for_each(|(out, &x)| *out = factor * x);
            }
        }
    }
}
