//! How fast a training step is: random tokens in lengths like MS MARCO's, arms step by step in turn.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Instant;

use serde::Serialize;

use crate::bert::BertConfig;
use crate::compare::{median, median_ratio};
use crate::data::{Sampler, TokenStore};
use crate::dual_encoder::DualEncoder;
use crate::memory;
use crate::progress::{Event, Observer};
use crate::random::SplitMix64;
use crate::settings::Settings;
use crate::throughput::Throughput;
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
/// Steps after those, whose operations are timed: on a GPU that costs time of its own.
const PROFILED_STEPS: usize = 5;

/// How many tokens texts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// Queries and passages as MS MARCO's.
    Msmarco,
    /// All alike.
    All(usize),
}

impl Lengths {
    /// The tokens of a pair's query and passage.
    fn of(self, pair: usize) -> [usize; 2] {
        match self {
            Lengths::Msmarco => [QUERY_LENGTHS[pair % 10], PASSAGE_LENGTHS[pair % 10]],
            Lengths::All(length) => [length; 2],
        }
    }
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "msmarco" => Ok(Lengths::Msmarco),
            Ok(length) if (3..=512).contains(&length) => Ok(Lengths::All(length)),
            _ => Err(format!("'{text}' is neither msmarco nor a number of tokens from 3 to 512")),
        }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The model's architecture; its vocabulary is at least BERT's.
    pub model: BertConfig,
    /// Pairs per step.
    pub pairs: usize,
    /// How long the texts are.
    pub lengths: Lengths,
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
    pub arm: String,
    /// Seconds of a step.
    pub step_seconds: StepSeconds,
    /// The median of the ratios of its steps to the first arm's that were made in turn with them.
    pub time_ratio: f64,
    /// Speed at the median.
    #[serde(flatten)]
    pub throughput: Throughput,
    /// Largest memory in 10⁹ bytes: of the process, with all its arms.
    pub peak_memory_gb: f64,
    /// Pages that the system had to provide, per step.
    pub page_faults: f64,
    /// Seconds of a step by operation: means over the steps. What is left of the step is `host`.
    pub operations: BTreeMap<&'static str, f64>,
}

/// What the machine can do at most.
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// The matrix unit that serves the precision.
    pub matrix_unit: String,
    /// Its operations per second.
    pub matrix_peak: f64,
    /// Bytes per second read from memory.
    pub memory_read: f64,
    /// Bytes per second read from memory and written back, both counted.
    pub memory_update: f64,
}

/// Measures the machine.
pub fn limits(settings: &Settings) -> Result<Limits, TrainError> {
    let device = settings.device()?;
    let bandwidth = device.memory_bandwidth();
    let (matrix_unit, matrix_peak) = (device.matrix_unit(), device.matrix_peak());
    device.check()?;
    Ok(Limits { matrix_unit, matrix_peak, memory_read: bandwidth.read, memory_update: bandwidth.update })
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
    let (device, profile) = settings.device()?.profiled();
    let settings = &Settings { batch_size: workload.pairs, from_scratch: true, ..settings.clone() };
    let source = ModelSource::DemoTiny(Box::new(workload.model.clone()));
    let trainers = settings.arms.iter().map(|arm| {
        let bert = source.build(settings, arm, &device)?;
        Ok(Trainer::new(DualEncoder { bert, pooling: settings.pooling }, settings))
    });
    let mut trainers: Vec<Trainer> = trainers.collect::<Result<_, TrainError>>()?;
    let pairs = random_pairs(workload, settings.seed);
    let mut sampler = Sampler::new(pairs.len(), workload.pairs, settings.seed)?;
    let mut taken: Vec<Steps> = trainers.iter().map(|_| Steps::default()).collect();
    let (measured, mut tokens) = (WARMUP_STEPS + workload.steps, 0);
    let total = measured + PROFILED_STEPS;
    observer.observe(Event::StageStarted { what: "Measuring".into(), unit: "steps", total: Some(total as u64) });
    for step in 0..total {
        let batch = TrainingBatch::deal(&pairs, &mut sampler, step as u64);
        trainers.iter().try_for_each(|trainer| trainer.prepare(&batch))?;
        for (trainer, taken) in trainers.iter_mut().zip(&mut taken) {
            profile.record(step >= measured);
            let (started, faults) = (Instant::now(), memory::page_faults());
            tokens = trainer.step(step as u64, &batch, settings.learning_rate)?.tokens;
            let seconds = started.elapsed().as_secs_f64();
            if step >= measured {
                taken.profiled(seconds, profile.take());
            } else if step >= WARMUP_STEPS {
                taken.seconds.push(seconds);
                taken.page_faults += memory::page_faults() - faults;
            }
        }
        observer.observe(Event::StageAdvanced { done: step as u64 + 1 });
    }
    observer.observe(Event::StageFinished);
    let peak_memory_gb = memory::peak(&device) as f64 / 1e9;
    let peak = device.matrix_peak();
    let first = taken.first().map_or_else(Vec::new, |taken| taken.seconds.clone());
    let arms = settings.arms.iter().zip(trainers).zip(taken).map(|((arm, trainer), taken)| {
        let time_ratio = median_ratio(&taken.seconds, &first);
        let median = median(taken.seconds.iter().copied());
        let parameters = trainer.encoder.bert.parameters();
        let throughput = Throughput::new(workload.pairs as f64, tokens as f64, median, parameters, peak);
        let page_faults = taken.page_faults as f64 / workload.steps as f64;
        ArmMeasurement {
            arm: arm.name.clone(),
            step_seconds: StepSeconds { median, all: taken.seconds },
            time_ratio,
            throughput,
            peak_memory_gb,
            page_faults,
            operations: taken.operations,
        }
    });
    Ok(Measurement { matrix_peak: peak, pairs: workload.pairs, tokens, arms: arms.collect() })
}

/// What the steps of an arm took.
#[derive(Default)]
struct Steps {
    seconds: Vec<f64>,
    page_faults: u64,
    operations: BTreeMap<&'static str, f64>,
}

impl Steps {
    /// Takes a profiled step of so many seconds into the means by operation; what no operation took is the host's.
    fn profiled(&mut self, seconds: f64, operations: BTreeMap<&'static str, f64>) {
        let host = seconds - operations.values().sum::<f64>();
        for (operation, seconds) in operations.into_iter().chain([("host", host)]) {
            *self.operations.entry(operation).or_default() += seconds / PROFILED_STEPS as f64;
        }
    }
}

pub(crate) fn random_pairs(workload: &Workload, seed: u64) -> TrainingPairs {
    let mut random = SplitMix64::keyed(&[seed]);
    let mut text = |length: usize| -> Vec<u32> {
        let words = (2..length).map(|_| WORDS.start + random.below(WORDS.len()) as u32);
        std::iter::once(CLS).chain(words).chain([SEP]).collect()
    };
    let texts = (0..workload.pairs).map(|pair| {
        let [query, passage] = workload.lengths.of(pair);
        (text(query), text(passage))
    });
    TrainingPairs::all(TokenStore::of_tokens(texts), 0)
}
