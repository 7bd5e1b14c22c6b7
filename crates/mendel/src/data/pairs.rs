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

/// Whether a first row of TSV names columns instead of filling them.
pub(super) fn is_header(row: &str) -> bool {
    let mut columns = row.split('\t').map(|name| name.trim().to_lowercase());
    columns.next().as_deref() == Some("query") && matches!(columns.next().as_deref(), Some("positive" | "passage"))
}
