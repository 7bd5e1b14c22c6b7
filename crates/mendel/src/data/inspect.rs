//! A look at a dataset: counts, lengths, examples.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use super::load::load_rows;
use super::{DataError, LoadReport, Pair};
use crate::progress::Observer;
use crate::report::table::Table;

/// So many pairs are shown.
const EXAMPLES: usize = 3;

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
    /// Negatives of all pairs together.
    pub negatives: usize,
    /// Of the queries.
    pub query_words: Lengths,
    /// Of the positives and negatives.
    pub passage_words: Lengths,
    /// The first pairs.
    pub examples: Vec<Pair>,
}

/// How long texts are, in words that white space parts; all 0 where there are no texts.
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
        let mut lengths = Table::new(["words", "min", "50%", "90%", "99%", "max"]);
        for (what, Lengths { min, p50, p90, p99, max }) in
            [("queries", self.query_words), ("passages", self.passage_words)]
        {
            lengths.row(std::iter::once(what.to_owned()).chain([min, p50, p90, p99, max].map(|n| n.to_string())));
        }
        writeln!(f, "{counts}\n{lengths}")?;
        self.examples.iter().try_for_each(|pair| writeln!(f, "query:    {}\npositive: {}\n", pair.query, pair.positive))
    }
}

/// Looks at what [`load`](super::load) would load, however many rows are bad.
///
/// # Errors
/// Where there is nothing to load, or a file cannot be read or recognised.
pub fn inspect(source: &str, observer: &mut dyn Observer) -> Result<Inspection, DataError> {
    let dataset = load_rows(source, observer)?;
    let pairs = &dataset.pairs;
    let distinct = |text: fn(&Pair) -> &str| pairs.iter().map(text).collect::<HashSet<&str>>().len();
    let passages = || pairs.iter().flat_map(|pair| std::iter::once(&pair.positive).chain(&pair.negatives));
    Ok(Inspection {
        duplicate_queries: pairs.len() - distinct(|pair| &pair.query),
        duplicate_positives: pairs.len() - distinct(|pair| &pair.positive),
        negatives: pairs.iter().map(|pair| pair.negatives.len()).sum(),
        query_words: Lengths::of(pairs.iter().map(|pair| &pair.query)),
        passage_words: Lengths::of(passages()),
        examples: pairs.iter().take(EXAMPLES).cloned().collect(),
        report: dataset.report,
        fingerprint: dataset.fingerprint,
    })
}

impl Lengths {
    fn of<'a>(texts: impl Iterator<Item = &'a String>) -> Self {
        let mut lengths: Vec<usize> = texts.map(|text| text.split_whitespace().count()).collect();
        lengths.sort_unstable();
        // The nearest rank: the least length that so many in a hundred do not exceed.
        let percentile = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(rank - 1).copied().unwrap_or_default()
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
        let texts: Vec<String> = (1..=10).map(|words| "w ".repeat(words)).collect();
        assert_eq!(Lengths::of(texts.iter()), Lengths { min: 1, p50: 5, p90: 9, p99: 10, max: 10 });
        assert_eq!(Lengths::of([].iter()), Lengths::default());
    }
}
