//! What a finished run leaves for the comparison: `runs/<arm>-seed<k>.json`. A comparison that resumes takes it as it is.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::inputs::Inputs;
use super::run::{TrainedArm, arm_name};
use super::state::Identity;
use crate::arm::Arm;
use crate::bert::BertConfig;
use crate::evaluate::{EmbeddingQuality, Measured, Measures};
use crate::files::{FileError, write_atomically};
use crate::memory;
use crate::settings::Settings;
use crate::throughput::Throughput;

/// The folder of the records in the output folder.
const RUNS: &str = "runs";

const NOT_WHOLE: &str = "a query lacks a measure";

/// One arm trained with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The arm's name.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// The settings and the data that decided the numbers.
    #[serde(flatten)]
    pub identity: Identity,
    /// The model as it was trained.
    pub model: BertConfig,
    /// What was measured.
    pub numbers: RunNumbers,
    /// The evaluated queries.
    pub query_ids: Vec<String>,
    /// By measure, the value of each query.
    pub per_query: BTreeMap<String, Vec<f64>>,
}

/// What was measured of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunNumbers {
    /// Optimizer steps.
    pub steps: u64,
    /// Mean training loss of the last epoch's last 10%.
    pub final_loss: f64,
    /// Costs.
    #[serde(flatten)]
    pub resources: Resources,
    /// The trained model's measures.
    pub eval: Measured,
    /// The same before training.
    pub untrained: Measured,
    /// The largest `mrr@10` of the evaluations during training, and its step.
    pub best: Option<Best>,
    /// The trained model's embedding space.
    pub embedding_quality: EmbeddingQuality,
}

/// The best evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its `mrr@10`.
    #[serde(rename = "mrr@10")]
    pub mrr_at_10: f64,
    /// Optimizer steps done before it.
    pub step: u64,
}

/// What a run cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Training alone, in seconds.
    pub total_time: f64,
    /// Training time of each epoch, in seconds.
    pub epoch_times: Vec<f64>,
    /// The final evaluation, in seconds.
    pub eval_time: f64,
    /// Largest memory in 10⁹ bytes.
    pub peak_memory_gb: f64,
    /// Whose memory: `gpu`, or `process` where arrays are in its own.
    pub peak_memory_kind: String,
    /// Speed.
    pub throughput: Throughput,
}

impl RunRecord {
    /// Of a trained arm; `peak` is the machine's matrix peak in operations per second.
    pub fn new(trained: &TrainedArm, settings: &Settings, inputs: &Inputs, peak: f64) -> Self {
        let (progress, bert) = (&trained.progress, &trained.encoder.bert);
        let pairs = (progress.step * settings.batch_size as u64) as f64;
        let throughput = Throughput::new(pairs, progress.tokens as f64, progress.seconds, bert.parameters(), peak);
        let evaluation = &trained.evaluation;
        let numbers = RunNumbers {
            steps: progress.step,
            final_loss: progress.final_losses.iter().sum::<f64>() / progress.final_losses.len() as f64,
            resources: Resources {
                total_time: progress.seconds,
                epoch_times: progress.epoch_seconds.clone(),
                eval_time: evaluation.seconds,
                peak_memory_gb: progress.peak_memory as f64 / 1e9,
                peak_memory_kind: memory::peak_kind(&inputs.device).into(),
                throughput,
            },
            eval: evaluation.measured.clone(),
            untrained: trained.untrained.measured.clone(),
            best: progress.best.map(|(mrr_at_10, step)| Best { mrr_at_10, step }),
            embedding_quality: evaluation.quality.clone(),
        };
        let of_measure = |place: usize| evaluation.per_query.iter().map(move |query| query.values()[place]).collect();
        let names = Measures::NAMES.iter().enumerate();
        RunRecord {
            arm: trained.arm.name.clone(),
            seed: settings.seed,
            identity: Identity::new(settings, &trained.arm, &inputs.fingerprints),
            model: bert.config().clone(),
            numbers,
            query_ids: inputs.evaluator.set.query_ids.clone(),
            per_query: names.map(|(place, name)| ((*name).to_owned(), of_measure(place))).collect(),
        }
    }

    /// Of the run of an arm with the settings' seed, where it is finished.
    ///
    /// # Errors
    /// Where its record cannot be read.
    pub fn find(settings: &Settings, arm: &Arm) -> Result<Option<Self>, TrainError> {
        let path = Self::path(settings, arm);
        match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::when("read", &path)(error).into()),
            Ok(bytes) => {
                let record: Result<Self, String> = serde_json::from_slice(&bytes).map_err(|error| error.to_string());
                let whole =
                    record.and_then(|record| if record.is_whole() { Ok(record) } else { Err(NOT_WHOLE.into()) });
                whole.map(Some).map_err(|reason| TrainError::Record { path, reason })
            }
        }
    }

    /// Whether every query has every measure.
    fn is_whole(&self) -> bool {
        let queries = self.query_ids.len();
        let has = |name: &&str| self.per_query.get(*name).is_some_and(|values| values.len() == queries);
        queries > 0 && Measures::NAMES.iter().all(has)
    }

    /// Whether both are of the same queries, so that they can be compared.
    pub fn is_comparable(&self, other: &RunRecord) -> bool {
        self.query_ids == other.query_ids && self.identity.same_data(&other.identity)
    }

    /// Refuses a record that is of other settings or data.
    pub fn check(&self, settings: &Settings, arm: &Arm, inputs: &Inputs) -> Result<(), TrainError> {
        self.identity.check(&Self::path(settings, arm), &Identity::new(settings, arm, &inputs.fingerprints))
    }

    /// Writes it, whole.
    pub fn write(&self, settings: &Settings, arm: &Arm) -> Result<(), TrainError> {
        let mut text = serde_json::to_vec(self).expect("a record is plain data");
        text.push(b'\n');
        Ok(write_atomically(&Self::path(settings, arm), &text)?)
    }

    /// Removes that of an earlier run.
    pub fn remove(settings: &Settings, arm: &Arm) -> Result<(), TrainError> {
        let path = Self::path(settings, arm);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::when("remove", &path)(error).into()),
            _ => Ok(()),
        }
    }

    fn path(settings: &Settings, arm: &Arm) -> PathBuf {
        Path::new(&settings.output_dir).join(RUNS).join(format!("{}.json", arm_name(arm, settings)))
    }
}
