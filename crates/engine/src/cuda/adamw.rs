//! The AdamW update and the norm, of all tensors in one launch each.

use super::context::{Context, Grid, arguments};
use super::programs::Program::AdamW as Kernels;
use super::weights::Weights;
use crate::kernels::{AdamWUpdate, Updated};
use crate::optim::AdamW;
use crate::tensor::{Ids, Tensor};

const THREADS: usize = 256;
/// Elements of one block.
const PART: usize = 4096;

/// What the kernels read of tensors: a row of numbers for the first part of each, one for the lengths, and then
/// whatever rows a kernel wants. Gives it on the device, and how many parts there are.
fn table(lens: &[usize], rows: &[Vec<u64>], device: &crate::Device) -> (Ids, usize) {
    let mut parts = 0;
    let first = lens.iter().map(|len| {
        let first = parts as u64;
        parts += len.div_ceil(PART);
        first
    });
    let first: Vec<u64> = first.collect();
    let lens = lens.iter().map(|&len| len as u64);
    let numbers: Vec<u64> = first.into_iter().chain(lens).chain(rows.iter().flatten().copied()).collect();
    let words: &[u32] = bytemuck::cast_slice(&numbers);
    (Ids::from_slice(device, &[words.len()], words).unwrap_or_else(|_| unreachable!("the shape is its own")), parts)
}

pub fn adamw(
    context: &Context,
    weights: &Weights,
    options: &AdamW,
    update: AdamWUpdate<'_>,
    tensors: Vec<Updated<'_>>,
) {
    let Some(device) = tensors.first().map(|tensor| tensor.parameter.device().clone()) else { return };
    let lens: Vec<usize> = tensors.iter().map(|tensor| tensor.parameter.len()).collect();
    let gradients: Vec<Tensor> = tensors.iter().map(|tensor| tensor.gradient.contiguous()).collect();
    let mut rows = vec![Vec::new(); 5];
    let mut parameters = Vec::new();
    for (tensor, gradient) in tensors.into_iter().zip(&gradients) {
        let Updated { parameter, moments: [first, second], weight_decay, .. } = tensor;
        let keep = (1.0 - update.learning_rate * weight_decay) as f32;
        let [first, second] = [first, second].map(|x| x.slice_mut().address());
        let numbers = [gradient.slice().address(), first, second, u64::from(keep.to_bits())];
        rows.iter_mut().zip(numbers).for_each(|(row, number)| row.push(number));
        parameters.push(parameter);
    }
    rows[4] = weights.renewed(&mut parameters);
    rows.push(parameters.iter().map(|parameter| parameter.slice().address()).collect());
    let (table, parts) = table(&lens, &rows, &device);
    let step = update.step as f64;
    let size = (update.learning_rate / (1.0 - options.beta1.powf(step))) as f32;
    let deviation = (1.0 / (1.0 - options.beta2.powf(step)).sqrt()) as f32;
    let (beta1, beta2, epsilon) = (options.beta1 as f32, options.beta2 as f32, options.epsilon as f32);
    let [norm, loss] = [update.norm, update.loss].map(|x| x.slice().address());
    let (max_norm, count) = (update.max_norm as f32, lens.len() as i32);
    context.launch(
        Kernels,
        "adamw",
        Grid::line(parts, THREADS),
        arguments![table.slice().address(), count, beta1, beta2, size, deviation, epsilon, max_norm, norm, loss,],
    );
}

pub fn global_norm(context: &Context, tensors: &[&Tensor], norm: &mut Tensor) {
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.contiguous()).collect();
    let lens: Vec<usize> = tensors.iter().map(Tensor::len).collect();
    let addresses = tensors.iter().map(|tensor| tensor.slice().address()).collect();
    let (table, parts) = table(&lens, &[addresses], norm.device());
    // Double precision: two words a part.
    let mut partial = Ids::empty(norm.device(), &[2 * parts]);
    let sums = partial.slice_mut().address();
    let arguments = arguments![table.slice().address(), lens.len() as i32, sums];
    context.launch(Kernels, "squares", Grid::line(parts, THREADS), arguments);
    let arguments = arguments![sums, parts as i32, norm.slice_mut().address()];
    context.launch(Kernels, "norm_of_squares", Grid::line(1, THREADS), arguments);
}
