//! The history again, for TensorBoard: `tensorboard/<arm>-seed<k>/`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::TrainError;
use super::history::{self, Row};
use crate::files::FileError;
use crate::report::tensorboard::EventFile;
use crate::settings::Settings;

/// A run's event file.
#[derive(Debug)]
pub(super) struct Events {
    file: EventFile,
    path: PathBuf,
}

impl Events {
    /// Begins the file of the run `name`, with what the history has of it. `seconds` is the training time so far: the
    /// rows of a resumed run are given the times that they would have without the break.
    pub fn begin(settings: &Settings, name: &str, history: &Path, seconds: f64) -> Result<Self, TrainError> {
        let folder = settings.output_dir.join("tensorboard").join(name);
        let (path, begun) = (EventFile::path(&folder), now() - seconds);
        let file = EventFile::create(&folder, begun).map_err(FileError::when("write", &path))?;
        let mut events = Events { file, path };
        let mut time = begun;
        for row in history::read(history)? {
            if let Row::Step { seconds, .. } = row {
                time = begun + seconds;
            }
            events.append_at(time, &row)?;
        }
        Ok(events)
    }

    /// Adds a row of the history.
    pub fn append(&mut self, row: &Row) -> Result<(), FileError> {
        self.append_at(now(), row)
    }

    fn append_at(&mut self, time: f64, row: &Row) -> Result<(), FileError> {
        let scalars = scalars(row);
        let scalars = scalars.iter().map(|(tag, value)| (tag.as_str(), *value));
        self.file.append(time, row.step(), scalars).map_err(FileError::when("write", &self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn scalars(row: &Row) -> Vec<(String, f64)> {
    match row {
        Row::Step { loss, learning_rate, gradient_norm, pairs_per_second, .. } => [
            ("train/loss", loss),
            ("train/learning_rate", learning_rate),
            ("train/gradient_norm", gradient_norm),
            ("train/pairs_per_second", pairs_per_second),
        ]
        .map(|(tag, value)| (tag.to_owned(), *value))
        .into(),
        Row::Evaluation { measures, .. } => {
            measures.iter().map(|(name, value)| (format!("eval/{name}"), *value)).collect()
        }
        Row::Genetics { view, .. } => {
            let parts = view.named().into_iter();
            let mean = |heads: &[f64]| heads.iter().sum::<f64>() / heads.len() as f64;
            let of_layer =
                |name: &str, layer: usize, heads: &[f64]| (format!("genetic/{name}/layer{layer}"), mean(heads));
            let of_part = |(name, layers): (&'static str, &Vec<Vec<f64>>)| -> Vec<(String, f64)> {
                layers.iter().enumerate().map(|(layer, heads)| of_layer(name, layer, heads)).collect()
            };
            parts.flat_map(of_part).collect()
        }
    }
}
