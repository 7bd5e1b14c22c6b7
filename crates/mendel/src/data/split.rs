//! Holding queries out of training, and what they are evaluated against.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::load::{hex, update_with_text};
use super::{DataError, Dataset, LoadOptions, Pair, demo, load};
use crate::progress::{Event, Observer};

/// One query in so many is held out.
const HELD_OUT_ONE_IN: u64 = 10;

/// What a run trains on and what it is evaluated on.
#[derive(Clone, Debug)]
pub struct Split {
    /// The pairs to train on; the fingerprint is over these alone, the report over all rows of their source.
    pub train: Dataset,
    /// Empty where the data has a single query, none of which can be held out.
    pub evaluation: EvaluationSet,
}

/// Loads the data of a run: `held_out` is evaluated where it is given, else the demo's own held-out questions against
/// all its passages, else what [`hold_out`] takes from `source`.
///
/// # Errors
/// Those of [`load`].
pub fn load_split(
    source: &str,
    held_out: Option<&str>,
    options: &LoadOptions,
    observer: &mut dyn Observer,
) -> Result<Split, DataError> {
    let mut train = load(source, options, observer)?;
    let evaluation = match held_out {
        Some("demo") => demo::demo().evaluation_set(),
        Some(held_out) => EvaluationSet::new(&load(held_out, options, observer)?.pairs, []),
        None if source == "demo" => demo::demo().evaluation_set(),
        None => {
            let (kept, held_out) = hold_out(train.pairs);
            train = Dataset::new(source, kept, train.report);
            EvaluationSet::new(&held_out, [])
        }
    };
    observer.observe(Event::Note(format!(
        "{} training pairs ({}); {} queries over {} passages to evaluate",
        train.pairs.len(),
        train.report.reasons(),
        evaluation.queries.len(),
        evaluation.passages.len(),
    )));
    Ok(Split { train, evaluation })
}

/// Splits pairs into those to train on and those held out: about every tenth query, with all its pairs. The hash of
/// the query decides, blind to case, punctuation and spacing, so that no query is on both sides and more data moves
/// none. Where chance holds out no query, or all, one is moved.
pub fn hold_out(pairs: Vec<Pair>) -> (Vec<Pair>, Vec<Pair>) {
    let hashes: Vec<u64> = pairs.iter().map(|pair| query_hash(&pair.query)).collect();
    let (least, most) = (hashes.iter().min().copied(), hashes.iter().max().copied());
    let by_chance = |hash: u64| hash.is_multiple_of(HELD_OUT_ONE_IN);
    let none = !hashes.iter().any(|&hash| by_chance(hash));
    let all = hashes.iter().all(|&hash| by_chance(hash));
    let is_held_out = |hash: u64| {
        if least == most {
            false
        } else if none {
            Some(hash) == least
        } else if all {
            Some(hash) != least
        } else {
            by_chance(hash)
        }
    };
    let mut held_out = Vec::new();
    let mut train = Vec::new();
    for (pair, hash) in pairs.into_iter().zip(hashes) {
        if is_held_out(hash) { &mut held_out } else { &mut train }.push(pair);
    }
    (train, held_out)
}

fn query_hash(query: &str) -> u64 {
    let lower = query.to_lowercase();
    let words: Vec<&str> =
        lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let digest = Sha256::digest(words.join(" "));
    digest.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// Queries, the passages they are to be answered from, and which of them do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvaluationSet {
    /// Distinct queries.
    pub queries: Vec<String>,
    /// A name for each query: `q0`, `q1`, …
    pub query_ids: Vec<String>,
    /// Distinct passages.
    pub passages: Vec<String>,
    /// A name for each passage: `p0`, `p1`, …
    pub passage_ids: Vec<String>,
    /// For each query the indices of the passages that answer it, ascending, at least one.
    pub relevant: Vec<Vec<usize>>,
}

impl EvaluationSet {
    /// From held-out pairs: equal queries become one with all their positives, and every positive and negative is a
    /// passage once, in the order of first sight. `more_passages` come after; those already there are not repeated.
    pub fn new(pairs: &[Pair], more_passages: impl IntoIterator<Item = String>) -> Self {
        let mut queries = Distinct::default();
        let mut passages = Distinct::default();
        let mut relevant: Vec<Vec<usize>> = Vec::new();
        for pair in pairs {
            let query = queries.index_of(&pair.query);
            let positive = passages.index_of(&pair.positive);
            relevant.resize_with(queries.texts.len(), Vec::new);
            if !relevant[query].contains(&positive) {
                relevant[query].push(positive);
            }
            for negative in &pair.negatives {
                passages.index_of(negative);
            }
        }
        for passage in more_passages {
            passages.index_of(&passage);
        }
        relevant.iter_mut().for_each(|passages| passages.sort_unstable());
        let ids = |letter: char, count: usize| (0..count).map(|index| format!("{letter}{index}")).collect();
        let (query_ids, passage_ids) = (ids('q', queries.texts.len()), ids('p', passages.texts.len()));
        EvaluationSet { queries: queries.texts, query_ids, passages: passages.texts, passage_ids, relevant }
    }

    /// SHA-256 over queries, passages and which belong together, in hex.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let relevant =
            self.relevant.iter().flat_map(|passages| std::iter::once(passages.len()).chain(passages.clone()));
        for number in [self.queries.len(), self.passages.len()].into_iter().chain(relevant) {
            hash.update((number as u64).to_le_bytes());
        }
        self.queries.iter().chain(&self.passages).for_each(|text| update_with_text(&mut hash, text));
        hex(hash)
    }
}

/// Texts, each once, in the order of first sight.
#[derive(Default)]
struct Distinct {
    texts: Vec<String>,
    indices: HashMap<String, usize>,
}

impl Distinct {
    fn index_of(&mut self, text: &str) -> usize {
        if let Some(&index) = self.indices.get(text) {
            return index;
        }
        self.texts.push(text.to_string());
        self.indices.insert(text.to_string(), self.texts.len() - 1);
        self.texts.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::Silent;

    fn pair(query: &str, positive: &str, negatives: &[&str]) -> Pair {
        Pair::new(query, positive, negatives).unwrap()
    }

    #[test]
    fn about_a_tenth_is_held_out_and_no_query_is_on_both_sides() {
        let pairs: Vec<Pair> =
            (0..5000).map(|i| pair(&format!("Query {}?", i % 2500), &format!("p{i}"), &[])).collect();
        let (train, held_out) = hold_out(pairs);
        assert!((350..650).contains(&held_out.len()), "{}", held_out.len());
        assert!(held_out.iter().all(|held| !train.iter().any(|pair| pair.query == held.query)));
    }

    #[test]
    fn spelling_does_not_part_a_query_from_itself() {
        assert_eq!(query_hash("What is  DNA?"), query_hash("what is dna"));
        assert_ne!(query_hash("what is rna"), query_hash("what is dna"));
    }

    proptest! {
        #[test]
        fn two_queries_or_more_leave_something_on_each_side(count in 2usize..30) {
            let (train, held_out) = hold_out((0..count).map(|i| pair(&format!("q {i}"), "p", &[])).collect());
            prop_assert!(!train.is_empty() && !held_out.is_empty());
            prop_assert_eq!(train.len() + held_out.len(), count);
        }
    }

    #[test]
    fn the_demo_is_evaluated_on_its_own_held_out_questions_wherever_it_is_named() {
        let split = |source, held_out| load_split(source, held_out, &LoadOptions::default(), &mut Silent).unwrap();
        let by_itself = split("demo", None);
        assert_eq!((by_itself.evaluation.queries.len(), by_itself.evaluation.passages.len()), (450, 1930));
        assert_eq!(split("demo", Some("demo")).evaluation, by_itself.evaluation);
    }

    #[test]
    fn a_file_is_split_or_evaluated_on_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rows: String = (0..100).map(|i| format!("query {i}\tpassage {i}\n")).collect();
        std::fs::write(file.path(), rows).unwrap();
        let path = file.path().to_str().unwrap();
        let split = |held_out| load_split(path, held_out, &LoadOptions::default(), &mut Silent).unwrap();
        let Split { train, evaluation } = split(None);
        assert_eq!(train.pairs.len() + evaluation.queries.len(), 100);
        assert!(!evaluation.queries.is_empty());
        let whole = split(Some(path));
        assert_eq!((whole.train.pairs.len(), whole.evaluation.queries.len()), (100, 100));
        assert_ne!(whole.train.fingerprint, train.fingerprint);
    }

    #[test]
    fn equal_queries_are_merged_and_equal_passages_are_one() {
        let pairs = [pair("a", "x", &["y"]), pair("b", "y", &["x"]), pair("a", "z", &[]), pair("a", "x", &[])];
        let set = EvaluationSet::new(&pairs, ["w".to_string(), "x".to_string()]);
        assert_eq!(set.queries, ["a", "b"]);
        assert_eq!(set.passages, ["x", "y", "z", "w"]);
        assert_eq!(set.relevant, [vec![0, 2], vec![1]]);
        assert_eq!(set.query_ids, ["q0", "q1"]);
        assert_eq!(set.passage_ids, ["p0", "p1", "p2", "p3"]);
    }
}
