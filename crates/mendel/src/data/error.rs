//! What can be wrong with data, in words that say where and what to do.

use std::path::PathBuf;

use super::report::{LoadReport, Location};

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Neither a path nor a name of built-in data.
    #[error(
        "there is no file or folder '{name}', and fetching a dataset by name from the Hub is not in this version; \
         download it and give the file or folder, or try the built-in data with --preset demo"
    )]
    NotFound {
        /// As it was given.
        name: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A gzip file that ends early.
    #[error("{path} is a gzip file that ends too soon, after line {line}: it was not copied in full; get it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The last line that could be read whole.
        line: u64,
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
        "{path} is not training data: {why}; it should be JSONL of MS MARCO v2.1 rows or of \
         {{\"query\", \"positive\", \"negatives\"?}}, or TSV of query and positive, plain or gzip"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        why: String,
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
