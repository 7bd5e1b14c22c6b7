//! Rows of MS MARCO v2.1 as JSON objects (Bajaj et al. 2016; the fields of `microsoft/ms_marco` on the Hub).

use serde::Deserialize;

use super::format::json_row;
use super::{Pair, RefusedReason};

/// Label of a passage that an annotator used for the answer.
const SELECTED: i64 = 1;
/// Label of a passage that was shown and not used; −1 is unknown.
const NOT_SELECTED: i64 = 0;

#[derive(Deserialize)]
struct Row {
    query: String,
    passages: Passages,
}

#[derive(Deserialize)]
struct Passages {
    is_selected: Vec<i64>,
    passage_text: Vec<String>,
}

/// The pair of a row: its positive is the first selected passage, its negatives are those labelled 0.
pub(super) fn parse(row: &str) -> Result<Pair, RefusedReason> {
    let Row { query, passages } = json_row(row)?;
    let Passages { is_selected, passage_text } = passages;
    if is_selected.len() != passage_text.len() {
        return Err(RefusedReason::WrongType);
    }
    let labelled =
        |label: i64| is_selected.iter().zip(&passage_text).filter(move |(of, _)| **of == label).map(|(_, text)| text);
    let Some(positive) = labelled(SELECTED).next() else {
        let known = is_selected.is_empty() || is_selected.contains(&NOT_SELECTED);
        return Err(if known { RefusedReason::NoSelectedPassage } else { RefusedReason::HiddenLabels });
    };
    let also_selected: Vec<&str> = labelled(SELECTED).map(|text| text.trim()).collect();
    let negatives = labelled(NOT_SELECTED).filter(|text| !also_selected.contains(&text.trim()));
    Pair::new(&query, positive, negatives)
}
