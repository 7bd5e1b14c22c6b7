//! The largest entries of rows: the least of them is found on the GPU, and what is not below it comes back.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::programs::Program::Largest;
use super::slice::Kind;
use crate::cpu::largest::of_row;
use crate::ops::largest::Entry;
use crate::tensor::{Ids, Tensor};

const THREADS: usize = 256;

/// Entries of a row for which there is room: some equals of the least.
fn room(count: usize) -> usize {
    count + count / 4 + 32
}

pub fn largest(context: &Context, x: &Tensor, count: usize, floors: &[f32]) -> Vec<Vec<Entry>> {
    let (rows, columns, room) = (x.rows(), x.columns(), room(count));
    let x = as_kind(context, x, Kind::F32);
    if columns < 2 * room {
        return x.to_vec().chunks(columns).zip(floors).map(|(row, &floor)| of_row(row, count, floor)).collect();
    }
    let on_device =
        Tensor::from_slice(x.device(), &[rows], floors).unwrap_or_else(|_| unreachable!("the shape is its own"));
    let mut found = Ids::empty(x.device(), &[rows]);
    let (mut places, mut values) = (Ids::empty(x.device(), &[rows, room]), Tensor::empty(x.device(), &[rows, room]));
    let (from, counts) = (x.slice().address(), found.slice_mut().address());
    let [of_places, of_values] = [places.slice_mut().address(), values.slice_mut().address()];
    let arguments = arguments![
        from,
        on_device.slice().address(),
        columns as i32,
        count as u32,
        room as u32,
        counts,
        of_places,
        of_values
    ];
    context.launch(Largest, "largest", Grid::line(rows, THREADS), arguments);
    let (found, places, values) = (found.to_vec(), places.to_vec(), values.to_vec());
    let of_row = |row: usize| {
        let found = found[row] as usize;
        if found > room {
            let mut all = vec![0.0_f32; columns];
            context.download(from + (4 * row * columns) as u64, bytemuck::cast_slice_mut(&mut all));
            return of_row(&all, count, floors[row]);
        }
        let entries = row * room..row * room + found;
        places[entries.clone()].iter().copied().zip(values[entries].iter().copied()).collect()
    };
    (0..rows).map(of_row).collect()
}
