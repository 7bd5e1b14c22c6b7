//! Retrieval measures as trec_eval (<https://github.com/usnistgov/trec_eval>) defines them.
//!
//! Each query is measured on its own and the means are taken last, so that two arms can be compared query by query.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// How relevant a document was judged to be for a query. 1 and above is relevant; 0, and what was never judged, is
/// not; trec_eval takes negative grades for 0 too.
pub type Grade = i32;

/// Declares [`Measures`] from one list, so that fields, names and order cannot drift apart.
macro_rules! measures {
    ($($(#[$doc:meta])+ $field:ident = $name:literal,)+) => {
        /// The retrieval measures of one query, or their means over several. Serialised under [`Measures::NAMES`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct Measures {
            $($(#[$doc])+ #[serde(rename = $name)] pub $field: f64,)+
        }

        impl Measures {
            /// The names of the measures, in the order in which tables show them.
            pub const NAMES: [&'static str; [$($name),+].len()] = [$($name),+];

            /// The values, in the order of [`Measures::NAMES`].
            pub fn values(&self) -> [f64; Self::NAMES.len()] {
                [$(self.$field),+]
            }

            fn from_values(values: [f64; Self::NAMES.len()]) -> Measures {
                let [$($field),+] = values;
                Measures { $($field),+ }
            }
        }
    };
}

measures! {
    /// 1 over the rank of the first relevant document, 0 if it is beyond 10.
    mrr_at_10 = "mrr@10",
    /// Sum of grade / log2(rank + 1) over the first 10, over that of the best possible order of the judged documents.
    ndcg_at_10 = "ndcg@10",
    /// Sum of the precision at each relevant document among the first 100, over the number of relevant documents.
    map_at_100 = "map@100",
    /// The share of the relevant documents that came first: 1 or 0 over their number.
    recall_at_1 = "recall@1",
    /// The share of the relevant documents among the first 5.
    recall_at_5 = "recall@5",
    /// The share of the relevant documents among the first 10.
    recall_at_10 = "recall@10",
    /// The share of the relevant documents among the first 100.
    recall_at_100 = "recall@100",
    /// The share of the relevant documents among the first 1000.
    recall_at_1000 = "recall@1000",
    /// 1 if the first document is relevant, else 0.
    precision_at_1 = "precision@1",
    /// Relevant documents among the first 5, over 5, however few were retrieved.
    precision_at_5 = "precision@5",
    /// 1 if any of the first 5 is relevant, else 0; trec_eval's `success_5`.
    hit_rate_at_5 = "hit_rate@5",
}

impl Measures {
    /// Ranks beyond this change no measure.
    pub const DEPTH: usize = 1000;

    /// The measures of one query.
    ///
    /// `ranked` holds the grades of the retrieved documents, best first (see [`rank`]), 0 where a document was not
    /// judged; what is beyond [`Measures::DEPTH`] is not looked at. `judged` holds the grades of all documents judged
    /// for the query, retrieved or not, in any order. A query without any relevant document measures 0 throughout and
    /// counts in the mean, as in trec_eval.
    ///
    /// For all measures but nDCG a document is relevant from grade `level` on, at least 1 (trec_eval's `-l`).
    pub fn of(ranked: &[Grade], judged: &[Grade], level: Grade) -> Measures {
        let level = level.max(1);
        let relevant_in_all = judged.iter().filter(|&&grade| grade >= level).count();
        let found = |depth: usize| ranked.iter().take(depth).filter(|&&grade| grade >= level).count() as f64;
        // Of none, none is found: 0.
        let of_all = |found: f64| found / relevant_in_all.max(1) as f64;
        let recall = |depth| of_all(found(depth));
        let first = ranked.iter().take(10).position(|&grade| grade >= level);
        let mut best = judged.to_vec();
        best.sort_unstable_by(|a, b| b.cmp(a));
        let ideal = discounted_gain(&best, 10);
        Measures {
            mrr_at_10: first.map_or(0.0, |place| 1.0 / (place + 1) as f64),
            ndcg_at_10: if ideal > 0.0 { discounted_gain(ranked, 10) / ideal } else { 0.0 },
            map_at_100: of_all(precision_sum(ranked, 100, level)),
            recall_at_1: recall(1),
            recall_at_5: recall(5),
            recall_at_10: recall(10),
            recall_at_100: recall(100),
            recall_at_1000: recall(1000),
            precision_at_1: found(1),
            precision_at_5: found(5) / 5.0,
            hit_rate_at_5: found(5).min(1.0),
        }
    }

    /// The mean of each measure over queries, each query counting the same; `None` of no query.
    ///
    /// trec_eval by default averages over the queries that are both judged and in the run. An evaluation here ranks
    /// documents for every judged query, so the two are the same set, and nothing is left out.
    pub fn mean(queries: &[Measures]) -> Option<Measures> {
        if queries.is_empty() {
            return None;
        }
        let mut sums = [0.0; Self::NAMES.len()];
        for query in queries {
            for (sum, value) in sums.iter_mut().zip(query.values()) {
                *sum += value;
            }
        }
        Some(Measures::from_values(sums.map(|sum| sum / queries.len() as f64)))
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        Self::NAMES.into_iter().zip(self.values())
    }

    /// The value of the measure of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

/// Discounted cumulative gain of the first `depth` (Järvelin & Kekäläinen 2002, with the grade itself as the gain).
fn discounted_gain(ranked: &[Grade], depth: usize) -> f64 {
    let gain = |(place, &grade): (usize, &Grade)| f64::from(grade.max(0)) / (place as f64 + 2.0).log2();
    ranked.iter().take(depth).enumerate().map(gain).sum()
}

/// The sum of the precisions at the places of the relevant documents among the first `depth`.
fn precision_sum(ranked: &[Grade], depth: usize, level: Grade) -> f64 {
    let relevant = ranked.iter().take(depth).enumerate().filter(|(_, grade)| **grade >= level);
    relevant.enumerate().map(|(before, (place, _))| (before + 1) as f64 / (place + 1) as f64).sum()
}

/// Puts a query's documents in trec_eval's order; see [`by_rank`].
pub fn rank<Id: Ord>(run: &mut [(Id, f32)]) {
    run.sort_unstable_by(|a, b| by_rank((&a.0, a.1), (&b.0, b.1)));
}

/// Which of two documents, given as id and score, ranks before the other: the one with the higher score; of equals, the
/// one with the larger id, which for strings is the order of their bytes. That is trec_eval's rule for ties: arbitrary,
/// but it depends on nothing but the documents. A score that is not a number ranks after all numbers.
pub fn by_rank<Id: Ord + ?Sized>(a: (&Id, f32), b: (&Id, f32)) -> Ordering {
    let by_score = match (a.1.is_nan(), b.1.is_nan()) {
        (false, false) => b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal),
        (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
    };
    by_score.then_with(|| b.0.cmp(a.0))
}

/// The similarities of a batch: each of its queries against the batch's own passages.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `[B, P]`, row-major: a row per query, a column per passage.
    pub similarities: &'a [f32],
    /// `[B]`: the column of each query's positive.
    pub targets: &'a [usize],
    /// `[B, P]`: true where a passage is no candidate for the query, such as one with the same text as its positive.
    /// Empty if all are candidates. The target is one always.
    pub excluded: &'a [bool],
}

/// A batch whose parts do not fit together.
#[derive(Debug, thiserror::Error, PartialEq)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum BatchError {
    /// The similarities are not a whole number of columns per query.
    #[error("{similarities} similarities are not the same number of passages for each of {queries} queries")]
    Ragged { similarities: usize, queries: usize },
    /// The exclusion mask has another size than the similarities.
    #[error("the exclusion mask has {found} entries for {expected} similarities; it must be as many, or none")]
    Mask { found: usize, expected: usize },
    /// A target column that does not exist.
    #[error("the positive of query {query} is passage {target}, but the batch has {passages} passages")]
    Target { query: usize, target: usize, passages: usize },
}

/// The measures of each query of a batch among the batch's candidates, as the published ablation takes them; its
/// accuracy is `recall@1`. Ties are broken as [`by_rank`] does, the column being the id, so that a model whose
/// embeddings are all the same scores as chance does.
///
/// # Errors
/// When the parts of the batch do not fit together.
pub fn in_batch(batch: Batch<'_>) -> Result<Vec<Measures>, BatchError> {
    let Batch { similarities, targets, excluded } = batch;
    let queries = targets.len();
    let passages = similarities.len().checked_div(queries).unwrap_or(0);
    if passages * queries != similarities.len() {
        return Err(BatchError::Ragged { similarities: similarities.len(), queries });
    }
    if !excluded.is_empty() && excluded.len() != similarities.len() {
        return Err(BatchError::Mask { found: excluded.len(), expected: similarities.len() });
    }
    if let Some(query) = targets.iter().position(|&target| target >= passages) {
        return Err(BatchError::Target { query, target: targets[query], passages });
    }
    let of_query = |(query, &target): (usize, &usize)| {
        let row = query * passages..(query + 1) * passages;
        let scores = &similarities[row.clone()];
        let before = |&column: &usize| {
            let candidate = excluded.get(row.start + column) != Some(&true);
            candidate && by_rank((&column, scores[column]), (&target, scores[target])).is_lt()
        };
        let place = (0..passages).filter(before).count();
        let mut ranked = vec![0; place.min(Measures::DEPTH)];
        ranked.push(1);
        Measures::of(&ranked, &[1], 1)
    };
    Ok(targets.iter().enumerate().map(of_query).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        queries: Vec<FixtureQuery>,
    }

    #[derive(Deserialize)]
    struct FixtureQuery {
        qrels: HashMap<String, Grade>,
        run: Vec<(String, f32)>,
        measures: HashMap<String, f64>,
        measures_level_2: HashMap<String, f64>,
    }

    #[test]
    fn every_measure_agrees_with_trec_eval() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/trec_metrics.json");
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let fixture: Fixture = serde_json::from_str(&text).unwrap();
        assert!(fixture.queries.len() > 150);
        for (index, query) in fixture.queries.into_iter().enumerate() {
            let mut run = query.run;
            rank(&mut run);
            let ranked: Vec<Grade> = run.iter().map(|(id, _)| query.qrels.get(id).copied().unwrap_or(0)).collect();
            let judged: Vec<Grade> = query.qrels.values().copied().collect();
            for (level, expected) in [(1, query.measures), (2, query.measures_level_2)] {
                for (name, value) in Measures::of(&ranked, &judged, level).iter() {
                    let peer = expected[name];
                    assert!(
                        (value - peer).abs() < 1e-6,
                        "query {index}, {name}, -l {level}: {value}, trec_eval {peer}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_and_serialised_keys_are_one_list() {
        let measures = Measures::of(&[0, 1], &[1, 1], 1);
        let json = serde_json::to_value(measures).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, Measures::NAMES);
        assert_eq!(measures.get("recall@5"), Some(0.5));
        assert_eq!(measures.get("recall@7"), None);
        assert_eq!(serde_json::from_value::<Measures>(json).unwrap(), measures);
    }

    #[test]
    fn ties_go_to_the_larger_id_and_what_is_not_a_number_comes_last() {
        let nan = f32::NAN;
        let mut run = [
            ("d1", nan),
            ("d10", 0.0),
            ("d9", -0.0),
            ("é", 0.0),
            ("d2", f32::NEG_INFINITY),
            ("d3", -nan),
            ("d4", f32::INFINITY),
        ];
        rank(&mut run);
        assert_eq!(run.map(|(id, _)| id), ["d4", "é", "d9", "d10", "d2", "d3", "d1"]);
    }

    #[test]
    fn the_mean_counts_queries_without_a_relevant_document() {
        let found = Measures::of(&[1], &[1], 1);
        let hopeless = Measures::of(&[0, 0], &[0, -1], 1);
        assert_eq!(Measures::mean(&[found, hopeless]).unwrap().mrr_at_10, 0.5);
        assert_eq!(Measures::mean(&[]), None);
    }

    #[test]
    fn a_batch_of_equal_similarities_scores_as_chance() {
        let targets: Vec<usize> = (0..8).collect();
        let batch = Batch { similarities: &[0.5; 64], targets: &targets, excluded: &[] };
        assert_eq!(Measures::mean(&in_batch(batch).unwrap()).unwrap().recall_at_1, 1.0 / 8.0);
    }

    #[test]
    fn an_excluded_passage_does_not_outrank_the_positive() {
        let similarities = [0.1, 0.9, 0.2, 0.3];
        let batch = Batch { similarities: &similarities, targets: &[0, 1], excluded: &[] };
        let recall = |batch| in_batch(batch).unwrap().iter().map(|query| query.recall_at_1).collect::<Vec<_>>();
        assert_eq!(recall(batch), [0.0, 1.0]);
        assert_eq!(recall(Batch { excluded: &[false, true, false, false], ..batch }), [1.0, 1.0]);
    }

    #[test]
    fn a_batch_that_does_not_fit_together_is_refused() {
        let batch = Batch { similarities: &[0.0; 6], targets: &[0, 2], excluded: &[] };
        assert!(in_batch(batch).is_ok());
        let ragged = Batch { targets: &[0; 4], ..batch };
        assert_eq!(in_batch(ragged), Err(BatchError::Ragged { similarities: 6, queries: 4 }));
        let target = Batch { targets: &[0, 3], ..batch };
        assert_eq!(in_batch(target), Err(BatchError::Target { query: 1, target: 3, passages: 3 }));
        let mask = Batch { excluded: &[true], ..batch };
        assert_eq!(in_batch(mask), Err(BatchError::Mask { found: 1, expected: 6 }));
        let none = Batch { similarities: &[0.0], targets: &[], excluded: &[] };
        assert_eq!(in_batch(none), Err(BatchError::Ragged { similarities: 1, queries: 0 }));
    }

    proptest! {
        #[test]
        fn measures_stay_between_0_and_1_and_recall_grows_with_depth(
            ranked in prop::collection::vec(-1..4, 0..1500),
            missed in prop::collection::vec(-1..4, 0..20),
        ) {
            let judged: Vec<Grade> = ranked.iter().chain(&missed).copied().collect();
            let measures = Measures::of(&ranked, &judged, 1);
            for (name, value) in measures.iter() {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&value), "{} is {}", name, value);
            }
            let Measures { recall_at_1, recall_at_5, recall_at_10, recall_at_100, recall_at_1000, .. } = measures;
            prop_assert!([recall_at_1, recall_at_5, recall_at_10, recall_at_100, recall_at_1000].is_sorted());
        }

        #[test]
        fn the_place_in_a_batch_is_the_place_in_its_sorted_row(
            scores in prop::collection::vec(-3i8..3, 1..40),
            target in any::<prop::sample::Index>(),
        ) {
            let target = target.index(scores.len());
            let similarities: Vec<f32> = scores.iter().map(|&score| f32::from(score)).collect();
            let mut run: Vec<(usize, f32)> = similarities.iter().copied().enumerate().collect();
            rank(&mut run);
            let ranked: Vec<Grade> = run.iter().map(|&(column, _)| Grade::from(column == target)).collect();
            let batch = Batch { similarities: &similarities, targets: &[target], excluded: &[] };
            prop_assert_eq!(in_batch(batch).unwrap(), vec![Measures::of(&ranked, &[1], 1)]);
        }
    }
}
