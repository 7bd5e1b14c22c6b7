//! A look at a dataset: counts, lengths, examples.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use super::load::{PairsFingerprint, for_each_pair};
use super::{DataError, LoadReport, Pair, TextKey, text_key};
use crate::progress::Observer;
use crate::report::table::Table;
use crate::tokenizer::Tokenizer;

/// So many pairs are shown.
const EXAMPLES: usize = 3;
/// Pairs that are tokenised together.
const CHUNK: usize = 2048;

/// What a dataset holds.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Rows, usable pairs, and refused rows by reason.
    #[serde(flatten)]
    pub report: LoadReport,
    /// SHA-256 over the usable pairs.
    pub fingerprint: String,
    /// Pairs whose query an earlier pair has.
    pub duplicate_queries: usize,
    /// Pairs whose positive an earlier pair has.
    pub duplicate_positives: usize,
    /// Pairs whose query and positive an earlier pair has.
    pub duplicate_pairs: usize,
    /// Negatives of all pairs together.
    pub negatives: usize,
    /// What lengths count: `tokens`, the two around a text included, or `words` that white space parts.
    pub unit: &'static str,
    /// Of the queries.
    pub query_lengths: Lengths,
    /// Of the positives and negatives.
    pub passage_lengths: Lengths,
    /// The first pairs.
    pub examples: Vec<Pair>,
}

/// How long texts are; all 0 where there are no texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// Of the shortest.
    pub min: usize,
    /// Half of the texts are no longer.
    pub p50: usize,
    /// Nine tenths are no longer.
    pub p90: usize,
    /// 99 in 100 are no longer.
    pub p99: usize,
    /// Of the longest.
    pub max: usize,
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = Table::new(["rows", &self.report.rows.to_string()]);
        counts.row(["usable pairs".to_owned(), self.report.usable.to_string()]);
        for (reason, refused) in &self.report.refused {
            counts.row([format!("refused: {reason} (first: {})", refused.first), refused.count.to_string()]);
        }
        counts.row(["negatives".to_owned(), self.negatives.to_string()]);
        counts.row(["repeated queries".to_owned(), self.duplicate_queries.to_string()]);
        counts.row(["repeated positives".to_owned(), self.duplicate_positives.to_string()]);
        counts.row(["repeated pairs".to_owned(), self.duplicate_pairs.to_string()]);
        let mut lengths = Table::new([self.unit, "min", "50%", "90%", "99%", "max"]);
        for (what, Lengths { min, p50, p90, p99, max }) in
            [("queries", self.query_lengths), ("passages", self.passage_lengths)]
        {
            lengths.row(std::iter::once(what.to_owned()).chain([min, p50, p90, p99, max].map(|n| n.to_string())));
        }
        writeln!(f, "{counts}\n{lengths}")?;
        self.examples.iter().try_for_each(|pair| writeln!(f, "query:    {}\npositive: {}\n", pair.query, pair.positive))
    }
}

/// Looks at what [`load`](super::load) would load, however many rows are bad, and holds no more than a part of it.
/// Lengths are in tokens where there is a tokenizer, else in words.
///
/// # Errors
/// Where there is nothing to load, or a file cannot be read or recognised.
pub fn inspect(
    source: &str,
    tokenizer: Option<&Tokenizer>,
    observer: &mut dyn Observer,
) -> Result<Inspection, DataError> {
    let mut look = Look { tokenizer, ..Look::default() };
    let mut chunk = Vec::with_capacity(CHUNK);
    let report = for_each_pair(source, observer, &mut |pair| {
        chunk.push(pair);
        if chunk.len() == CHUNK {
            look.at(&chunk);
            chunk.clear();
        }
        Ok(())
    })?;
    look.at(&chunk);
    let usable = report.usable as usize;
    Ok(Inspection {
        fingerprint: look.fingerprint.finish(),
        duplicate_queries: usable - look.queries.len(),
        duplicate_positives: usable - look.positives.len(),
        duplicate_pairs: usable - look.pairs.len(),
        negatives: look.negatives,
        unit: if tokenizer.is_some() { "tokens" } else { "words" },
        query_lengths: Lengths::of(look.query_lengths),
        passage_lengths: Lengths::of(look.passage_lengths),
        examples: look.examples,
        report,
    })
}

/// What was seen so far.
#[derive(Default)]
struct Look<'a> {
    tokenizer: Option<&'a Tokenizer>,
    fingerprint: PairsFingerprint,
    queries: HashSet<TextKey>,
    positives: HashSet<TextKey>,
    pairs: HashSet<(TextKey, TextKey)>,
    negatives: usize,
    query_lengths: Vec<u32>,
    passage_lengths: Vec<u32>,
    examples: Vec<Pair>,
}

impl Look<'_> {
    fn at(&mut self, pairs: &[Pair]) {
        for pair in pairs {
            let (query, positive) = (text_key(&pair.query), text_key(&pair.positive));
            self.fingerprint.add(pair);
            self.queries.insert(query);
            self.positives.insert(positive);
            self.pairs.insert((query, positive));
            self.negatives += pair.negatives.len();
        }
        let queries: Vec<&str> = pairs.iter().map(|pair| pair.query.as_str()).collect();
        let passages = pairs.iter().flat_map(|pair| std::iter::once(&pair.positive).chain(&pair.negatives));
        let passages: Vec<&str> = passages.map(String::as_str).collect();
        self.query_lengths.extend(self.lengths(&queries));
        self.passage_lengths.extend(self.lengths(&passages));
        let wanted = EXAMPLES - self.examples.len();
        self.examples.extend(pairs.iter().take(wanted).cloned());
    }

    fn lengths(&self, texts: &[&str]) -> Vec<u32> {
        let words = |text: &&str| text.split_whitespace().count() as u32;
        match self.tokenizer {
            Some(tokenizer) => tokenizer.encode_batch(texts, usize::MAX).iter().map(|ids| ids.len() as u32).collect(),
            None => texts.iter().map(words).collect(),
        }
    }
}

impl Lengths {
    fn of(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        // The nearest rank: the least length that so many in a hundred do not exceed.
        let percentile = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(rank - 1).copied().unwrap_or_default() as usize
        };
        Lengths {
            min: percentile(0),
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: percentile(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        assert_eq!(Lengths::of((1..=10).rev().collect()), Lengths { min: 1, p50: 5, p90: 9, p99: 10, max: 10 });
        assert_eq!(Lengths::of(Vec::new()), Lengths::default());
    }
}
