//! Rows of MS MARCO v2.1 (Bajaj et al. 2016; the fields of `microsoft/ms_marco` on the Hub).

use serde::Deserialize;

use super::{Pair, RefusedReason};

/// Label of a passage that an annotator used for the answer.
const SELECTED: i64 = 1;
/// Label of a passage that was shown and not used; −1 is unknown.
const NOT_SELECTED: i64 = 0;

/// The fields that make a pair.
#[derive(Deserialize)]
pub(super) struct Row {
    pub query: String,
    pub passages: Passages,
}

/// A row's passages: a list for each field, or a list of passages.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Passages {
    /// As the Hub has them.
    Lists { is_selected: Vec<i64>, passage_text: Vec<String> },
    /// As the official files have them.
    Each(Vec<Passage>),
}

/// A passage and its label.
#[derive(Deserialize)]
pub(super) struct Passage {
    is_selected: i64,
    passage_text: String,
}

impl Row {
    /// Its positive is the first selected passage, its negatives are those labelled 0.
    pub(super) fn pair(self) -> Result<Pair, RefusedReason> {
        let passages = self.passages.labelled()?;
        let of = |label: i64| passages.iter().filter(move |(of, _)| *of == label).map(|(_, text)| text.trim());
        let Some(positive) = of(SELECTED).next() else {
            let known = passages.is_empty() || of(NOT_SELECTED).next().is_some();
            return Err(if known { RefusedReason::NoSelectedPassage } else { RefusedReason::HiddenLabels });
        };
        let selected: Vec<&str> = of(SELECTED).collect();
        Pair::new(&self.query, positive, of(NOT_SELECTED).filter(|text| !selected.contains(text)))
    }
}

impl Passages {
    fn labelled(self) -> Result<Vec<(i64, String)>, RefusedReason> {
        match self {
            Passages::Each(passages) => {
                Ok(passages.into_iter().map(|passage| (passage.is_selected, passage.passage_text)).collect())
            }
            Passages::Lists { is_selected, passage_text } if is_selected.len() == passage_text.len() => {
                Ok(is_selected.into_iter().zip(passage_text).collect())
            }
            Passages::Lists { .. } => Err(RefusedReason::WrongType),
        }
    }
}
