//! The history of a training run: `history/<arm>-seed<k>.jsonl`, a line of JSON per logged step and per evaluation.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::attention::GeneticView;
use crate::files::{FileError, write_atomically};

/// A line of history. A number that is infinite or not a number, as in a run that diverged, is written as `null`, and
/// read back as NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// A logged training step.
    Step {
        /// Optimizer steps done, this one included.
        step: u64,
        /// The pass over the training pairs that it belongs to, from 1.
        epoch: u64,
        /// Training loss of the step's batch.
        #[serde(deserialize_with = "nan_if_null")]
        loss: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Global norm of the gradients, before they are clipped.
        #[serde(deserialize_with = "nan_if_null")]
        gradient_norm: f64,
        /// Training speed since the row before.
        #[serde(deserialize_with = "nan_if_null")]
        pairs_per_second: f64,
        /// Training time so far.
        seconds: f64,
    },
    /// An evaluation.
    Evaluation {
        /// Optimizer steps done before it.
        step: u64,
        /// How long it took.
        seconds: f64,
        /// What was measured, by name: `mrr@10`, `in_batch/recall@1`, ….
        #[serde(flatten, deserialize_with = "nan_if_any_null")]
        measures: BTreeMap<String, f64>,
    },
    /// How genetic attention acts on the first texts that are evaluated.
    Genetics {
        /// Optimizer steps done before it.
        step: u64,
        /// By layer and head.
        #[serde(flatten)]
        view: GeneticView,
    },
}

impl Row {
    /// Optimizer steps done.
    pub fn step(&self) -> u64 {
        match self {
            Row::Step { step, .. } | Row::Evaluation { step, .. } | Row::Genetics { step, .. } => *step,
        }
    }
}

fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn nan_if_any_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// Why a history could not be read or written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum HistoryError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line, not at the end, is no row.
    #[error("line {line} of '{}' is no row of a history: {reason}; mend or remove the file", path.display())]
    BadLine { path: PathBuf, line: usize, reason: String },
}

/// A history being written.
///
/// For a resumed run to have the history of one that was not stopped, all rows of a step are appended, and
/// [`History::sync`] called, before the checkpoint of that step is saved.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    file: File,
}

impl History {
    /// Begins a history, in place of any that is there. Creates the folders above it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: impl Into<PathBuf>) -> Result<History, HistoryError> {
        let path = path.into();
        write_atomically(&path, b"")?;
        History::open(path)
    }

    /// Continues the history of a run that goes on from the checkpoint of `step`: the rows of later steps are removed,
    /// and with them the unfinished line that a kill may leave. A missing file is begun.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is no history.
    pub fn resume(path: impl Into<PathBuf>, step: u64) -> Result<History, HistoryError> {
        let path = path.into();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(FileError::when("read", &path))?,
        };
        let mut kept = Vec::with_capacity(bytes.len());
        for (line, row) in parse(&path, &bytes)? {
            if row.step() <= step {
                // As it was written, in case another version put in more than this one reads.
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        write_atomically(&path, &kept)?;
        History::open(path)
    }

    fn open(path: PathBuf) -> Result<History, HistoryError> {
        let file = OpenOptions::new().append(true).open(&path).map_err(FileError::when("write", &path))?;
        Ok(History { path, file })
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a row, at once and whole, so that the file can be followed while the run works.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, row: &Row) -> Result<(), HistoryError> {
        let line = serde_json::to_string(row).map_err(io::Error::from).map(|line| line + "\n");
        let written = line.and_then(|line| self.file.write_all(line.as_bytes()));
        Ok(written.map_err(FileError::when("write", &self.path))?)
    }

    /// Returns once all rows will survive a power cut.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn sync(&mut self) -> Result<(), HistoryError> {
        Ok(self.file.sync_data().map_err(FileError::when("write", &self.path))?)
    }
}

/// Reads a history, also one that is being written.
///
/// # Errors
/// When the file cannot be read or is no history.
pub fn read(path: &Path) -> Result<Vec<Row>, HistoryError> {
    let bytes = std::fs::read(path).map_err(FileError::when("read", path))?;
    Ok(parse(path, &bytes)?.into_iter().map(|(_, row)| row).collect())
}

/// The lines with their rows. Lines at the end that are no rows are left out: a kill or a power cut leaves such.
fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a [u8], Row)>, HistoryError> {
    let mut rows = Vec::new();
    let mut unreadable = None;
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match (serde_json::from_slice(line), &unreadable) {
            (Ok(row), None) => rows.push((line, row)),
            (Err(error), None) => unreadable = Some((index + 1, error)),
            (Err(_), Some(_)) => {}
            (Ok(_), Some((line, error))) => {
                return Err(HistoryError::BadLine { path: path.into(), line: *line, reason: error.to_string() });
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step_row(step: u64) -> Row {
        Row::Step {
            step,
            epoch: 1,
            loss: 1.0 / step as f64,
            learning_rate: 2e-5,
            gradient_norm: 0.1 + 0.2,
            pairs_per_second: 100.0,
            seconds: step as f64 / 3.0,
        }
    }

    fn evaluation_row(step: u64) -> Row {
        let measures = [("mrr@10".into(), 0.3), ("recall@1".into(), 1.0 / 3.0)].into();
        Row::Evaluation { step, seconds: 1.5, measures }
    }

    /// Steps 1 to 9, with an evaluation every third.
    fn write_steps(history: &mut History, from: u64) {
        for step in from..10 {
            history.append(&step_row(step)).unwrap();
            if step % 3 == 0 {
                history.append(&evaluation_row(step)).unwrap();
            }
        }
        history.sync().unwrap();
    }

    #[test]
    fn a_row_is_one_line_with_the_documented_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history/standard-seed1.jsonl");
        let mut history = History::create(&path).unwrap();
        history.append(&step_row(1)).unwrap();
        history.append(&evaluation_row(1)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = concat!(
            r#"{"kind":"step","step":1,"epoch":1,"loss":1.0,"learning_rate":0.00002,"gradient_norm":0.30000000000000004,"#,
            r#""pairs_per_second":100.0,"seconds":0.3333333333333333}"#,
            "\n",
            r#"{"kind":"evaluation","step":1,"seconds":1.5,"mrr@10":0.3,"recall@1":0.3333333333333333}"#,
            "\n",
        );
        assert_eq!(text, expected);
        assert_eq!(read(&path).unwrap(), [step_row(1), evaluation_row(1)]);
    }

    #[test]
    fn the_history_of_a_diverged_run_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.jsonl");
        let mut history = History::create(&path).unwrap();
        let Row::Step { epoch, learning_rate, pairs_per_second, seconds, .. } = step_row(1) else { unreachable!() };
        let (loss, gradient_norm) = (f64::NAN, f64::INFINITY);
        let row = Row::Step { step: 1, epoch, loss, learning_rate, gradient_norm, pairs_per_second, seconds };
        history.append(&row).unwrap();
        let measures = [("alignment".to_string(), f64::NAN)].into();
        history.append(&Row::Evaluation { step: 1, seconds, measures }).unwrap();
        let rows = read(&path).unwrap();
        assert!(matches!(rows[0], Row::Step { loss, gradient_norm, .. } if loss.is_nan() && gradient_norm.is_nan()));
        assert!(matches!(&rows[1], Row::Evaluation { measures, .. } if measures["alignment"].is_nan()));
    }

    #[test]
    fn a_bad_line_in_the_middle_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.jsonl");
        write_steps(&mut History::create(&path).unwrap(), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"loss\":0.5", "\"loss\":?", 1)).unwrap();
        for error in [read(&path).unwrap_err(), History::resume(&path, 5).unwrap_err()] {
            let message = error.to_string();
            assert!(message.starts_with("line 2 of '") && message.contains("h.jsonl"), "{message}");
        }
    }

    #[test]
    fn a_history_that_is_gone_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.jsonl");
        write_steps(&mut History::resume(&path, 6).unwrap(), 7);
        assert_eq!(read(&path).unwrap().len(), 4);
    }

    proptest! {
        // Each case waits for the disk several times.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_resumed_history_is_that_of_an_uninterrupted_run(
            checkpoint in 0u64..9,
            cut: prop::sample::Index,
            garbage in prop::sample::select(vec!["", "\0\0\0", "\n\0\n"]),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (whole, stopped) = (folder.path().join("whole.jsonl"), folder.path().join("stopped.jsonl"));
            write_steps(&mut History::create(&whole).unwrap(), 1);
            let expected = std::fs::read(&whole).unwrap();

            // What was synced before the checkpoint is there; of what follows, anything.
            let synced: usize = expected
                .split_inclusive(|&byte| byte == b'\n')
                .filter(|line| serde_json::from_slice::<Row>(line).unwrap().step() <= checkpoint)
                .map(<[u8]>::len)
                .sum();
            let length = synced + cut.index(expected.len() - synced + 1);
            std::fs::write(&stopped, [&expected[..length], garbage.as_bytes()].concat()).unwrap();
            write_steps(&mut History::resume(&stopped, checkpoint).unwrap(), checkpoint + 1);
            prop_assert_eq!(std::fs::read(&stopped).unwrap(), expected);
        }
    }
}
