//! Layer norm over rows, alone and of a residual sum.

use rayon::prelude::*;

use super::dropout::Masks;
use super::math::{self, LANES, vectorised};
use super::parallel::{SharedMatrix, rows_per_part};
use super::rows::{self, Parts};
use crate::ops::residual_norm::ResidualDropout;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

pub fn forward(x: &Tensor, gain: &Tensor, bias: &Tensor, epsilon: f32, y: &mut Tensor, statistics: &mut Tensor) {
    let columns = x.columns();
    let affine = [gain.data(), bias.data()];
    let part = rows_per_part(columns);
    let parts = x.data().par_chunks(part * columns).zip(statistics.data_mut().par_chunks_mut(part * 2));
    y.data_mut().par_chunks_mut(part * columns).zip(parts).for_each(|(y, (x, statistics))| {
        vectorised(
            #[inline(always)]
            || {
                let rows = x.chunks(ROWS_AT_ONCE * columns).zip(statistics.chunks_mut(ROWS_AT_ONCE * 2));
                for (y, (x, statistics)) in y.chunks_mut(ROWS_AT_ONCE * columns).zip(rows) {
                    statistics.copy_from_slice(&normalise(x, affine, epsilon, y).as_flattened()[..statistics.len()]);
                }
            },
        );
    });
}

/// The norm of `residual + dropout(x)` in one pass; in `saved` the sum and the norm's statistics.
pub fn residual_forward(
    [x, residual]: [&Tensor; 2],
    dropout: Option<(&Sequences, ResidualDropout)>,
    [gain, bias]: [&Tensor; 2],
    epsilon: f32,
    y: &mut Tensor,
    saved: Option<[&mut Tensor; 2]>,
) {
    let columns = x.columns();
    let masks = Masks::new(dropout, columns);
    let sums = Sums { terms: [x.data(), residual.data()], masks, affine: [gain.data(), bias.data()], epsilon };
    let part = rows_per_part(columns);
    let parts = y.data_mut().par_chunks_mut(part * columns).enumerate();
    let Some([sum, statistics]) = saved else {
        return parts.for_each(|(index, y)| {
            let mut sum = vec![0.0; ROWS_AT_ONCE * columns];
            vectorised(
                #[inline(always)]
                || {
                    for (rows, y) in y.chunks_mut(ROWS_AT_ONCE * columns).enumerate() {
                        sums.norms(index * part + rows * ROWS_AT_ONCE, &mut sum[..y.len()], y);
                    }
                },
            );
        });
    };
    let saved = sum.data_mut().par_chunks_mut(part * columns).zip(statistics.data_mut().par_chunks_mut(part * 2));
    parts.zip(saved).for_each(|((index, y), (sum, statistics))| {
        vectorised(
            #[inline(always)]
            || {
                let saved = sum.chunks_mut(ROWS_AT_ONCE * columns).zip(statistics.chunks_mut(ROWS_AT_ONCE * 2));
                for (rows, (y, (sum, statistics))) in y.chunks_mut(ROWS_AT_ONCE * columns).zip(saved).enumerate() {
                    let found = sums.norms(index * part + rows * ROWS_AT_ONCE, sum, y);
                    statistics.copy_from_slice(&found.as_flattened()[..statistics.len()]);
                }
            },
        );
    });
}

/// What rows are summed of, and how the sums are normalised.
struct Sums<'a> {
    terms: [&'a [f32]; 2],
    masks: Masks<'a>,
    affine: [&'a [f32]; 2],
    epsilon: f32,
}

impl Sums<'_> {
    /// Writes the sums of some rows from `first` on and their norms, and gives each one's mean and 1/deviation.
    #[inline(always)]
    fn norms(&self, first: usize, sums: &mut [f32], y: &mut [f32]) -> [[f32; 2]; ROWS_AT_ONCE] {
        let [gain, _] = self.affine;
        for (row, sum) in (first..).zip(sums.chunks_exact_mut(gain.len())) {
            let [x, residual] = self.terms.map(|terms| &terms[row * sum.len()..][..sum.len()]);
            if self.masks.are_all_1() {
                math::add(residual, x, sum);
            } else {
                self.masks.row(row, sum);
                for (sum, (&x, &residual)) in sum.iter_mut().zip(x.iter().zip(residual)) {
                    *sum = residual + x * *sum;
                }
            }
        }
        normalise(sums, self.affine, self.epsilon, y)
    }
}

/// Rows that are normalised together: one alone would wait for its own mean and deviation.
pub const ROWS_AT_ONCE: usize = 16;

/// Writes the norms of at most [`ROWS_AT_ONCE`] rows, and gives each one's mean and 1/deviation.
#[inline(always)]
pub fn normalise(x: &[f32], [gain, bias]: [&[f32]; 2], epsilon: f32, y: &mut [f32]) -> [[f32; 2]; ROWS_AT_ONCE] {
    assert!(x.len() == y.len() && x.len() <= ROWS_AT_ONCE * gain.len(), "no row is left out");
    let (columns, mut parts) = (gain.len(), [Parts([0.0; LANES]); ROWS_AT_ONCE]);
    let parts = &mut parts[..x.len() / columns];
    for (parts, x) in parts.iter_mut().zip(x.chunks_exact(columns)) {
        *parts = Parts(math::parts_of_sum(x, x, |x, _| x));
    }
    let means = rows::sums::<ROWS_AT_ONCE>(parts).map(|sum| sum / columns as f32);
    for ((parts, x), mean) in parts.iter_mut().zip(x.chunks_exact(columns)).zip(means) {
        *parts = Parts(math::parts_of_sum(x, x, |x, _| (x - mean) * (x - mean)));
    }
    let inverses = rows::sums::<ROWS_AT_ONCE>(parts).map(|sum| 1.0 / (sum / columns as f32 + epsilon).sqrt());
    let found = std::array::from_fn(|row| [means[row], inverses[row]]);
    for ((y, x), [mean, inverse]) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).zip(found) {
        for (((y, &x), &gain), &bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
            *y = (x - mean) * inverse * gain + bias;
        }
    }
    found
}

pub fn backward(x: &Tensor, gain: &Tensor, statistics: &Tensor, dy: &Tensor, [dx, dgain, dbias]: [&mut Tensor; 3]) {
    gradients([x, gain, statistics], dy, Masks::none(), [dx, dgain, dbias], None);
}

/// Gradients of [`residual_forward`]: in `residual`, `gain`, `bias`, and in `x` where it is not the residual's.
pub fn residual_backward(
    saved: [&Tensor; 3],
    dy: &Tensor,
    dropout: Option<(&Sequences, ResidualDropout)>,
    of_norm: [&mut Tensor; 3],
    dx: Option<&mut Tensor>,
) {
    gradients(saved, dy, Masks::new(dropout, saved[0].columns()), of_norm, dx);
}

fn gradients(
    [x, gain, statistics]: [&Tensor; 3],
    dy: &Tensor,
    masks: Masks<'_>,
    [dx, dgain, dbias]: [&mut Tensor; 3],
    masked: Option<&mut Tensor>,
) {
    let (rows, columns) = (x.rows(), x.columns());
    let (x, gain, dy, statistics) = (x.data(), gain.data(), dy.data(), statistics.data());
    let part = 4 * rows_per_part(columns);
    let dx = SharedMatrix::new(dx.data_mut(), columns);
    let masked = masked.map(|masked| SharedMatrix::new(masked.data_mut(), columns));
    let work = |index: usize| {
        let rows = index * part..rows.min((index + 1) * part);
        let mut sums = vec![0.0; 2 * columns];
        // SAFETY: each part has rows of its own, in both.
        let (mut dx, mut masked) = unsafe {
            (dx.block(rows.clone(), 0..columns), masked.as_ref().map(|masked| masked.block(rows.clone(), 0..columns)))
        };
        vectorised(
            #[inline(always)]
            || {
                let (gains, biases) = sums.split_at_mut(columns);
                for (place, row) in rows.enumerate() {
                    let (x, dy) = (&x[row * columns..][..columns], &dy[row * columns..][..columns]);
                    let [mean, inverse] = [statistics[2 * row], statistics[2 * row + 1]];
                    let dx = dx.row(place);
                    row_gradient(x, gain, [mean, inverse], dy, dx);
                    for (((gain, bias), &x), &dy) in gains.iter_mut().zip(&mut *biases).zip(x).zip(dy) {
                        *gain += dy * (x - mean) * inverse;
                        *bias += dy;
                    }
                    if let Some(masked) = &mut masked {
                        let masked = masked.row(place);
                        masks.row(row, masked);
                        for (masked, &dx) in masked.iter_mut().zip(&*dx) {
                            *masked *= dx;
                        }
                    }
                }
            },
        );
        sums
    };
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(part)).into_par_iter().map(work).collect();
    for (out, offset) in [(dgain, 0), (dbias, columns)] {
        let out = out.data_mut();
        out.fill(0.0);
        for sums in &partial {
            for (total, &sum) in out.iter_mut().zip(&sums[offset..]) {
                *total += sum;
            }
        }
    }
}

/// With `x̂` the normalised row and `g = gain ⊙ dy`: `dx = (g − mean(g) − x̂·mean(g ⊙ x̂)) / deviation`.
#[inline(always)]
fn row_gradient(x: &[f32], gain: &[f32], [mean, inverse]: [f32; 2], dy: &[f32], dx: &mut [f32]) {
    let columns = x.len() as f32;
    for ((dx, &gain), &dy) in dx.iter_mut().zip(gain).zip(dy) {
        *dx = gain * dy;
    }
    let mean_g = math::sum(dx) / columns;
    let mean_gx = math::sum_with(dx, x, |g, x| g * (x - mean)) * inverse / columns;
    for (dx, &x) in dx.iter_mut().zip(x) {
        *dx = inverse * (*dx - mean_g - (x - mean) * inverse * mean_gx);
    }
}
