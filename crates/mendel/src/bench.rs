//! How fast a training step is: random tokens in lengths like MS MARCO's, arms step by step in turn.

use std::time::Instant;

use mendel_engine::Device;
use serde::Serialize;

use crate::arm::Arm;
use crate::bert::BertConfig;
use crate::data::{Sampler, TokenStore};
use crate::dual_encoder::DualEncoder;
use crate::memory;
use crate::progress::{Event, Observer};
use crate::random::SplitMix64;
use crate::settings::Settings;
use crate::throughput::{Throughput, matrix_peak};
use crate::train::{ModelSource, TrainError, Trainer, TrainingBatch, TrainingPairs};

/// Lengths of the queries and passages of MS MARCO in tokens, at their tenths.
const QUERY_LENGTHS: [usize; 10] = [6, 7, 8, 8, 9, 9, 10, 11, 12, 15];
const PASSAGE_LENGTHS: [usize; 10] = [35, 50, 60, 68, 75, 82, 92, 105, 125, 170];
/// BERT's `[CLS]` and `[SEP]`, and the ids that are words.
const CLS: u32 = 101;
const SEP: u32 = 102;
const WORDS: std::ops::Range<u32> = 1000..29999;
/// Steps before those that are measured.
const WARMUP_STEPS: usize = 3;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The model's architecture; its vocabulary is at least BERT's.
    pub model: BertConfig,
    /// Pairs per step.
    pub pairs: usize,
    /// Steps measured of each arm.
    pub steps: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The machine's matrix peak, in operations per second.
    pub matrix_peak: f64,
    /// Pairs per step.
    pub pairs: usize,
    /// Tokens per step.
    pub tokens: usize,
    /// The arms, which took their steps in turn.
    pub arms: Vec<ArmMeasurement>,
}

/// What was measured of an arm.
#[derive(Clone, Debug, Serialize)]
pub struct ArmMeasurement {
    /// Which.
    pub arm: Arm,
    /// Seconds of a step.
    pub step_seconds: StepSeconds,
    /// Speed at the median.
    #[serde(flatten)]
    pub throughput: Throughput,
    /// Largest memory in 10⁹ bytes: of the process, with all its arms.
    pub peak_memory_gb: f64,
}

/// Seconds of an arm's steps.
#[derive(Clone, Debug, Serialize)]
pub struct StepSeconds {
    /// Their median.
    pub median: f64,
    /// Each.
    pub all: Vec<f64>,
}

/// Measures training steps: forward of both sides, loss, backward, clipping, update.
pub fn measure(
    workload: &Workload,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Measurement, TrainError> {
    let device = Device::cpu();
    let settings = &Settings { batch_size: workload.pairs, from_scratch: true, ..settings.clone() };
    let source = ModelSource::DemoTiny(Box::new(workload.model.clone()));
    let trainers = settings.arms.iter().map(|&arm| {
        let bert = source.build(settings, arm, &device)?;
        Ok(Trainer::new(DualEncoder { bert, pooling: settings.pooling }, settings))
    });
    let mut trainers: Vec<Trainer> = trainers.collect::<Result<_, TrainError>>()?;
    let pairs = random_pairs(workload.pairs, settings.seed);
    let mut sampler = Sampler::new(pairs.len(), workload.pairs, settings.seed)?;
    let mut seconds = vec![Vec::with_capacity(workload.steps); trainers.len()];
    let (total, mut tokens) = (WARMUP_STEPS + workload.steps, 0);
    observer.observe(Event::StageStarted { what: "Measuring".into(), unit: "steps", total: Some(total as u64) });
    for step in 0..total {
        let batch = TrainingBatch::deal(&pairs, &mut sampler, step as u64, &device)?;
        for (trainer, seconds) in trainers.iter_mut().zip(&mut seconds) {
            let started = Instant::now();
            tokens = trainer.step(step as u64, &batch, settings.learning_rate)?.tokens;
            if step >= WARMUP_STEPS {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
        observer.observe(Event::StageAdvanced { done: step as u64 + 1 });
    }
    observer.observe(Event::StageFinished);
    let (peak, peak_memory_gb) = (matrix_peak(&device), memory::peak() as f64 / 1e9);
    let arms = settings.arms.iter().zip(trainers).zip(seconds).map(|((&arm, trainer), all)| {
        let median = median(&all);
        let parameters = trainer.encoder.bert.parameters();
        let throughput = Throughput::new(workload.pairs as f64, tokens as f64, median, parameters, peak);
        ArmMeasurement { arm, step_seconds: StepSeconds { median, all }, throughput, peak_memory_gb }
    });
    Ok(Measurement { matrix_peak: peak, pairs: workload.pairs, tokens, arms: arms.collect() })
}

fn random_pairs(count: usize, seed: u64) -> TrainingPairs {
    let mut random = SplitMix64::keyed(&[seed]);
    let mut text = |length: usize| -> Vec<u32> {
        let words = (2..length).map(|_| WORDS.start + random.below(WORDS.len()) as u32);
        std::iter::once(CLS).chain(words).chain([SEP]).collect()
    };
    let texts = (0..count).map(|pair| (text(QUERY_LENGTHS[pair % 10]), text(PASSAGE_LENGTHS[pair % 10])));
    TrainingPairs::all(TokenStore::of_tokens(texts), 0)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
