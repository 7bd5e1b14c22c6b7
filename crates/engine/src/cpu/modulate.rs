//! The modulation of attention's output by gene fitness (docs/genetic-attention.md, section 2).

use std::ops::Range;

use rayon::prelude::*;

use super::math::{LANES, vectorised};
use super::matmul::{ROWS_AHEAD, Source, View};
use super::parallel::{Block, SharedMatrix};
use crate::kernels::Modulation;
use crate::ops::modulate::Modulate;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// How rows and heads of `x` find their fitness.
struct Layout {
    columns: usize,
    fitness_columns: usize,
    head_dim: usize,
    group: usize,
    per_token: bool,
}

impl Layout {
    fn new(x: &Tensor, fitness: &Tensor, sequences: &Sequences, head_dim: usize) -> Self {
        Layout {
            columns: x.columns(),
            fitness_columns: fitness.columns(),
            head_dim,
            group: x.columns() / fitness.columns(),
            per_token: fitness.rows() != sequences.len(),
        }
    }

    /// The row of `fitness` for a token of sequence `s`.
    #[inline(always)]
    fn fitness_row(&self, s: usize, token: usize) -> usize {
        if self.per_token { token } else { s }
    }

    /// Each query head's columns in `x` and in `fitness`.
    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = (usize, usize)> {
        let (d, group) = (self.head_dim, self.group);
        (0..self.columns / d).map(move |head| (head * d, head / group * d))
    }
}

/// The fitness of one kv head of one sequence.
pub struct HeadFitness<'a> {
    /// `γ` `[d]`
    pub gamma: &'a [f32],
    scale: f32,
}

impl<'a> HeadFitness<'a> {
    pub fn new(modulation: &Modulation<'a>, s: usize, columns: &Range<usize>) -> Self {
        let Modulation { fitness, options, .. } = *modulation;
        HeadFitness { gamma: &fitness.data()[s * fitness.columns()..][columns.clone()], scale: options.scale }
    }

    /// What each column of the head is multiplied by.
    pub fn factors<'r>(&self, factors: &'r mut [f32]) -> &'r [f32] {
        factors.iter_mut().zip(self.gamma).for_each(|(factor, gamma)| *factor = self.scale * gamma);
        factors
    }

    /// The gradient of what was modulated of a query head, from that of the output, both `[T, d]`.
    pub fn backward(&self, dout: View<'_>, dmixed: &mut [f32]) {
        let d = self.gamma.len();
        vectorised(
            #[inline(always)]
            || {
                for (row, dmixed) in dmixed.chunks_exact_mut(d).enumerate() {
                    dout.prefetch(row + ROWS_AHEAD, 0, d);
                    let terms = dmixed.iter_mut().zip(dout.row(row)).zip(self.gamma);
                    terms.for_each(|((dmixed, &dout), gamma)| *dmixed = self.scale * gamma * dout);
                }
            },
        );
    }

    /// The gradient in the fitness, from the values and their gradient through attention: since the output is linear in
    /// the values, and in the fitness, `γ · dγ = Σ_t out · dout = Σ_i V · dV`.
    pub fn gradient(&self, values: View<'_>, dvalues: &mut Block<'_>, dgamma: &mut [f32]) {
        /// Columns whose sums stay in registers.
        const AT_ONCE: usize = 2 * LANES;
        vectorised(
            #[inline(always)]
            || {
                let (whole, rest) = dgamma.as_chunks_mut::<AT_ONCE>();
                let begin = whole.len() * AT_ONCE;
                for (chunk, sums) in whole.iter_mut().enumerate() {
                    let mut lanes = [0.0; AT_ONCE];
                    for token in 0..dvalues.rows() {
                        let rows = [values.row(token), &*dvalues.row(token)];
                        let [values, dvalues] = rows.map(|row| &row.as_chunks::<AT_ONCE>().0[chunk]);
                        for i in 0..AT_ONCE {
                            lanes[i] += values[i] * dvalues[i];
                        }
                    }
                    *sums = lanes;
                }
                rest.fill(0.0);
                for token in 0..dvalues.rows() {
                    let rows = values.row(token)[begin..].iter().zip(&dvalues.row(token)[begin..]);
                    rest.iter_mut().zip(rows).for_each(|(sum, (&value, &dvalue))| *sum += value * dvalue);
                }
                dgamma.iter_mut().zip(self.gamma).for_each(|(sum, gamma)| *sum /= gamma);
            },
        );
    }
}

pub fn forward(x: &Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate, out: &mut Tensor) {
    out.data_mut().copy_from_slice(x.data());
    in_place(out, fitness, sequences, options);
}

/// Modulates `out` itself.
pub fn in_place(out: &mut Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate) {
    let Modulate { head_dim, scale } = *options;
    let layout = Layout::new(out, fitness, sequences, head_dim);
    let fitness = fitness.data();
    let out = SharedMatrix::new(out.data_mut(), layout.columns);
    (0..sequences.len()).into_par_iter().for_each(|s| {
        let tokens = sequences.range(s);
        // SAFETY: each sequence has rows of its own.
        let mut out = unsafe { out.block(tokens.clone(), 0..layout.columns) };
        vectorised(
            #[inline(always)]
            || {
                for (position, token) in tokens.enumerate() {
                    let gamma = &fitness[layout.fitness_row(s, token) * layout.fitness_columns..];
                    let out = out.row(position);
                    for (begin, kv) in layout.heads() {
                        for (out, &gamma) in out[begin..begin + head_dim].iter_mut().zip(&gamma[kv..kv + head_dim]) {
                            *out *= scale * gamma;
                        }
                    }
                }
            },
        );
    });
}

pub fn backward(
    x: &Tensor,
    fitness: &Tensor,
    sequences: &Sequences,
    options: &Modulate,
    dout: &Tensor,
    gradients: [&mut Tensor; 2],
) {
    gradients_of(x, |x, _| options.scale * x, fitness, sequences, options, dout, gradients);
}

/// The same from the modulated output `scale · γ ⊙ x`.
pub fn backward_from_output(
    out: &Tensor,
    fitness: &Tensor,
    sequences: &Sequences,
    options: &Modulate,
    dout: &Tensor,
    gradients: [&mut Tensor; 2],
) {
    gradients_of(out, |out, gamma| out / gamma, fitness, sequences, options, dout, gradients);
}

/// `scaled` gives `scale · x` from an element of `x` and its fitness.
#[inline(always)]
fn gradients_of(
    x: &Tensor,
    scaled: impl Fn(f32, f32) -> f32 + Sync,
    fitness: &Tensor,
    sequences: &Sequences,
    options: &Modulate,
    dout: &Tensor,
    [dx, dfitness]: [&mut Tensor; 2],
) {
    let Modulate { head_dim, scale } = *options;
    let layout = Layout::new(x, fitness, sequences, head_dim);
    let (x, fitness, dout) = (x.data(), fitness.data(), dout.data());
    let dx = SharedMatrix::new(dx.data_mut(), layout.columns);
    let dfitness = SharedMatrix::new(dfitness.data_mut(), layout.fitness_columns);
    (0..sequences.len()).into_par_iter().for_each(|s| {
        let tokens = sequences.range(s);
        let rows = if layout.per_token { tokens.clone() } else { s..s + 1 };
        // SAFETY: each sequence has rows of its own, in both gradients.
        let (mut dx, mut dfitness) = unsafe {
            (dx.block(tokens.clone(), 0..layout.columns), dfitness.block(rows.clone(), 0..layout.fitness_columns))
        };
        vectorised(
            #[inline(always)]
            || {
                (0..rows.len()).for_each(|row| dfitness.row(row).fill(0.0));
                for (position, token) in tokens.enumerate() {
                    let row = layout.fitness_row(s, token);
                    let gamma = &fitness[row * layout.fitness_columns..][..layout.fitness_columns];
                    let (x, dout) = (&x[token * layout.columns..], &dout[token * layout.columns..]);
                    let (dx, dgamma) = (dx.row(position), dfitness.row(row - rows.start));
                    for (begin, kv) in layout.heads() {
                        let (dx, dgamma) = (&mut dx[begin..begin + head_dim], &mut dgamma[kv..kv + head_dim]);
                        let (x, dout) = (&x[begin..begin + head_dim], &dout[begin..begin + head_dim]);
                        let gamma = &gamma[kv..kv + head_dim];
                        for g in 0..head_dim {
                            dx[g] = scale * gamma[g] * dout[g];
                            dgamma[g] += scaled(x[g], gamma[g]) * dout[g];
                        }
                    }
                }
            },
        );
    });
}
