//! The learning rate of each step.

use std::f64::consts::PI;

use crate::settings::LrSchedule;

/// The learning rate over a run: a linear warm-up to the peak, then the course of [`LrSchedule`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The course after the warm-up.
    pub course: LrSchedule,
    /// The highest learning rate.
    pub peak: f64,
    /// Steps of the warm-up; may be 0.
    pub warmup_steps: u64,
    /// Steps of the whole run, the warm-up included. A run that is no longer than its warm-up ends in it, below the
    /// peak: the warm-up is not squeezed, so that its slope is what was asked for.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of a step, the first being 0: `peak` times a factor in (0, 1]. From `total_steps` on, where a
    /// run makes no step, it is what the course ends in.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.peak * self.factor(step)
    }

    fn factor(&self, step: u64) -> f64 {
        // The first step has a rate already: at 0 it would be a step that teaches nothing.
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        match self.course {
            LrSchedule::Linear => 1.0 - done,
            LrSchedule::Constant => 1.0,
            LrSchedule::Cosine => 0.5 * (1.0 + (PI * done).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_course() -> impl Strategy<Value = LrSchedule> {
        prop_oneof![Just(LrSchedule::Linear), Just(LrSchedule::Constant), Just(LrSchedule::Cosine)]
    }

    #[test]
    fn the_default_course_warms_up_and_decays_in_straight_lines() {
        let schedule = Schedule { course: LrSchedule::Linear, peak: 8.0, warmup_steps: 4, total_steps: 8 };
        let rates: Vec<f64> = (0..9).map(|step| schedule.learning_rate(step)).collect();
        assert_eq!(rates, [2.0, 4.0, 6.0, 8.0, 8.0, 6.0, 4.0, 2.0, 0.0]);
    }

    #[test]
    fn half_way_through_its_decay_the_cosine_is_at_half_the_peak() {
        let schedule = Schedule { course: LrSchedule::Cosine, peak: 1.0, warmup_steps: 10, total_steps: 30 };
        assert!((schedule.learning_rate(20) - 0.5).abs() < 1e-15);
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_ends_in_it() {
        let schedule = Schedule { course: LrSchedule::Linear, peak: 1.0, warmup_steps: 100, total_steps: 50 };
        assert_eq!(schedule.learning_rate(49), 0.5);
    }

    proptest! {
        #[test]
        fn the_factor_is_positive_rises_to_the_peak_and_never_rises_again(
            course in any_course(),
            warmup_steps in 0u64..60,
            total_steps in 1u64..200,
        ) {
            let schedule = Schedule { course, peak: 1.0, warmup_steps, total_steps };
            let factors: Vec<f64> = (0..total_steps).map(|step| schedule.learning_rate(step)).collect();
            prop_assert!(factors.iter().all(|&factor| factor > 0.0 && factor <= 1.0));
            let (rising, falling) = factors.split_at(warmup_steps.min(total_steps) as usize);
            prop_assert!(rising.is_sorted());
            prop_assert!(falling.is_sorted_by(|a, b| a >= b));
            if warmup_steps > 0 && warmup_steps <= total_steps {
                prop_assert_eq!(rising.last(), Some(&1.0));
            }
            prop_assert!(falling.first().is_none_or(|&factor| factor == 1.0));
        }
    }
}
