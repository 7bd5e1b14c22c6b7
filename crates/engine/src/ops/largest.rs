//! The largest entries of rows, for searches.

use crate::error::{Result, ensure_shape};
use crate::tensor::Tensor;

/// An entry's place in its row, and its value.
pub type Entry = (u32, f32);

impl Tensor {
    /// Of each row `[rows, columns]`, of those entries that are not below its floor `[rows]`: the `count` largest and whatever
    /// equals the least of them, in no order. What is not a number is less than any, but below no floor. Waits for the
    /// device; of one that has failed they mean nothing, as [`Device::check`](crate::Device::check) tells. Fails if there
    /// is not a floor for each row.
    pub fn largest(&self, count: usize, floors: &[f32]) -> Result<Vec<Vec<Entry>>> {
        ensure_shape!(floors.len() == self.rows(), "largest", "{} floors for {} rows", floors.len(), self.rows());
        if count == 0 || self.is_empty() {
            return Ok(vec![Vec::new(); self.rows()]);
        }
        Ok(self.device().kernels().largest(self, count.min(self.columns()), floors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_largest_are_those_of_sorting_with_all_that_equal_the_last(
            rows in prop::collection::vec(prop::collection::vec(-3..4_i8, 40), 1..5), count in 0..60_usize,
        ) {
            // Few values, so that many are equal; the lowest stands for what is not a number.
            let value = |x: i8| if x == -3 { f32::NAN } else { f32::from(x) };
            let data: Vec<f32> = rows.iter().flatten().map(|&x| value(x)).collect();
            let floors: Vec<f32> = (0..rows.len()).map(|row| if row % 2 == 0 { f32::NEG_INFINITY } else { 1.0 }).collect();
            let found = Tensor::from_slice(&device(), &[rows.len(), 40], &data).unwrap().largest(count, &floors).unwrap();
            for ((row, mut found), floor) in rows.iter().zip(found).zip(floors) {
                let above = |x: i8| value(x).is_nan() || value(x) >= floor;
                let mut sorted: Vec<i8> = row.iter().copied().filter(|&x| above(x)).collect();
                sorted.sort_by(|a, b| b.cmp(a));
                let least = sorted.get(count.wrapping_sub(1)).or(sorted.last()).filter(|_| count > 0);
                let expected = (0..40).filter(|&at| least.is_some_and(|&least| row[at] >= least) && above(row[at]));
                found.sort_by_key(|entry| entry.0);
                prop_assert_eq!(found.iter().map(|entry| entry.0 as usize).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
                prop_assert!(found.iter().all(|&(place, x)| x.to_bits() == value(row[place as usize]).to_bits()));
            }
        }
    }
}
