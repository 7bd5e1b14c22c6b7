//! Real files in the format of MS MARCO, where the shared data is at hand.

mod common;

use std::path::PathBuf;

use common::{Place, read_json, succeed};
use serde_json::Value;

/// Where the shared data is, if not beside the repository.
const SHARED_DATA: &str = "MENDEL_SHARED_DATA";

/// A file of the shared data; says so where it is absent.
fn shared(file: &str) -> Option<String> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os(SHARED_DATA).map_or_else(beside, PathBuf::from).join("msmarco").join(file);
    if !path.is_file() {
        eprintln!("skipped: {} is absent; {SHARED_DATA} says where the shared data is", path.display());
        return None;
    }
    Some(path.to_str()?.to_owned())
}

#[test]
fn rows_without_a_selected_passage_are_counted_and_left_out() {
    let Some(file) = shared("qa-v1.1-sample.jsonl.gz") else { return };
    let inspected: Value = serde_json::from_str(&succeed(&["data", "inspect", &file, "--json"])).unwrap();
    assert_eq!((&inspected["rows"], &inspected["usable"]), (&200.into(), &189.into()));
    assert_eq!(inspected["refused"]["no-selected-passage"]["count"], 11);
    assert_eq!(inspected["refused"].as_object().unwrap().len(), 1);
    assert!(inspected["negatives"].as_u64().is_some_and(|negatives| negatives > 1000));
    let told = succeed(&["data", "inspect", &file]);
    assert!(told.contains("no selected passage") && told.contains("189"), "{told}");
}

#[test]
fn every_file_of_ms_marco_rows_trains() {
    for file in ["qa-v1.1-sample.jsonl.gz", "train-positives.jsonl.gz", "train-triples.jsonl.gz"] {
        let Some(dataset) = shared(file) else { return };
        let place = Place::new();
        let out = place.argument("out");
        let limits = ["--max-steps", "2", "--max-seq-len", "48", "--hard-negatives", "1", "--output-dir", &out];
        let eval = shared("qa-v1.1-sample.jsonl.gz").unwrap();
        let data = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--eval-dataset", &eval];
        succeed(&[data.as_slice(), &limits].concat());
        let results = read_json(&place.path("out/standard_attention_results.json"));
        assert!(results["final_loss"].as_f64().is_some_and(f64::is_finite), "{file}");
    }
}
