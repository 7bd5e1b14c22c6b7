//! Pairs as objects (`query`, `positive`, and perhaps `negatives`) or as rows of TSV.

use serde::Deserialize;

use super::{Pair, RefusedReason};

/// The fields of an object; others are not looked at.
#[derive(Deserialize)]
pub(super) struct Row {
    query: String,
    positive: String,
    negatives: Option<Vec<String>>,
}

impl Row {
    pub(super) fn pair(self) -> Result<Pair, RefusedReason> {
        Pair::new(&self.query, &self.positive, self.negatives.iter().flatten())
    }
}

/// The pair of a row `query<TAB>positive[<TAB>negative…]`; a quotation mark is a letter like any other.
pub(super) fn parse_tsv(row: &str) -> Result<Pair, RefusedReason> {
    let mut columns = row.split('\t');
    match (columns.next(), columns.next()) {
        (Some(query), Some(positive)) => Pair::new(query, positive, columns),
        _ => Err(RefusedReason::NoSecondColumn),
    }
}

/// What headers call a query and its positive.
const QUERY_NAMES: [&str; 3] = ["query", "question", "anchor"];
const POSITIVE_NAMES: [&str; 4] = ["positive", "passage", "answer", "document"];

/// Whether a first row of TSV names columns instead of filling them.
pub(super) fn is_header(row: &str) -> bool {
    let mut columns = row.split('\t').map(|name| name.trim().to_lowercase());
    let mut named = |names: &[&str]| columns.next().is_some_and(|column| names.contains(&column.as_str()));
    named(&QUERY_NAMES) && named(&POSITIVE_NAMES)
}

/// Whether a row of TSV begins with a number, as judgements and scored pairs do.
pub(super) fn begins_with_number(row: &[u8]) -> bool {
    let first = row.split(|&byte| byte == b'\t').next().and_then(|first| std::str::from_utf8(first).ok());
    first.is_some_and(|first| first.trim().parse::<f64>().is_ok())
}
