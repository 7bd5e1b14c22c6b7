//! The AdamW update, and the norm for clipping.

use std::sync::Arc;

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::parallel::rows_per_part;
use crate::gradients::Gradient;
use crate::kernels::{AdamWUpdate, Updated};
use crate::optim::AdamW;
use crate::tensor::Tensor;

const PART: usize = 16 * 1024;

pub fn adamw(options: &AdamW, update: AdamWUpdate<'_>, tensors: Vec<Updated<'_>>) {
    let norm = f64::from(update.norm.item());
    if norm.is_finite() && update.loss.item().is_finite() {
        let scale = (update.max_norm / (norm + 1e-6)).min(1.0) as f32;
        tensors.into_iter().for_each(|tensor| update_one(options, &update, scale, tensor));
    }
}

/// Takes the gradient times `scale`.
fn update_one(options: &AdamW, update: &AdamWUpdate<'_>, scale: f32, tensor: Updated<'_>) {
    let Updated { gradient, parameter, moments: [first, second], weight_decay } = tensor;
    let step = Step::new(options, update, scale, weight_decay);
    let columns = parameter.columns();
    let part = match gradient {
        Gradient::Dense(_) => PART,
        Gradient::OfRows(_) => rows_per_part(columns) * columns,
    };
    let moments = first.data_mut().par_chunks_mut(part).zip(second.data_mut().par_chunks_mut(part));
    let parts = parameter.data_mut().par_chunks_mut(part).zip(moments).enumerate();
    match gradient {
        Gradient::Dense(gradient) => parts.for_each(|(index, (parameter, (first, second)))| {
            let gradient = &gradient.data()[index * part..];
            vectorised(
                #[inline(always)]
                || step.take(gradient, parameter, first, second),
            );
        }),
        Gradient::OfRows(gradient) => {
            let zeros = vec![0.0; columns];
            parts.for_each(|(index, (parameter, (first, second)))| {
                let moments = first.chunks_exact_mut(columns).zip(second.chunks_exact_mut(columns));
                let rows = parameter.chunks_exact_mut(columns).zip(moments).zip(index * part / columns..);
                for ((parameter, (first, second)), row) in rows {
                    let gradient = gradient.row(row).unwrap_or(&zeros);
                    vectorised(
                        #[inline(always)]
                        || step.take(gradient, parameter, first, second),
                    );
                }
            });
        }
    }
}

/// What is the same for all elements of a tensor.
struct Step {
    scale: f32,
    betas: [f32; 2],
    /// What weight decay leaves of a parameter.
    keep: f32,
    size: f32,
    deviation: f32,
    epsilon: f32,
}

impl Step {
    fn new(options: &AdamW, update: &AdamWUpdate<'_>, scale: f32, weight_decay: f64) -> Self {
        let step = update.step as f64;
        Step {
            scale,
            betas: [options.beta1 as f32, options.beta2 as f32],
            keep: (1.0 - update.learning_rate * weight_decay) as f32,
            size: (update.learning_rate / (1.0 - options.beta1.powf(step))) as f32,
            deviation: (1.0 / (1.0 - options.beta2.powf(step)).sqrt()) as f32,
            epsilon: options.epsilon as f32,
        }
    }

    #[inline(always)]
    fn take(&self, gradient: &[f32], parameter: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let Step { scale, betas: [beta1, beta2], keep, size, deviation, epsilon } = *self;
        for (((p, &g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p = *p * keep - size * *m / (v.sqrt() * deviation + epsilon);
        }
    }
}

/// The sum of a tensor's squares, kept with it by who had it in the cache.
pub struct Squares(pub f64);

pub fn global_norm(tensors: &[&Tensor], norm: &mut Tensor) {
    let squares = |x: &&Tensor| x.kept().map_or_else(|| sum_of_squares(x), |squares: Arc<Squares>| squares.0);
    norm.data_mut()[0] = tensors.iter().map(squares).sum::<f64>().sqrt() as f32;
}

fn sum_of_squares(x: &Tensor) -> f64 {
    let parts: Vec<f64> = x
        .data()
        .par_chunks(PART)
        .map(|part| {
            part.chunks(1024)
                .map(|x| {
                    f64::from(vectorised(
                        #[inline(always)]
                        || math::dot(x, x),
                    ))
                })
                .sum()
        })
        .collect();
    parts.into_iter().sum()
}
