//! The AdamW update, and the norm for clipping.

use rayon::prelude::*;

use super::math::{self, vectorised};
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
    let (beta1, beta2) = (options.beta1 as f32, options.beta2 as f32);
    let step = update.step as f64;
    let keep = (1.0 - update.learning_rate * weight_decay) as f32;
    let size = (update.learning_rate / (1.0 - options.beta1.powf(step))) as f32;
    let deviation = (1.0 / (1.0 - options.beta2.powf(step)).sqrt()) as f32;
    let epsilon = options.epsilon as f32;
    let moments = first.data_mut().par_chunks_mut(PART).zip(second.data_mut().par_chunks_mut(PART));
    let parts = parameter.data_mut().par_chunks_mut(PART).zip(gradient.data().par_chunks(PART)).zip(moments);
    parts.for_each(|((parameter, gradient), (first, second))| {
        vectorised(
            #[inline(always)]
            || {
                for (((p, &g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
                    let g = g * scale;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *p = *p * keep - size * *m / (v.sqrt() * deviation + epsilon);
                }
            },
        );
    });
}

pub fn global_norm(tensors: &[&Tensor], norm: &mut Tensor) {
    let squares: f64 = tensors.iter().map(|x| sum_of_squares(x)).sum();
    norm.data_mut()[0] = squares.sqrt() as f32;
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
