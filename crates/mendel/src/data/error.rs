//! What can be wrong with data, in words that say where and what to do.

use std::path::PathBuf;

use super::report::{LoadReport, Location};
use crate::hub::HubError;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Neither a path nor a name of built-in data or of the Hub's.
    #[error(
        "there is no file, folder or dataset '{name}'; give a file or folder, the name msmarco-v2.1, \
         or try the built-in data with --preset demo"
    )]
    NotFound {
        /// As it was given.
        name: String,
    },
    /// A dataset of the Hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A gzip file that ends early.
    #[error("{path} is a gzip file that ends too soon, after row {row}: it was not copied in full; get it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The last line or row that could be read whole.
        row: u64,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file whose content is none of the formats.
    #[error(
        "{path} is not training data: {why}; it should be MS MARCO v2.1 as Parquet, JSONL or the official JSON, \
         JSONL or Parquet of {{\"query\", \"positive\", \"negatives\"?}}, or TSV of query and positive"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// A Parquet file that is not whole.
    #[error(
        "{path} is a damaged Parquet file, from row {row} on ({why}): it was not copied in full or not in order; get it again"
    )]
    DamagedParquet {
        /// The file.
        path: PathBuf,
        /// The row that cannot be read, from 1; 0 where the file's own description cannot be.
        row: u64,
        /// What the reader said.
        why: String,
    },
    /// Column-oriented JSON that is not whole.
    #[error(
        "{path} is broken column-oriented JSON at row {row} of '{column}' ({why}): it was not copied in full or not in order; get it again"
    )]
    BrokenColumns {
        /// The file.
        path: PathBuf,
        /// The row of the column at which reading ended, from 1.
        row: u64,
        /// The column.
        column: String,
        /// What is wrong, and in which line and column of the text.
        why: String,
    },
    /// Labels that nobody but the organisers knows.
    #[error(
        "{source_name} has hidden labels: in {rows} rows every passage is labelled −1, unknown, as in MS MARCO's test \
         split; nothing can be trained or evaluated on them, use the train or the validation split"
    )]
    HiddenLabels {
        /// What was loaded.
        source_name: String,
        /// Rows with hidden labels.
        rows: u64,
    },
    /// A row that is not what it should be.
    #[error("{at}: {why}")]
    Row {
        /// Where.
        at: Location,
        /// What is wrong.
        why: String,
    },
    /// A folder that is no collection in BEIR's layout.
    #[error("{folder} is not in BEIR's layout: it has no {missing}")]
    NotBeir {
        /// The folder.
        folder: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// A split that a collection does not have.
    #[error("{folder} has no {split}.tsv: {}", if splits.is_empty() { "it has no judgements at all".to_owned() } else { format!("the splits there are {}", splits.join(", ")) })]
    NoSplit {
        /// The folder of judgements.
        folder: PathBuf,
        /// What was asked for.
        split: String,
        /// What there is.
        splits: Vec<String>,
    },
    /// A collection without a `train` split.
    #[error(
        "{folder} has no qrels/train.tsv to train on: judgements that a model is tested with are not trained on; \
         mendel eval --task beir evaluates a model on them"
    )]
    NoTrainSplit {
        /// The collection.
        folder: PathBuf,
    },
    /// A file without a judgement.
    #[error("{path} has no judgement in it")]
    NoJudgements {
        /// The file.
        path: PathBuf,
    },
    /// A folder without any file of a known format.
    #[error("{folder} has no training data in it: {}", listed(.left_out))]
    EmptyFolder {
        /// The folder.
        folder: PathBuf,
        /// Its files, each with why it is not data.
        left_out: Vec<String>,
    },
    /// More malformed rows than `--max-bad-rows` allows.
    #[error(
        "{source_name}: {bad} of {rows} rows are malformed ({reasons}), more than --max-bad-rows {allowed} allows; \
         the first is {first}; mend the file, or raise --max-bad-rows to leave such rows out",
        bad = .report.malformed(), rows = .report.rows, reasons = .report.reasons()
    )]
    TooManyBadRows {
        /// What was loaded.
        source_name: String,
        /// The share that is allowed.
        allowed: f64,
        /// Where the first one is.
        first: Location,
        /// The counts.
        report: LoadReport,
    },
    /// Not one pair to train on.
    #[error("{source_name} has no usable pair: {}", counted(.report))]
    NothingUsable {
        /// What was loaded.
        source_name: String,
        /// The counts.
        report: LoadReport,
    },
    /// Fewer pairs than one optimizer step takes.
    #[error(
        "{pairs} training pairs do not fill one batch of {batch_size}; give more data or a --batch-size of at most {pairs}"
    )]
    FewerThanABatch {
        /// Pairs there are.
        pairs: usize,
        /// Pairs a batch takes.
        batch_size: usize,
    },
    /// Tokens cannot be kept on disk.
    #[error("cannot keep tokens in {path}: {source}; make room there, or name another folder with --cache-dir")]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No folder for caches is known.
    #[error("there is no home folder to keep tokens in: name a folder with --cache-dir")]
    NoCache,
    /// A batch of nothing.
    #[error("--batch-size must be at least 1")]
    EmptyBatch,
}

fn listed(left_out: &[String]) -> String {
    if left_out.is_empty() {
        "it has no files (folders inside it are not searched)".into()
    } else {
        left_out.join("; ")
    }
}

fn counted(report: &LoadReport) -> String {
    if report.rows == 0 { "it has no rows".into() } else { format!("of {} rows {}", report.rows, report.reasons()) }
}
