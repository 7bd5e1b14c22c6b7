//! The AdamW update of groups of tensors in one launch each, and the norm of all.

use std::sync::Arc;

use super::arena::Block;
use super::context::{Context, Grid, arguments};
use super::programs::Program::AdamW as Kernels;
use super::slice::Slice;
use super::weights::Weights;
use crate::device::Device;
use crate::kernels::{AdamWUpdate, Updated};
use crate::optim::AdamW;
use crate::tensor::{Ids, Tensor};

const THREADS: usize = 256;
/// Elements of one block.
const PART: usize = 4096;

/// What the kernels read of tensors: a row of numbers for the first part of each, one for the lengths, and then
/// whatever rows a kernel wants. Gives it on the device, and how many parts there are.
fn table(lens: &[usize], rows: &[Vec<u64>], device: &Device) -> (Ids, usize) {
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

/// The update runs aside in so many groups of tensors, in their order: the next forward pass begins with the first layers,
/// and waits for what it reads only.
const GROUPS: usize = 4;

/// A tensor's update as the kernel takes it.
struct Entry {
    len: usize,
    /// Its rows of the table.
    numbers: [u64; 6],
    gradient: Tensor,
    /// Memory that is written: the parameter, both moments, and a rounded copy where there is one.
    written: Vec<Arc<Block>>,
}

pub fn adamw(
    context: &Context,
    weights: &Weights,
    options: &AdamW,
    update: AdamWUpdate<'_>,
    mut tensors: Vec<Updated<'_>>,
) {
    let mut parameters: Vec<&mut Tensor> = tensors.iter_mut().map(|tensor| &mut *tensor.parameter).collect();
    let rounded = weights.renewed(&mut parameters);
    let entry = |(tensor, rounded): (Updated<'_>, Option<(u64, Arc<Block>)>)| {
        let Updated { parameter, moments: [first, second], weight_decay, gradient } = tensor;
        let keep = (1.0 - update.learning_rate * weight_decay) as f32;
        let gradient = gradient.dense().contiguous();
        let [first, second] = [first, second].map(|x| x.slice_mut());
        let places = [gradient.slice(), first, second, parameter.slice()];
        let [of_gradient, of_first, of_second, of_parameter] = places.map(Slice::address);
        let (copy, block) = rounded.unzip();
        let numbers = [of_gradient, of_first, of_second, u64::from(keep.to_bits()), copy.unwrap_or(0), of_parameter];
        let written = [parameter.slice(), first, second].map(|slice| slice.block().clone()).into_iter().chain(block);
        Entry { len: parameter.len(), numbers, written: written.collect(), gradient }
    };
    let entries: Vec<Entry> = tensors.into_iter().zip(rounded).map(entry).collect();
    let share = entries.iter().map(|entry| entry.len).sum::<usize>().div_ceil(GROUPS).max(1);
    let mut before = 0;
    let groups = entries.chunk_by(|entry, _| {
        let group = before / share;
        before += entry.len;
        group == before / share
    });
    // All tables first: where there is no memory for one of them, nothing is updated.
    let tables: Vec<_> = groups.map(|group| (group, table_of(group, update.norm.device()))).collect();
    tables.into_iter().for_each(|(group, table)| update_aside(context, options, &update, group, table));
}

fn table_of(entries: &[Entry], device: &Device) -> (Ids, usize) {
    let lens: Vec<usize> = entries.iter().map(|entry| entry.len).collect();
    let rows = [0, 1, 2, 3, 4, 5].map(|row: usize| entries.iter().map(|entry| entry.numbers[row]).collect());
    table(&lens, &rows, device)
}

fn update_aside(
    context: &Context,
    options: &AdamW,
    update: &AdamWUpdate<'_>,
    entries: &[Entry],
    (table, parts): (Ids, usize),
) {
    let step = update.step as f64;
    let size = (update.learning_rate / (1.0 - options.beta1.powf(step))) as f32;
    let deviation = (1.0 / (1.0 - options.beta2.powf(step)).sqrt()) as f32;
    let (beta1, beta2, epsilon) = (options.beta1 as f32, options.beta2 as f32, options.epsilon as f32);
    let [norm, loss] = [update.norm, update.loss].map(|x| x.slice().address());
    let (max_norm, count) = (update.max_norm as f32, entries.len() as i32);
    #[rustfmt::skip]
    let arguments =
        arguments![table.slice().address(), count, beta1, beta2, size, deviation, epsilon, max_norm, norm, loss];
    let work = |stream| {
        context.launch_in(stream, Kernels, "adamw", Grid::line(parts, THREADS), arguments);
        Ok(())
    };
    let read = entries.iter().map(|entry| &entry.gradient).chain([update.norm, update.loss]);
    let reads = read.map(Tensor::shared_slice).chain([table.shared_slice()]).cloned().collect();
    let writes: Vec<&Arc<Block>> = entries.iter().flat_map(|entry| &entry.written).collect();
    context.keep(context.aside().run(context.stream(), reads, &writes, work));
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
