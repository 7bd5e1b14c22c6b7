//! Reading pairs, row by row, and what became of the rows.

use super::fingerprint::{Fingerprint, text_key};
use super::report::{LoadReport, Location};
use super::source::{DataFile, Source, file_name};
use super::{DataError, Pair, RefusedReason, demo};
use crate::progress::{Event, Observer};

/// The name of the built-in dataset.
pub(super) const DEMO: &str = "demo";

const ROWS_PER_EVENT: u64 = 1000;

/// How strict loading is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    /// The share of malformed rows, of all rows, above which loading fails.
    pub max_bad_rows: f64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { max_bad_rows: 0.01 }
    }
}

/// Pairs in the order of the files they came from.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// As it was asked for.
    pub name: String,
    /// The usable rows.
    pub pairs: Vec<Pair>,
    /// What became of all rows.
    pub report: LoadReport,
}

/// Loads the training pairs of a dataset into memory: `demo`, a name on the Hub, a file, or a folder.
///
/// # Errors
/// Where there is nothing to load, a file cannot be read or recognised, more than `max_bad_rows` of the rows are
/// malformed, or no row is usable.
pub fn load(source: &str, options: &LoadOptions, observer: &mut dyn Observer) -> Result<Dataset, DataError> {
    let mut pairs = Vec::new();
    let report = for_each_pair(source, observer, &mut |pair| {
        pairs.push(pair);
        Ok(())
    })?;
    options.check(source, &report)?;
    Ok(Dataset { name: source.to_string(), pairs, report })
}

/// Calls `each` with every training pair of a dataset, one after the other.
pub(super) fn for_each_pair(
    source: &str,
    observer: &mut dyn Observer,
    each: &mut dyn FnMut(Pair) -> Result<(), DataError>,
) -> Result<LoadReport, DataError> {
    if source != DEMO {
        let files = Source::find(source, observer)?;
        files.ensure_trains()?;
        return read_files(&files.training, "Reading", observer, each);
    }
    let pairs = demo::demo().train;
    let rows = pairs.len() as u64;
    pairs.into_iter().try_for_each(each)?;
    Ok(LoadReport { rows, usable: rows, ..LoadReport::default() })
}

/// Calls `each` with every pair of files, one after the other. `doing` is told with each file's name.
pub(super) fn read_files(
    files: &[DataFile],
    doing: &str,
    observer: &mut dyn Observer,
    each: &mut dyn FnMut(Pair) -> Result<(), DataError>,
) -> Result<LoadReport, DataError> {
    let mut report = LoadReport::default();
    for DataFile { path, format } in files {
        let what = format!("{doing} {}", file_name(path));
        observer.observe(Event::StageStarted { what, unit: "rows", total: None });
        let before = report.rows;
        format.read(path, &mut |line, row| {
            report.rows += 1;
            match row {
                Ok(pair) => {
                    report.usable += 1;
                    each(pair)?;
                }
                Err(reason) => report.refuse(reason, || Location { file: path.clone(), line }),
            }
            if (report.rows - before).is_multiple_of(ROWS_PER_EVENT) {
                observer.observe(Event::StageAdvanced { done: report.rows - before });
            }
            Ok(())
        })?;
        observer.observe(Event::StageAdvanced { done: report.rows - before });
        observer.observe(Event::StageFinished);
    }
    Ok(report)
}

impl LoadOptions {
    /// Refuses a dataset of which too much is malformed, or nothing usable.
    pub(super) fn check(&self, source: &str, report: &LoadReport) -> Result<(), DataError> {
        let source_name = source.to_string();
        if report.malformed() as f64 > self.max_bad_rows * report.rows as f64 {
            let broken =
                report.refused.iter().filter(|(reason, _)| reason.is_malformed()).map(|(_, refused)| &refused.first);
            if let Some(first) = broken.min_by_key(|first| (&first.file, first.line)).cloned() {
                let (allowed, report) = (self.max_bad_rows, report.clone());
                return Err(DataError::TooManyBadRows { source_name, allowed, first, report });
            }
        }
        match report.refused.get(&RefusedReason::HiddenLabels) {
            _ if report.usable > 0 => Ok(()),
            Some(hidden) => Err(DataError::HiddenLabels { source_name, rows: hidden.count }),
            None => Err(DataError::NothingUsable { source_name, report: report.clone() }),
        }
    }
}

/// SHA-256 over pairs, in hex: what gives the same pairs in the same order agrees on it.
#[derive(Clone, Default)]
pub(super) struct PairsFingerprint(Fingerprint);

impl PairsFingerprint {
    pub(super) fn add(&mut self, pair: &Pair) {
        self.0.add(pair.negatives.len() as u64);
        [&pair.query, &pair.positive].into_iter().chain(&pair.negatives).for_each(|text| self.0.add(text_key(text)));
    }

    pub(super) fn finish(self) -> String {
        self.0.finish()
    }
}
