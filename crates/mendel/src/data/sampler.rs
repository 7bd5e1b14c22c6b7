//! Which pairs a training step takes, from the step's number alone: a checkpoint needs no other state.

use super::DataError;
use crate::random::SplitMix64;

/// Kinds of draw, so that no two share a stream.
const ORDER: u64 = 0;
const HARD_NEGATIVES: u64 = 1;

/// Deals the indices of a dataset out in batches: every epoch in another order, the same for the same seed everywhere.
#[derive(Clone, Debug)]
pub struct Sampler {
    len: usize,
    batch_size: usize,
    seed: u64,
    /// The epoch last asked for, and its order.
    current: Option<(u64, Vec<usize>)>,
}

impl Sampler {
    /// Over `len` pairs.
    ///
    /// # Errors
    /// Where the pairs do not fill one batch.
    pub fn new(len: usize, batch_size: usize, seed: u64) -> Result<Self, DataError> {
        if batch_size == 0 {
            return Err(DataError::EmptyBatch);
        }
        if len < batch_size {
            return Err(DataError::FewerThanABatch { pairs: len, batch_size });
        }
        Ok(Sampler { len, batch_size, seed, current: None })
    }

    /// Batches in an epoch, at least 1. What does not fill a last one waits for the next epoch's order.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.len / self.batch_size) as u64
    }

    /// The epoch, from 0, that a step, from 0, belongs to.
    pub fn epoch_of(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// The `batch_size` distinct indices that a step, from 0 over all epochs, trains on.
    pub fn batch(&mut self, step: u64) -> Vec<usize> {
        let epoch = self.epoch_of(step);
        let start = (step % self.steps_per_epoch()) as usize * self.batch_size;
        if self.current.as_ref().is_none_or(|(current, _)| *current != epoch) {
            self.current = None;
        }
        let (len, seed) = (self.len, self.seed);
        let (_, order) = self.current.get_or_insert_with(|| (epoch, order_of(len, seed, epoch)));
        order[start..start + self.batch_size].to_vec()
    }

    /// Which of a pair's `available` negatives an epoch takes: `wanted` distinct indices, or all if there are fewer.
    pub fn hard_negatives(&self, pair: usize, available: usize, wanted: usize, epoch: u64) -> Vec<usize> {
        let mut random = SplitMix64::keyed(&[self.seed, HARD_NEGATIVES, epoch, pair as u64]);
        let mut negatives: Vec<usize> = (0..available).collect();
        random.shuffle(&mut negatives);
        negatives.truncate(wanted);
        negatives
    }
}

fn order_of(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    SplitMix64::keyed(&[seed, ORDER, epoch]).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_is_the_same_on_every_platform() {
        let mut sampler = Sampler::new(10, 5, 42).unwrap();
        assert_eq!([sampler.batch(0), sampler.batch(1)].concat(), [3, 0, 8, 6, 9, 2, 5, 1, 4, 7]);
    }

    #[test]
    fn seeds_and_epochs_have_their_own_orders() {
        let order = |seed, step| Sampler::new(1000, 1000, seed).unwrap().batch(step);
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), order(1, 1));
    }

    #[test]
    fn too_little_data_for_a_batch_is_an_error_that_says_so() {
        let message = Sampler::new(5, 8, 0).unwrap_err().to_string();
        assert!(message.contains("5 training pairs") && message.contains("--batch-size of at most 5"), "{message}");
        assert!(matches!(Sampler::new(5, 0, 0), Err(DataError::EmptyBatch)));
    }

    proptest! {
        #[test]
        fn an_epoch_takes_every_pair_once_but_for_a_partial_batch(len in 1usize..200, batch in 1usize..40, seed: u64, epoch in 0u64..50) {
            prop_assume!(batch <= len);
            let mut sampler = Sampler::new(len, batch, seed).unwrap();
            let steps = sampler.steps_per_epoch();
            let mut seen: Vec<usize> = (0..steps).flat_map(|step| sampler.batch(epoch * steps + step)).collect();
            prop_assert_eq!(seen.len(), len - len % batch);
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), len - len % batch);
            prop_assert!(seen.iter().all(|&index| index < len));
        }

        #[test]
        fn a_step_asked_for_alone_is_the_same_as_in_sequence(len in 1usize..100, batch in 1usize..10, seed: u64, step in 0u64..200) {
            prop_assume!(batch <= len);
            let mut from_start = Sampler::new(len, batch, seed).unwrap();
            let in_sequence = (0..=step).map(|step| from_start.batch(step)).last().unwrap();
            prop_assert_eq!(Sampler::new(len, batch, seed).unwrap().batch(step), in_sequence);
        }

        #[test]
        fn hard_negatives_are_distinct_and_within_what_there_is(available in 0usize..20, wanted in 0usize..20, pair: usize, epoch: u64) {
            let sampler = Sampler::new(1, 1, 7).unwrap();
            let mut chosen = sampler.hard_negatives(pair, available, wanted, epoch);
            prop_assert_eq!(&chosen, &sampler.hard_negatives(pair, available, wanted, epoch));
            prop_assert_eq!(chosen.len(), wanted.min(available));
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len(), wanted.min(available));
            prop_assert!(chosen.iter().all(|&index| index < available));
        }
    }

    #[test]
    fn hard_negatives_change_from_epoch_to_epoch() {
        let sampler = Sampler::new(1, 1, 7).unwrap();
        let chosen: std::collections::HashSet<Vec<usize>> =
            (0..20).map(|epoch| sampler.hard_negatives(3, 10, 2, epoch)).collect();
        assert!(chosen.len() > 10);
    }
}
