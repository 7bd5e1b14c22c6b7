//! The token store: a dataset's texts as tokens in files that are mapped into memory, so that a dataset is tokenised
//! once and its size costs no memory.
//!
//! A store is a folder with a file per column, whose name is the hash of what it was made from: the files' content,
//! the tokenizer, the length, the prefixes. It gets that name only when it is whole.

mod build;
mod column;

pub use self::build::TokenCache;

use self::column::Column;
use super::fingerprint::{Fingerprint, TextKey};
use super::report::LoadReport;

/// A tokenised text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Its tokens, `[CLS]` and `[SEP]` included.
    pub tokens: &'a [u32],
    /// A number that equal texts share.
    pub key: TextKey,
}

/// Pairs as tokens, by their places in the dataset.
#[derive(Debug)]
pub struct TokenStore {
    columns: Columns<Column<u32>, Column<u64>>,
    /// What became of the dataset's rows.
    pub report: LoadReport,
}

/// The columns of a store; `T` holds tokens, `N` numbers.
#[derive(Debug)]
struct Columns<T, N> {
    /// Of queries and positives: of pair `i` first the query's, then the positive's.
    tokens: T,
    /// For each query and positive where its tokens end, and its key.
    texts: N,
    /// Of negatives, apart so that a run without them never touches them.
    negative_tokens: T,
    /// For each negative where its tokens end, and its key.
    negatives: N,
    /// For each pair the hash of its query, and where its negatives end.
    pairs: N,
}

impl TokenStore {
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.columns.pairs.len() / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A pair's query.
    pub fn query(&self, pair: usize) -> Text<'_> {
        text(&self.columns.tokens, &self.columns.texts, 2 * pair)
    }

    /// A pair's positive.
    pub fn positive(&self, pair: usize) -> Text<'_> {
        text(&self.columns.tokens, &self.columns.texts, 2 * pair + 1)
    }

    /// How many negatives a pair has.
    pub fn negative_count(&self, pair: usize) -> usize {
        let (begin, end) = range(&self.columns.pairs, pair);
        end - begin
    }

    /// One of a pair's negatives.
    pub fn negative(&self, pair: usize, which: usize) -> Text<'_> {
        let (begin, _) = range(&self.columns.pairs, pair);
        text(&self.columns.negative_tokens, &self.columns.negatives, begin + which)
    }

    /// The hash of a pair's query that decides whether it is held out ([`super::query_hash`]).
    pub(super) fn query_hash(&self, pair: usize) -> u64 {
        self.columns.pairs[2 * pair]
    }

    /// SHA-256, in hex, over the texts of some pairs.
    pub fn fingerprint(&self, pairs: impl Iterator<Item = usize>) -> String {
        let mut fingerprint = Fingerprint::default();
        for pair in pairs {
            let negatives = self.negative_count(pair);
            fingerprint.add(negatives as u64);
            fingerprint.add(self.query(pair).key);
            fingerprint.add(self.positive(pair).key);
            (0..negatives).for_each(|which| fingerprint.add(self.negative(pair, which).key));
        }
        fingerprint.finish()
    }
}

/// Row `row` of a column of ends and keys, as a text.
fn text<'a>(tokens: &'a [u32], ends: &[u64], row: usize) -> Text<'a> {
    let begin = if row == 0 { 0 } else { ends[2 * row - 2] };
    Text { tokens: &tokens[begin as usize..ends[2 * row] as usize], key: ends[2 * row + 1] }
}

/// The negatives of row `pair` of the column of pairs.
fn range(pairs: &[u64], pair: usize) -> (usize, usize) {
    let begin = if pair == 0 { 0 } else { pairs[2 * pair - 1] };
    (begin as usize, pairs[2 * pair + 1] as usize)
}

/// Whether a store's columns fit together, so that no row leads out of them.
fn fit(columns: &Columns<Column<u32>, Column<u64>>) -> bool {
    let Columns { tokens, texts, negative_tokens, negatives, pairs } = columns;
    let ends = |column: &[u64], from: usize, last: usize| {
        let mut ends = column.iter().skip(from).step_by(2);
        column.len().is_multiple_of(2)
            && ends.clone().is_sorted()
            && ends.next_back().map_or(0, |&end| end) == last as u64
    };
    texts.len() == 2 * pairs.len()
        && ends(texts, 0, tokens.len())
        && ends(negatives, 0, negative_tokens.len())
        && ends(pairs, 1, negatives.len() / 2)
}

#[cfg(test)]
mod tests;
