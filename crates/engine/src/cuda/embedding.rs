//! Sums of table rows, and the gradient of a table.

use super::context::{Context, Grid, arguments};
use super::elementwise::accumulate;
use super::programs::Program::Embedding;
use super::suffix;
use crate::tensor::{Ids, Tensor};

const THREADS: usize = 128;
/// The fewest tokens of an id that are cut into chunks.
const CHUNK: usize = 32;
/// Tables that a kernel sums at once.
const TABLES: usize = 3;

pub fn forward(context: &Context, parts: &[(&Ids, &Tensor)], out: &mut Tensor) {
    let columns = out.columns();
    for (index, parts) in parts.chunks(TABLES).enumerate() {
        let mut addresses = [0; 2 * TABLES];
        for (pair, (ids, table)) in addresses.chunks_exact_mut(2).zip(parts) {
            pair.copy_from_slice(&[ids.slice().address(), table.slice().address()]);
        }
        let [ids0, table0, ids1, table1, ids2, table2] = addresses;
        let mut more = (index > 0).then(|| out.empty_like());
        let to = more.as_mut().unwrap_or(out).slice_mut();
        let arguments = arguments![ids0, table0, ids1, table1, ids2, table2, to.address(), columns as i32];
        let kernel = format!("embedding_sum_{}", suffix(to.kind()));
        context.launch(Embedding, &kernel, Grid::line(parts[0].0.len(), THREADS), arguments);
        if let Some(more) = more {
            accumulate(context, &more, out);
        }
    }
}

/// Which tokens are summed where: tokens in the order of their ids, cut into chunks of one id each. The sum of an id's
/// only chunk goes to its row of the table; those of an id with several go to partial sums first.
#[derive(Default)]
struct Plan {
    order: Vec<u32>,
    /// Where each chunk begins in `order`, and the end of the last.
    bounds: Vec<u32>,
    /// The row of each chunk; with the top bit set, of the partial sums.
    targets: Vec<u32>,
    partial: u32,
    /// Rows of the table that have partial sums, where theirs begin, and the end of the last.
    rows: Vec<u32>,
    row_bounds: Vec<u32>,
}

/// Tokens whose gradients one block sums, of an id with so many: a block then sums about as many partial sums.
fn chunk_of(tokens: usize) -> usize {
    CHUNK.max(tokens.isqrt())
}

impl Plan {
    fn new(ids: &[u32], table_rows: usize) -> Self {
        // By counting: the order within an id is the tokens'.
        let mut begins = vec![0_u32; table_rows + 1];
        ids.iter().for_each(|&id| begins[id as usize + 1] += 1);
        (0..table_rows).for_each(|row| begins[row + 1] += begins[row]);
        let mut next = begins.clone();
        let mut plan = Plan { order: vec![0; ids.len()], bounds: vec![0], row_bounds: vec![0], ..Plan::default() };
        for (token, &id) in (0..).zip(ids) {
            let place = &mut next[id as usize];
            plan.order[*place as usize] = token;
            *place += 1;
        }
        for row in 0..table_rows {
            let (begin, end) = (begins[row] as usize, begins[row + 1] as usize);
            let chunk = chunk_of(end - begin);
            let several = end - begin > chunk;
            for first in (begin..end).step_by(chunk) {
                plan.bounds.push(end.min(first + chunk) as u32);
                plan.targets.push(if several { plan.partial | 1 << 31 } else { row as u32 });
                plan.partial += u32::from(several);
            }
            if several {
                plan.rows.push(row as u32);
                plan.row_bounds.push(plan.partial);
            }
        }
        plan
    }
}

pub fn backward(context: &Context, ids: &Ids, dy: &Tensor, dtable: &mut Tensor) {
    let (columns, device) = (dy.columns(), dy.device());
    let dy = dy.contiguous();
    let read;
    let ids = match ids.known() {
        Some(known) => known,
        None => {
            read = ids.to_vec();
            &read
        }
    };
    let plan = Plan::new(ids, dtable.rows());
    let table = dtable.slice_mut();
    context.fill(table.address(), 0, table.len());
    let upload =
        |numbers: &[u32]| Ids::from_slice(device, &[numbers.len()], numbers).unwrap_or_else(|_| unreachable!());
    let partial = Tensor::empty(device, &[plan.partial as usize, columns]);
    let [order, bounds, targets] = [&plan.order, &plan.bounds, &plan.targets].map(|numbers| upload(numbers));
    let [order_at, bounds_at, targets_at] = [&order, &bounds, &targets].map(|ids| ids.slice().address());
    let [from, sums, to] = [dy.slice().address(), partial.slice().address(), table.address()];
    let arguments = arguments![from, order_at, bounds_at, targets_at, to, sums, columns as i32];
    let kernel = format!("embedding_gradient_{}", suffix(dy.slice().kind()));
    context.launch(Embedding, &kernel, Grid::line(plan.targets.len(), THREADS), arguments);
    if !plan.rows.is_empty() {
        let [rows, bounds] = [&plan.rows, &plan.row_bounds].map(|numbers| upload(numbers));
        let arguments = arguments![sums, rows.slice().address(), bounds.slice().address(), to, columns as i32];
        context.launch(Embedding, "embedding_gradient_total", Grid::line(plan.rows.len(), THREADS), arguments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_sums_every_token_once_in_its_ids_row() {
        let ids: Vec<u32> = (0..500_u32).map(|i| if i % 3 == 0 { 7 } else { i * i % 50 }).collect();
        let plan = Plan::new(&ids, 60);
        let mut rows = vec![Vec::new(); 60];
        let row_of = |target: u32| {
            let chunk = target & 0x7FFF_FFFF;
            let of_partial = || plan.rows[plan.row_bounds.partition_point(|&bound| bound <= chunk) - 1];
            if target >> 31 == 0 { target } else { of_partial() }
        };
        for (chunk, &target) in plan.targets.iter().enumerate() {
            let tokens = &plan.order[plan.bounds[chunk] as usize..plan.bounds[chunk + 1] as usize];
            let of_row = ids.iter().filter(|&&id| id == row_of(target)).count();
            assert!(!tokens.is_empty() && tokens.len() <= chunk_of(of_row));
            rows[row_of(target) as usize].extend_from_slice(tokens);
        }
        for (row, tokens) in (0..).zip(rows) {
            let expected: Vec<u32> = (0..500).filter(|&token| ids[token as usize] == row).collect();
            assert_eq!(tokens, expected, "row {row}");
        }
    }
}
