//! The largest entries of rows, for searches.

use crate::tensor::Tensor;

/// An entry's place in its row, and its value.
pub type Entry = (u32, f32);

impl Tensor {
    /// Of each row `[rows, columns]` the `count` largest entries and whatever equals the least of them, in no order. What is
    /// not a number is less than any. Waits for the device; of one that has failed there are none, and
    /// [`Device::check`](crate::Device::check) tells.
    pub fn largest(&self, count: usize) -> Vec<Vec<Entry>> {
        if count == 0 || self.is_empty() {
            return vec![Vec::new(); self.rows()];
        }
        self.device().kernels().largest(self, count)
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
            let found = Tensor::from_slice(&device(), &[rows.len(), 40], &data).unwrap().largest(count);
            for (row, mut found) in rows.iter().zip(found) {
                let mut sorted = row.clone();
                sorted.sort_by(|a, b| b.cmp(a));
                let least = count.checked_sub(1).map(|last| sorted[last.min(39)]);
                let expected = (0..40).filter(|&place| least.is_some_and(|least| row[place] >= least));
                found.sort_by_key(|entry| entry.0);
                prop_assert_eq!(found.iter().map(|entry| entry.0 as usize).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
                prop_assert!(found.iter().all(|&(place, x)| x.to_bits() == value(row[place as usize]).to_bits()));
            }
        }
    }
}
