//! What a training step of each arm costs: the arms take steps in turn, so that a machine that slows down slows all.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::progress::Event;
use crate::train::{Inputs, Run, TrainError, Trainer, TrainingBatch};

/// Steps of each arm before those that are measured.
const WARMUP_STEPS: u64 = 2;
/// Steps of each arm that are measured.
const STEPS: u64 = 10;

/// What an arm's steps took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCost {
    /// The median of a step, in seconds.
    pub median_seconds: f64,
    /// Each step, in seconds: the arms' steps of the same place were made one after the other, on the same pairs.
    pub seconds: Vec<f64>,
}

impl StepCost {
    /// The median of the ratios of this arm's steps to another's of the same place.
    pub fn ratio_to(&self, other: &StepCost) -> f64 {
        median_ratio(&self.seconds, &other.seconds)
    }
}

/// Measures all arms on the first batches; nothing where the user stops it.
pub fn step_costs(run: &mut Run<'_>, inputs: &Inputs) -> Result<Option<BTreeMap<String, StepCost>>, TrainError> {
    let settings = run.settings;
    let trainer = |arm| Ok(Trainer::new(inputs.encoder(settings, arm)?, settings));
    let mut trainers: Vec<Trainer> = settings.arms.iter().map(trainer).collect::<Result<_, TrainError>>()?;
    let mut seconds = vec![Vec::new(); trainers.len()];
    let mut sampler = inputs.sampler(settings)?;
    let total = Some(WARMUP_STEPS + STEPS);
    run.observer.observe(Event::StageStarted {
        what: "Timing steps of all arms in turn".into(),
        unit: "rounds",
        total,
    });
    for step in 0..WARMUP_STEPS + STEPS {
        if run.interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let batch = TrainingBatch::deal(&inputs.pairs, &mut sampler, step);
        trainers.iter().try_for_each(|trainer| trainer.prepare(&batch))?;
        for (trainer, seconds) in trainers.iter_mut().zip(&mut seconds) {
            let started = Instant::now();
            // Nothing is learned: without its warm-up a training could diverge here.
            trainer.step(step, &batch, 0.0)?;
            if step >= WARMUP_STEPS {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
        run.observer.observe(Event::StageAdvanced { done: step + 1 });
    }
    run.observer.observe(Event::StageFinished);
    let costs =
        seconds.into_iter().map(|seconds| StepCost { median_seconds: median(seconds.iter().copied()), seconds });
    Ok(Some(settings.arms.iter().map(|arm| arm.name.clone()).zip(costs).collect()))
}

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// The median of the ratios of an arm's steps to another's of the same place: two that were made one after the other met much the
/// same machine, so it scatters less than the ratio of the medians.
pub(crate) fn median_ratio(own: &[f64], other: &[f64]) -> f64 {
    median(own.iter().zip(other).map(|(own, other)| own / other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_steps_in_turn_is_not_moved_by_a_machine_that_slows_down() {
        let cost = |seconds: &[f64]| StepCost { median_seconds: 0.0, seconds: seconds.into() };
        let (reference, arm) = (cost(&[1.0, 1.0, 4.0, 8.0]), cost(&[1.1, 1.1, 4.4, 8.8]));
        assert!((arm.ratio_to(&reference) - 1.1).abs() < 1e-12);
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
