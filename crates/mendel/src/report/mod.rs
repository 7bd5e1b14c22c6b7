//! The report: what a comparison found, for people.

mod curves;
pub mod figure;
mod html;
mod markdown;
mod summary;
pub mod table;
pub mod tensorboard;

use std::path::Path;

use crate::compare::Comparison;
use crate::files::{FileError, write_atomically};
use crate::settings::Settings;
use crate::train::{HistoryError, arm_name, history};
use figure::{Figure, FigureError};

/// The folder of the figures.
pub(crate) const CURVES: &str = "training_curves";

/// All that a report shows.
pub struct Report<'a> {
    settings: &'a Settings,
    comparison: &'a Comparison,
    histories: Vec<RunHistory>,
}

/// What a run logged.
struct RunHistory {
    arm: String,
    rows: Vec<history::Row>,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A history could not be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A figure could not be drawn.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl<'a> Report<'a> {
    /// Of a comparison whose histories are in its output folder.
    ///
    /// # Errors
    /// Where a history cannot be read.
    pub fn new(settings: &'a Settings, comparison: &'a Comparison) -> Result<Self, ReportError> {
        let mut histories = Vec::new();
        for seed in settings.of_each_seed() {
            for arm in &settings.arms {
                let path = settings.output_dir.join("history").join(format!("{}.jsonl", arm_name(arm, &seed)));
                histories.push(RunHistory { arm: arm.name.clone(), rows: history::read(&path)? });
            }
        }
        Ok(Report { settings, comparison, histories })
    }

    /// Writes `report.html`, `report.md`, and each figure as `.svg` and `.png` in `training_curves/`.
    ///
    /// # Errors
    /// Where a figure cannot be drawn, or a file not written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let groups = [
            ("Differences", vec![curves::differences(self)]),
            ("Training", curves::over_training(self)),
            ("Similarities", vec![curves::distributions(self)]),
            ("Genetic attention", curves::genetics(self)),
        ];
        for figure in groups.iter().flat_map(|(_, figures)| figures) {
            let path = |extension: &str| folder.join(CURVES).join(format!("{}.{extension}", figure.name));
            write_atomically(&path("svg"), figure.svg()?.as_bytes())?;
            write_atomically(&path("png"), &figure.png()?)?;
        }
        let groups: Vec<(&str, Vec<Figure>)> = groups.into_iter().filter(|(_, figures)| !figures.is_empty()).collect();
        write_atomically(&folder.join("report.html"), html::page(self, &groups)?.as_bytes())?;
        Ok(write_atomically(&folder.join("report.md"), markdown::page(self, &groups).as_bytes())?)
    }
}
