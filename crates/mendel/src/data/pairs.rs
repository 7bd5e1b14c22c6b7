//! Pairs as JSON objects (`query`, `positive`, and perhaps `negatives`) or as rows of TSV.

use serde::Deserialize;

use super::format::json_row;
use super::{Pair, RefusedReason};

#[derive(Deserialize)]
struct Row {
    query: String,
    positive: String,
    negatives: Option<Vec<String>>,
}

/// The pair of a JSON object; other fields are not looked at.
pub(super) fn parse(row: &str) -> Result<Pair, RefusedReason> {
    let Row { query, positive, negatives } = json_row(row)?;
    Pair::new(&query, &positive, negatives.iter().flatten())
}

/// The pair of a row `query<TAB>positive[<TAB>negative…]`; a quotation mark is a letter like any other.
pub(super) fn parse_tsv(row: &str) -> Result<Pair, RefusedReason> {
    let mut columns = row.split('\t');
    match (columns.next(), columns.next()) {
        (Some(query), Some(positive)) => Pair::new(query, positive, columns),
        _ => Err(RefusedReason::NoSecondColumn),
    }
}

/// Whether a first row of TSV names columns instead of filling them.
pub(super) fn is_header(row: &str) -> bool {
    let mut columns = row.split('\t').map(|name| name.trim().to_lowercase());
    columns.next().as_deref() == Some("query") && matches!(columns.next().as_deref(), Some("positive" | "passage"))
}
