//! Which format a file is in, from its first rows rather than its name.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use super::lines::Lines;
use super::{DataError, Pair, RefusedReason, msmarco, pairs};

/// So many rows are tried: a file may begin with a broken one.
const ROWS_TO_TRY: usize = 100;

/// How a file's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    MsMarco,
    JsonPairs,
    Tsv { header: bool },
}

impl Format {
    /// The format of the first row that shows one; `None` where a file has no rows at all.
    pub(super) fn of(path: &Path) -> Result<Option<Format>, DataError> {
        let mut lines = Lines::open(path)?;
        let mut why = None;
        for _ in 0..ROWS_TO_TRY {
            let Some(line) = lines.next()? else { break };
            match line.bytes.as_deref().map_or(Err("its first line is longer than 64 MiB".into()), of_row) {
                Ok(format) => return Ok(Some(format)),
                Err(reason) => why = why.or(Some(reason)),
            }
        }
        why.map_or(Ok(None), |why| Err(DataError::UnknownFormat { path: path.to_path_buf(), why }))
    }

    /// The pair of a row.
    pub(super) fn parse(self, row: &[u8]) -> Result<Pair, RefusedReason> {
        let text = std::str::from_utf8(row).map_err(|_| RefusedReason::BadUtf8)?;
        match self {
            Format::MsMarco => msmarco::parse(text),
            Format::JsonPairs => pairs::parse(text),
            Format::Tsv { .. } => pairs::parse_tsv(text),
        }
    }
}

/// The fields of a JSON object; a list of their values in order, which serde would take too, is refused.
pub(super) fn json_row<T: DeserializeOwned>(row: &str) -> Result<T, RefusedReason> {
    if !row.trim_start().starts_with('{') {
        return Err(RefusedReason::NotJson);
    }
    serde_json::from_str(row).map_err(|error| match error.classify() {
        Category::Data => RefusedReason::WrongType,
        Category::Syntax | Category::Eof | Category::Io => RefusedReason::NotJson,
    })
}

fn of_row(row: &[u8]) -> Result<Format, String> {
    if row.starts_with(b"PAR1") {
        return Err("it is Parquet, which this version does not read (write it out as JSONL)".into());
    }
    let Ok(text) = std::str::from_utf8(row) else { return Err("it is not UTF-8 text".into()) };
    if !text.trim_start().starts_with('{') {
        return if text.contains('\t') {
            Ok(Format::Tsv { header: pairs::is_header(text) })
        } else {
            Err("its first row is neither a JSON object nor two columns with a tab between".into())
        };
    }
    let row: Value = serde_json::from_str(text).map_err(|error| format!("its first row is not JSON ({error})"))?;
    match (row.get("query"), row.get("passages"), row.get("positive")) {
        (Some(Value::Object(_)), _, _) => Err("it is column-oriented JSON (write a row a line)".into()),
        (Some(_), Some(_), _) => Ok(Format::MsMarco),
        (Some(_), None, Some(_)) => Ok(Format::JsonPairs),
        _ => {
            let fields: Vec<&str> =
                row.as_object().into_iter().flat_map(|row| row.keys().map(String::as_str)).collect();
            Err(format!("its first row has the fields {}", fields.join(", ")))
        }
    }
}
