//! The AdamW update of one tensor, and sums of squares for clipping.

use rayon::prelude::*;

use super::math::{self, vectorised};
use crate::kernels::AdamWUpdate;
use crate::optim::AdamW;
use crate::tensor::Tensor;

const PART: usize = 16 * 1024;

pub fn adamw(
    options: &AdamW,
    update: AdamWUpdate,
    gradient: &Tensor,
    parameter: &mut Tensor,
    [first, second]: [&mut Tensor; 2],
) {
    let (beta1, beta2) = (options.beta1 as f32, options.beta2 as f32);
    let step = update.step as f64;
    let keep = (1.0 - update.learning_rate * update.weight_decay) as f32;
    let size = (update.learning_rate / (1.0 - options.beta1.powf(step))) as f32;
    let deviation = (1.0 / (1.0 - options.beta2.powf(step)).sqrt()) as f32;
    let (epsilon, scale) = (options.epsilon as f32, update.gradient_scale);
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

pub fn sum_of_squares(x: &Tensor) -> f64 {
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
