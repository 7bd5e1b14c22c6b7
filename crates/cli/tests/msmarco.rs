//! Real files in the format of MS MARCO, where the shared data is at hand.

mod common;

use common::{Place, read_json, shared, succeed};
use serde_json::Value;

#[test]
fn rows_without_a_selected_passage_are_counted_and_left_out() {
    let Some(file) = shared("msmarco/qa-v1.1-sample.jsonl.gz") else { return };
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
        let Some(dataset) = shared(&format!("msmarco/{file}")) else { return };
        let place = Place::new();
        let out = place.argument("out");
        let limits = ["--max-steps", "2", "--max-seq-len", "48", "--hard-negatives", "1", "--output-dir", &out];
        let eval = shared("msmarco/qa-v1.1-sample.jsonl.gz").unwrap();
        let data = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--eval-dataset", &eval];
        succeed(&[data.as_slice(), &limits].concat());
        let results = read_json(&place.path("out/standard_attention_results.json"));
        assert!(results["final_loss"].as_f64().is_some_and(f64::is_finite), "{file}");
    }
}
