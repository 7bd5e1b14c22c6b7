//! Which format a file is in, from its content rather than its name.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use super::beir::BeirSplit;
use super::lines::Lines;
use super::{DataError, Pair, RefusedReason, beir, columns, msmarco, pairs, parquet};

/// So many rows are tried: a file may begin with a broken one.
const ROWS_TO_TRY: usize = 100;

/// Takes a row: its line, or its number from 1, and its pair. An error ends the reading.
pub(super) type EachRow<'a> = dyn FnMut(u64, Result<Pair, RefusedReason>) -> Result<(), DataError> + 'a;

/// How a file's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A line each.
    Lines(LineFormat),
    /// MS MARCO's official column-oriented JSON.
    Columns,
    /// Parquet.
    Parquet(RowKind),
    /// A split of a collection in BEIR's layout; the path is its folder.
    Beir(BeirSplit),
}

/// How a row is written on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFormat {
    /// A JSON object.
    Json(RowKind),
    /// Columns with tabs between.
    Tsv { header: bool },
}

/// What the fields of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// A query and passages with labels.
    MsMarco,
    /// A query, a positive, perhaps negatives.
    Pairs,
}

impl RowKind {
    /// What rows with these fields are.
    pub(super) fn of_fields(names: &[&str]) -> Option<RowKind> {
        [RowKind::MsMarco, RowKind::Pairs].into_iter().find(|kind| kind.fields()[..2].iter().all(|f| names.contains(f)))
    }

    /// The fields that are looked at, the two that a row must have first.
    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            RowKind::MsMarco => &["query", "passages"],
            RowKind::Pairs => &["query", "positive", "negatives"],
        }
    }

    /// The pair of an object.
    pub(super) fn pair(self, row: Value) -> Result<Pair, RefusedReason> {
        let wrong_type = |_| RefusedReason::WrongType;
        match self {
            RowKind::MsMarco => serde_json::from_value(row).map_err(wrong_type).and_then(msmarco::Row::pair),
            RowKind::Pairs => serde_json::from_value(row).map_err(wrong_type).and_then(pairs::Row::pair),
        }
    }

    /// The pair of an object as text.
    fn parse(self, row: &str) -> Result<Pair, RefusedReason> {
        match self {
            RowKind::MsMarco => json_row(row).and_then(msmarco::Row::pair),
            RowKind::Pairs => json_row(row).and_then(pairs::Row::pair),
        }
    }
}

impl LineFormat {
    /// The pair of a line.
    pub(super) fn parse(self, row: &[u8]) -> Result<Pair, RefusedReason> {
        let text = std::str::from_utf8(row).map_err(|_| RefusedReason::BadUtf8)?;
        match self {
            LineFormat::Json(kind) => kind.parse(text),
            LineFormat::Tsv { .. } => pairs::parse_tsv(text),
        }
    }
}

impl Format {
    /// A file's format; `None` where it has no rows at all.
    pub(super) fn of(path: &Path) -> Result<Option<Format>, DataError> {
        if parquet::is_parquet(path)? {
            return Ok(Some(Format::Parquet(parquet::kind(path)?)));
        }
        if columns::is_columns(path)? {
            return Ok(Some(Format::Columns));
        }
        Ok(of_lines(path)?.map(Format::Lines))
    }

    /// Reads a file from its first row to its last.
    pub(super) fn read(self, path: &Path, each: &mut EachRow<'_>) -> Result<(), DataError> {
        match self {
            Format::Lines(format) => read_lines(path, format, each),
            Format::Columns => columns::read(path, each),
            Format::Parquet(kind) => parquet::read(path, kind, each),
            Format::Beir(split) => beir::read_pairs(path, split, each),
        }
    }
}

fn read_lines(path: &Path, format: LineFormat, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let mut lines = Lines::open(path)?;
    if format == (LineFormat::Tsv { header: true }) {
        lines.next()?;
    }
    while let Some(line) = lines.next()? {
        each(line.number, line.bytes.as_deref().map_or(Err(RefusedReason::TooLong), |row| format.parse(row)))?;
    }
    Ok(())
}

/// The format of the first line that shows one.
fn of_lines(path: &Path) -> Result<Option<LineFormat>, DataError> {
    let mut lines = Lines::open(path)?;
    let mut why = None;
    for _ in 0..ROWS_TO_TRY {
        let Some(line) = lines.next()? else { break };
        match line.bytes.as_deref().map_or(Err("its first line is longer than 64 MiB".into()), of_line) {
            Ok(LineFormat::Tsv { .. }) if are_numbered(path)? => {
                why = Some("its first column holds numbers, where queries should be".to_owned());
                break;
            }
            Ok(format) => return Ok(Some(format)),
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    why.map_or(Ok(None), |why| Err(DataError::UnknownFormat { path: path.to_path_buf(), why }))
}

/// Whether the first rows of TSV, two at least, all begin with a number behind what may be a header: judgements, or pairs
/// with a score before them.
fn are_numbered(path: &Path) -> Result<bool, DataError> {
    let mut lines = Lines::open(path)?;
    let mut numbered = 0;
    for place in 0..ROWS_TO_TRY {
        let Some(line) = lines.next()? else { break };
        if line.bytes.as_deref().is_some_and(pairs::begins_with_number) {
            numbered += 1;
        } else if place > 0 {
            return Ok(false);
        }
    }
    Ok(numbered > 1)
}

/// The fields of a JSON object; a list of their values in order, which serde would take too, is refused.
fn json_row<T: DeserializeOwned>(row: &str) -> Result<T, RefusedReason> {
    if !row.trim_start().starts_with('{') {
        return Err(RefusedReason::NotJson);
    }
    serde_json::from_str(row).map_err(|error| match error.classify() {
        Category::Data => RefusedReason::WrongType,
        Category::Syntax | Category::Eof | Category::Io => RefusedReason::NotJson,
    })
}

pub(super) fn of_line(row: &[u8]) -> Result<LineFormat, String> {
    let Ok(text) = std::str::from_utf8(row) else { return Err("it is not UTF-8 text".into()) };
    if !text.trim_start().starts_with('{') {
        return if text.contains('\t') {
            Ok(LineFormat::Tsv { header: pairs::is_header(text) })
        } else {
            Err("its first row is neither a JSON object nor two columns with a tab between".into())
        };
    }
    let row: Value = serde_json::from_str(text).map_err(|error| format!("its first row is not JSON ({error})"))?;
    let fields: Vec<&str> = row.as_object().into_iter().flat_map(|row| row.keys().map(String::as_str)).collect();
    let kind = RowKind::of_fields(&fields);
    kind.map(LineFormat::Json).ok_or_else(|| format!("its first row has the fields {}", fields.join(", ")))
}
