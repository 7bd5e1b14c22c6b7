//! What can go wrong in training.

use std::path::PathBuf;

use super::checkpoint::CheckpointError;
use super::history::HistoryError;
use mendel_engine::cuda::CudaError;

use crate::bert::ModelError;
use crate::data::DataError;
use crate::evaluate::EvaluationError;
use crate::files::FileError;
use crate::hub::HubError;
use crate::report::ReportError;
use crate::settings::InvalidSetting;
use crate::tokenizer::TokenizerError;

/// Why a training run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model named is neither a folder nor built in, nor can it be a name on the Hub.
    #[error(
        "there is no model folder '{0}', and it cannot be a name on the Hub, which is NAME or OWNER/NAME; give a folder or a name, or try the built-in model with --preset demo"
    )]
    NoModel(String),
    /// The tokenizer has more tokens than the model.
    #[error(
        "the tokenizer of '{model}' has {tokens} tokens, but the model's vocabulary has {vocabulary}: they do not belong together"
    )]
    Vocabulary {
        /// The model.
        model: String,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Entries of the model's vocabulary.
        vocabulary: usize,
    },
    /// No pair has a hard negative, and there is no other.
    #[error(
        "there is nothing to contrast: with --batch-size 1 the only negatives are hard ones, and no pair of '{0}' has any"
    )]
    NothingToContrast(String),
    /// A model folder's file on how its texts are encoded.
    #[error("{} does not say how the model's texts are encoded: {reason}; mend the file, or remove it to encode as the settings say", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Some parameters are not trained.
    #[error(
        "no gradient reaches {count} of the model's tensors, {first} among them: \
         the loss does not depend on them, or all texts of the first batch are equal"
    )]
    NoGradient {
        /// One of them.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// The loss, a gradient or a weight is not finite.
    #[error(
        "step {step}: the {what} is not finite; train again with a lower --learning-rate, more --warmup-steps or a lower --max-grad-norm, in another --output-dir to keep this run's checkpoints (training pairs {pairs:?})"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss, the gradient, or the model after the step.
        what: &'static str,
        /// The pairs of the batch, by their places in the dataset.
        pairs: Vec<usize>,
    },
    /// A checkpoint or record of another run.
    #[error(
        "'{}' is of other {what}: {}; resume with what it was, or begin anew in another --output-dir",
        path.display(), differences.join("; ")
    )]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// Settings or data.
        what: &'static str,
        /// Each difference.
        differences: Vec<String>,
    },
    /// Results of other settings are where a run's are to go.
    #[error(
        "'{}' holds what other settings have left: {}; name another --output-dir, go on with those settings and --resume, or remove it all with --overwrite",
        folder.display(),
        shortened(differences)
    )]
    OtherResults {
        /// The output folder.
        folder: PathBuf,
        /// Each difference.
        differences: Vec<String>,
    },
    /// A checkpoint whose state cannot be read.
    #[error("checkpoint '{}' holds a state that this version cannot read: {reason}", path.display())]
    State {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A record of a finished run that cannot be read.
    #[error("'{}' is no record of a run that this version can read: {reason}; remove it to evaluate that run again", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file of an earlier comparison is not what it should be.
    #[error("'{}' is not what a comparison leaves: {reason}", path.display())]
    Artefact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A comparison of which a run is missing.
    #[error("the comparison in '{}' has no finished run {run}: finish it with mendel compare --resume", folder.display())]
    Unfinished {
        /// The comparison's folder.
        folder: PathBuf,
        /// The run.
        run: String,
    },
    /// A folder of which a report is asked, where there is nothing to compare.
    #[error(
        "'{}' holds one arm, {arm}, and so no comparison to report on: its results are in {arm}_attention_results.json",
        folder.display()
    )]
    OneArm {
        /// The folder.
        folder: PathBuf,
        /// The arm.
        arm: String,
    },
    /// A setting that the model cannot have.
    #[error("{0}")]
    Setting(#[source] InvalidSetting),
    /// What went wrong at one point of a sweep.
    #[error("point {point} of the sweep ({values}): {source}")]
    Point {
        /// Its number, from 1.
        point: usize,
        /// The values of its settings.
        values: String,
        /// What went wrong.
        source: Box<TrainError>,
    },
    /// The settings cannot be written.
    #[error("the settings cannot be written to config.toml: {0}")]
    Config(String),
    /// A model of the Hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer could not be read or written.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An operation failed.
    #[error(transparent)]
    Engine(mendel_engine::Error),
    /// A step or an evaluation does not fit into the GPU's memory.
    #[error("{0}; less is needed with --loss-micro-batch, a lower --max-seq-len or --precision bf16")]
    OutOfMemory(#[source] CudaError),
    /// An evaluation failed.
    #[error(transparent)]
    Evaluation(EvaluationError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The history could not be read or written.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The report could not be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The first of many differences.
fn shortened(differences: &[String]) -> String {
    let (shown, more) = differences.split_at(differences.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    shown.join("; ") + &more
}

impl From<mendel_engine::Error> for TrainError {
    fn from(error: mendel_engine::Error) -> Self {
        match error {
            mendel_engine::Error::Cuda(error @ CudaError::OutOfMemory { .. }) => TrainError::OutOfMemory(error),
            error => TrainError::Engine(error),
        }
    }
}

impl From<EvaluationError> for TrainError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Engine(error) => error.into(),
            error => TrainError::Evaluation(error),
        }
    }
}
