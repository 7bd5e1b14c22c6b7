//! From the name of a dataset to its pairs.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::format::Format;
use super::lines::Lines;
use super::report::{LoadReport, Location};
use super::{DataError, Pair, RefusedReason, demo};
use crate::progress::{Event, Observer};

const ROWS_PER_EVENT: u64 = 1000;

/// Parts of a file's name that mark it as held out.
const HELD_OUT_NAMES: [&str; 6] = ["dev", "validation", "valid", "val", "test", "eval"];

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
    /// SHA-256 over the pairs, in hex: two loads of the same pairs in the same order agree on it.
    pub fingerprint: String,
}

impl Dataset {
    pub(super) fn new(name: &str, pairs: Vec<Pair>, report: LoadReport) -> Self {
        let fingerprint = fingerprint(&pairs);
        Dataset { name: name.to_string(), pairs, report, fingerprint }
    }
}

/// Loads `demo`, a file, or a folder's files in the order of their names (not the folders in it). In a folder, files
/// named as held out (`dev`, `test`, …) are left out, unless there is nothing else.
///
/// # Errors
/// Where there is nothing to load, a file cannot be read or recognised, more than `max_bad_rows` of the rows are
/// malformed, or no row is usable.
pub fn load(source: &str, options: &LoadOptions, observer: &mut dyn Observer) -> Result<Dataset, DataError> {
    let dataset = load_rows(source, observer)?;
    let report = &dataset.report;
    if report.malformed() as f64 > options.max_bad_rows * report.rows as f64 {
        let broken =
            report.refused.iter().filter(|(reason, _)| reason.is_malformed()).map(|(_, refused)| &refused.first);
        if let Some(first) = broken.min_by_key(|first| (&first.file, first.line)).cloned() {
            let (source_name, allowed) = (source.to_string(), options.max_bad_rows);
            return Err(DataError::TooManyBadRows { source_name, allowed, first, report: dataset.report });
        }
    }
    if dataset.pairs.is_empty() {
        return Err(DataError::NothingUsable { source_name: source.to_string(), report: dataset.report });
    }
    Ok(dataset)
}

/// As [`load`], however many rows are refused.
pub(super) fn load_rows(source: &str, observer: &mut dyn Observer) -> Result<Dataset, DataError> {
    if source == "demo" {
        let pairs = demo::demo().train;
        let rows = pairs.len() as u64;
        return Ok(Dataset::new(source, pairs, LoadReport { rows, usable: rows, ..LoadReport::default() }));
    }
    let path = Path::new(source);
    let files = if path.is_dir() {
        data_files(path, observer)?
    } else if path.exists() {
        Format::of(path)?.map(|format| (path.to_path_buf(), format)).into_iter().collect()
    } else {
        return Err(DataError::NotFound { name: source.to_string() });
    };
    let mut pairs = Vec::new();
    let mut report = LoadReport::default();
    for (file, format) in files {
        load_file(&file, format, &mut pairs, &mut report, observer)?;
    }
    Ok(Dataset::new(source, pairs, report))
}

fn load_file(
    path: &Path,
    format: Format,
    pairs: &mut Vec<Pair>,
    report: &mut LoadReport,
    observer: &mut dyn Observer,
) -> Result<(), DataError> {
    let mut lines = Lines::open(path)?;
    observer.observe(Event::StageStarted { what: format!("Reading {}", file_name(path)), unit: "rows", total: None });
    if format == (Format::Tsv { header: true }) {
        lines.next()?;
    }
    let before = report.rows;
    while let Some(line) = lines.next()? {
        report.rows += 1;
        match line.bytes.as_deref().map_or(Err(RefusedReason::TooLong), |row| format.parse(row)) {
            Ok(pair) => {
                report.usable += 1;
                pairs.push(pair);
            }
            Err(reason) => report.refuse(reason, || Location { file: path.to_path_buf(), line: line.number }),
        }
        if (report.rows - before).is_multiple_of(ROWS_PER_EVENT) {
            observer.observe(Event::StageAdvanced { done: report.rows - before });
        }
    }
    observer.observe(Event::StageAdvanced { done: report.rows - before });
    observer.observe(Event::StageFinished);
    Ok(())
}

/// The folder's files that hold training data, each with its format, and a word on those that do not.
fn data_files(folder: &Path, observer: &mut dyn Observer) -> Result<Vec<(PathBuf, Format)>, DataError> {
    let mut files = Vec::new();
    let mut left_out = Vec::new();
    for path in visible_files(folder)? {
        match Format::of(&path) {
            Ok(Some(format)) => files.push((path, format)),
            Ok(None) => left_out.push(format!("{} is empty", path.display())),
            Err(DataError::UnknownFormat { path, why }) => left_out.push(format!("{}: {why}", path.display())),
            Err(error) => return Err(error),
        }
    }
    if files.iter().any(|(path, _)| !is_held_out(path)) {
        let (held_out, training): (Vec<_>, Vec<_>) = files.into_iter().partition(|(path, _)| is_held_out(path));
        files = training;
        let named = |(path, _): &(PathBuf, Format)| format!("{} is held out by its name", path.display());
        left_out.extend(held_out.iter().map(named));
    }
    if files.is_empty() {
        return Err(DataError::EmptyFolder { folder: folder.to_path_buf(), left_out });
    }
    if !left_out.is_empty() {
        observer.observe(Event::Warning(format!("not all of {} is read: {}", folder.display(), left_out.join("; "))));
    }
    Ok(files)
}

fn visible_files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read_error = |source| DataError::Read { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        if path.is_file() && !file_name(&path).starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_held_out(path: &Path) -> bool {
    file_name(path).to_lowercase().split(['.', '-', '_']).any(|part| HELD_OUT_NAMES.contains(&part))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Every text with its length before it, so that no two lists of pairs read alike.
fn fingerprint(pairs: &[Pair]) -> String {
    let mut hash = Sha256::new();
    for pair in pairs {
        hash.update((pair.negatives.len() as u64).to_le_bytes());
        for text in [&pair.query, &pair.positive].into_iter().chain(&pair.negatives) {
            update_with_text(&mut hash, text);
        }
    }
    hex(hash)
}

pub(super) fn update_with_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
