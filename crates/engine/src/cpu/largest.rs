//! The largest entries of rows.

use std::cmp::Ordering;

use rayon::prelude::*;

use crate::ops::largest::Entry;
use crate::tensor::Tensor;

pub fn largest(x: &Tensor, count: usize, floors: &[f32]) -> Vec<Vec<Entry>> {
    x.data().par_chunks(x.columns()).zip(floors).map(|(row, &floor)| of_row(row, count, floor)).collect()
}

/// Of one row. Now and then those that cannot be among the largest any more are dropped.
pub fn of_row(row: &[f32], count: usize, floor: f32) -> Vec<Entry> {
    let (mut found, mut least, mut enough): (Vec<Entry>, _, _) = (Vec::new(), floor, 4 * count);
    for (place, &value) in (0..).zip(row) {
        if value < least {
            continue;
        }
        found.push((place, value));
        if found.len() >= enough {
            least = cut(&mut found, count).max(floor);
            // Equals are kept, however many.
            enough = (4 * count).max(2 * found.len());
        }
    }
    cut(&mut found, count);
    found
}

/// Keeps the `count` largest and their equals, and gives the least of them, which nothing is less than if it is no number.
fn cut(found: &mut Vec<Entry>, count: usize) -> f32 {
    if found.len() <= count {
        return f32::NEG_INFINITY;
    }
    let (_, &mut (_, least), _) = found.select_nth_unstable_by(count - 1, |a, b| falling(a.1, b.1));
    found.retain(|&(_, value)| falling(value, least) != Ordering::Greater);
    if least.is_nan() { f32::NEG_INFINITY } else { least }
}

/// From the largest to the least, and what is not a number after all.
fn falling(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
