use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::Settings;
use crate::data::demo::demo_tokenizer;
use crate::data::{Pair, query_hash};
use crate::progress::Silent;

fn pair(query: &str, positive: &str, negatives: &[&str]) -> Pair {
    Pair::new(query, positive, negatives).unwrap()
}

fn encoder() -> TextEncoder {
    TextEncoder::new(demo_tokenizer(), &Settings::default(), 512)
}

/// The split of a dataset, with the tokens kept in `cache`.
fn split(cache: &Path, dataset: &str, eval_dataset: Option<&str>, eval_queries: usize) -> Split {
    let cache = TokenCache { folder: cache.into(), encoder: encoder() };
    let request = DataRequest { dataset, eval_dataset, eval_queries, options: LoadOptions::default() };
    request.split(&cache, &mut Silent).unwrap()
}

#[test]
fn about_a_tenth_is_held_out_and_no_query_is_on_both_sides() {
    let queries: Vec<String> = (0..5000).map(|i| format!("Query {}?", i % 2500)).collect();
    let hashes: Vec<u64> = queries.iter().map(|query| query_hash(query)).collect();
    let held_out = hold_out(&hashes);
    let side = |held: bool| (0..5000).filter(|&i| held_out[i] == held).map(|i| &queries[i]).collect::<BTreeSet<_>>();
    assert!((350..650).contains(&held_out.iter().filter(|&&held| held).count()));
    assert!(side(true).is_disjoint(&side(false)));
}

proptest! {
    #[test]
    fn two_queries_or_more_leave_something_on_each_side(count in 2usize..30) {
        let hashes: Vec<u64> = (0..count).map(|i| query_hash(&format!("q {i}"))).collect();
        let held_out = hold_out(&hashes);
        prop_assert!(held_out.contains(&true) && held_out.contains(&false));
    }
}

#[test]
fn the_demo_is_evaluated_on_its_own_held_out_questions_wherever_it_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let by_itself = split(cache.path(), "demo", None, 5000);
    assert_eq!((by_itself.evaluation.queries.len(), by_itself.evaluation.passages.len()), (450, 1930));
    assert_eq!(split(cache.path(), "demo", Some("demo"), 5000).evaluation, by_itself.evaluation);
}

#[test]
fn a_file_is_split_or_evaluated_on_another_and_a_limit_takes_some_of_the_same_queries() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..300).map(|i| format!("query {i}\tpassage {i}\n")).collect();
    let path = folder.path().join("pairs.tsv");
    std::fs::write(&path, rows).unwrap();
    let path = path.to_str().unwrap();
    let of = |eval_dataset, eval_queries| split(&folder.path().join("cache"), path, eval_dataset, eval_queries);
    let own = of(None, 0);
    assert_eq!(own.training.len() + own.evaluation.queries.len(), 300);
    let few = of(None, 5);
    assert_eq!((few.training, few.evaluation.queries.len()), (own.training, 5));
    assert!(few.evaluation.queries.iter().all(|query| own.evaluation.queries.contains(query)));
    let whole = of(Some(path), 0);
    assert_eq!((whole.training.len(), whole.evaluation.queries.len()), (300, 300));
}

#[test]
fn the_validation_files_of_a_folder_are_what_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("train-00000-of-00001.tsv", &(0..50).map(|i| format!("query {i}\tpassage {i}\n")).collect::<String>());
    write("validation-00000-of-00001.tsv", "held out\tpassage\nheld out too\tpassage too\n");
    let cache = tempfile::tempdir().unwrap();
    let split = split(cache.path(), folder.path().to_str().unwrap(), None, 0);
    assert_eq!((split.training.len(), split.evaluation.queries.len()), (50, 2));
}

#[test]
fn equal_queries_are_merged_and_equal_passages_are_one() {
    let pairs = [pair("a", "x", &["y"]), pair("b", "y", &["x"]), pair("a", "z", &[]), pair("a", "x", &[])];
    let encoder = encoder();
    let store = TokenStore::of_pairs(&pairs, &encoder);
    let set = EvaluationSet::with_passages(&store, &["w".to_string(), "x".to_string()], &encoder);
    assert_eq!(set.queries, encoder.queries(&["a", "b"]));
    assert_eq!(set.passages, encoder.passages(&["x", "y", "z", "w"]));
    assert_eq!(set.relevant, [vec![0, 2], vec![1]]);
    assert_eq!(set.query_ids, ["q0", "q1"]);
    assert_eq!(set.passage_ids, ["p0", "p1", "p2", "p3"]);
    assert_ne!(set.fingerprint, EvaluationSet::new(&store, 0..4).fingerprint);
}
