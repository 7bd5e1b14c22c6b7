//! What happened to each row of a dataset.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a row is not a training pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedReason {
    /// No passage is selected: ordinary in MS MARCO, where some questions have no answer.
    NoSelectedPassage,
    /// Every label is −1, unknown, as in MS MARCO's test split.
    HiddenLabels,
    /// The query or the positive is empty or white space.
    EmptyText,
    /// A field is missing or of another type than the format's, or the lists of passages differ in length.
    WrongType,
    /// Not a JSON object, in a file of JSON rows.
    NotJson,
    /// A TSV row without a second column.
    NoSecondColumn,
    /// Not UTF-8.
    BadUtf8,
    /// Longer than any text is: 64 MiB.
    TooLong,
}

impl RefusedReason {
    /// Whether the row is broken, rather than a sound one that has no positive to offer.
    pub fn is_malformed(self) -> bool {
        !matches!(self, RefusedReason::NoSelectedPassage | RefusedReason::HiddenLabels)
    }
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefusedReason::NoSelectedPassage => "no selected passage",
            RefusedReason::HiddenLabels => "hidden labels",
            RefusedReason::EmptyText => "empty text",
            RefusedReason::WrongType => "wrong or missing field",
            RefusedReason::NotJson => "not JSON",
            RefusedReason::NoSecondColumn => "no second column",
            RefusedReason::BadUtf8 => "bad UTF-8",
            RefusedReason::TooLong => "longer than 64 MiB",
        })
    }
}

/// A row of a file. Shown as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The file.
    pub file: PathBuf,
    /// Its line, or in Parquet and column-oriented JSON its row, from 1.
    pub line: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The rows refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Location,
}

/// How many rows there were and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// All rows; lines of white space are none.
    pub rows: u64,
    /// Rows that are pairs now.
    pub usable: u64,
    /// The others.
    pub refused: BTreeMap<RefusedReason, Refused>,
}

impl LoadReport {
    /// Notes a refused row.
    pub(super) fn refuse(&mut self, reason: RefusedReason, at: impl FnOnce() -> Location) {
        self.refused
            .entry(reason)
            .and_modify(|refused| refused.count += 1)
            .or_insert_with(|| Refused { count: 1, first: at() });
    }

    /// Says of each file where it is now.
    pub(super) fn relocate(&mut self, now: impl Fn(&Path) -> PathBuf) {
        self.refused.values_mut().for_each(|refused| refused.first.file = now(&refused.first.file));
    }

    /// Rows that are broken: those that `--max-bad-rows` is about.
    pub fn malformed(&self) -> u64 {
        self.refused.iter().filter(|(reason, _)| reason.is_malformed()).map(|(_, refused)| refused.count).sum()
    }

    /// The counts in words: "11 no selected passage, 2 bad UTF-8".
    pub fn reasons(&self) -> String {
        if self.refused.is_empty() {
            return "none refused".into();
        }
        let parts: Vec<String> =
            self.refused.iter().map(|(reason, refused)| format!("{} {reason}", refused.count)).collect();
        parts.join(", ")
    }
}
