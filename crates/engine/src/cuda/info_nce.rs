//! InfoNCE from cosines, with its gradient.

use super::context::{Context, Grid, arguments};
use super::elementwise::grid;
use super::programs::Program::InfoNce as Kernels;
use crate::ops::info_nce::InfoNce;
use crate::tensor::{Ids, Tensor};

const THREADS: usize = 256;

pub fn info_nce(context: &Context, scores: &Tensor, options: &InfoNce, loss: &mut Tensor, dscores: &mut Tensor) {
    let (queries, candidates, device) = (scores.rows(), scores.columns(), scores.device());
    let mut logits = scores.empty_like();
    let mut losses = Tensor::empty(device, &[2 * queries]);
    let [logits, losses] = [&mut logits, &mut losses].map(|x| x.slice_mut().address());
    let (temperature, columns) = (options.temperature, candidates as i32);
    let count = scores.len();
    let arguments = arguments![scores.slice().address(), temperature, logits, count];
    context.launch(Kernels, "info_nce_logits", grid(count), arguments);
    let excluded: Vec<u32> = options.excluded.iter().flat_map(|&(query, candidate)| [query, candidate]).collect();
    if let Ok(pairs) = Ids::from_slice(device, &[excluded.len()], &excluded)
        && !excluded.is_empty()
    {
        let pairs_count = options.excluded.len();
        let arguments = arguments![pairs.slice().address(), logits, pairs_count as i32, columns];
        context.launch(Kernels, "info_nce_exclude", Grid::each(pairs_count, THREADS), arguments);
    }
    let directions = if options.symmetric { 2 } else { 1 };
    let share = 1.0 / (directions * queries) as f32;
    let (weight, to) = (share / temperature, dscores.slice_mut().address());
    let rows = Grid::line(queries, THREADS);
    context.launch(Kernels, "info_nce_rows", rows, arguments![logits, weight, to, losses, columns]);
    if options.symmetric {
        let of_columns = losses + 4 * queries as u64;
        let arguments = arguments![logits, weight, to, of_columns, queries as i32, columns];
        context.launch(Kernels, "info_nce_columns", rows, arguments);
    }
    let total = arguments![losses, share, loss.slice_mut().address(), (directions * queries) as i32];
    context.launch(Kernels, "info_nce_total", Grid::line(1, THREADS), total);
}
