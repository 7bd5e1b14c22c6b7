//! Sums of table rows, and the gradient of a table.

use rayon::prelude::*;

use super::parallel::rows_per_part;
use crate::tensor::{Ids, Tensor};

pub fn forward(parts: &[(&Ids, &Tensor)], out: &mut Tensor) {
    let columns = out.columns();
    let part = rows_per_part(columns);
    out.data_mut().par_chunks_mut(part * columns).enumerate().for_each(|(index, out)| {
        out.fill(0.0);
        for (row, out) in out.chunks_exact_mut(columns).enumerate() {
            for (ids, table) in parts {
                let id = ids.data()[index * part + row] as usize;
                for (out, &x) in out.iter_mut().zip(&table.data()[id * columns..]) {
                    *out += x;
                }
            }
        }
    });
}

/// Tokens are sorted by id (stably), so that each row of the table is one thread's and sums in the tokens' order.
pub fn backward(ids: &Ids, dy: &Tensor, dtable: &mut Tensor) {
    let columns = dy.columns();
    let (ids, dy) = (ids.data(), dy.data());
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&token| ids[token as usize]);
    let part = rows_per_part(columns);
    dtable.data_mut().par_chunks_mut(part * columns).enumerate().for_each(|(index, rows)| {
        rows.fill(0.0);
        let first = index * part;
        let begin = order.partition_point(|&token| (ids[token as usize] as usize) < first);
        for &token in &order[begin..] {
            let row = ids[token as usize] as usize - first;
            let Some(sums) = rows.get_mut(row * columns..(row + 1) * columns) else { break };
            for (sum, &dy) in sums.iter_mut().zip(&dy[token as usize * columns..]) {
                *sum += dy;
            }
        }
    });
}
