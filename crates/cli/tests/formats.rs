//! The same rows of MS MARCO in every form that they come in, whole and broken.

mod common;

use std::fs;
use std::io::Write;

use common::ms_marco::{Row, columns, json_row, rows, write_parquet};
use common::{Place, fail, lines, read_json, succeed};
use serde_json::Value;

/// A few rows, one without an answer.
fn sample() -> Vec<Row> {
    let mut rows = rows(64);
    rows[5].passages = vec![(0, "Nobody knows.".into())];
    rows
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn inspected(path: &str) -> Value {
    serde_json::from_str(&succeed(&["data", "inspect", path, "--json"])).unwrap()
}

#[test]
fn parquet_json_lines_and_official_columns_are_the_same_pairs() {
    let place = Place::new();
    let rows = sample();
    let official = columns(&rows).to_string();
    write_parquet(&place.path("parquet"), &rows);
    let files = [
        place.argument("parquet"),
        place.file("rows", lines(rows.iter().map(json_row))),
        place.file("rows.gz", gzip(lines(rows.iter().map(json_row)).as_bytes())),
        place.file("official", &official),
        place.file("official.gz", gzip(official.as_bytes())),
    ];
    let first = inspected(&files[0]);
    assert_eq!((&first["rows"], &first["usable"], &first["negatives"]), (&64.into(), &63.into(), &63.into()));
    assert_eq!(first["refused"]["no-selected-passage"]["first"]["line"], 6);
    for file in &files {
        let found = inspected(file);
        assert_eq!(found["fingerprint"], first["fingerprint"], "{file}");
        assert_eq!(found["refused"]["no-selected-passage"]["count"], 1, "{file}");
    }
}

#[test]
fn every_form_trains_to_the_same_model() {
    let place = Place::new();
    let rows = sample();
    write_parquet(&place.path("parquet"), &rows);
    let official = place.file("official.gz", gzip(columns(&rows).to_string().as_bytes()));
    let plain = place.file("rows.jsonl", lines(rows.iter().map(json_row)));
    let train = |dataset: &str, out: &str| {
        let out_path = place.argument(out);
        let common =
            ["train", "--model", "demo-tiny", "--hard-negatives", "1", "--max-steps", "2", "--dataset", dataset];
        succeed(&[common.as_slice(), &["--output-dir", &out_path]].concat());
        fs::read(place.path(out).join("models/standard-seed42/model.safetensors")).unwrap()
    };
    let first = train(&plain, "a");
    assert!(train(&place.argument("parquet"), "b") == first);
    assert!(train(&official, "c") == first);
}

#[test]
fn a_parquet_file_that_is_cut_or_garbled_is_told_by_file_and_row() {
    let place = Place::new();
    write_parquet(&place.path("whole"), &rows(64));
    let whole = fs::read(place.path("whole")).unwrap();
    let cut = place.file("cut.parquet", &whole[..whole.len() / 2]);
    fail(1, &["data", "inspect", &cut], &["cut.parquet is a damaged Parquet file", "get it again"]);
    let mut garbled = whole.clone();
    // Pages lie between the magic and the description at the end.
    garbled[200..whole.len() / 2].fill(0xaa);
    let garbled = place.file("garbled.parquet", garbled);
    fail(1, &["data", "inspect", &garbled], &["garbled.parquet is a damaged Parquet file, from row"]);
    let train = ["train", "--model", "demo-tiny", "--dataset", &garbled, "--output-dir", &place.argument("out")];
    fail(1, &train, &["garbled.parquet"]);
    assert!(!place.path("out").exists());
}

#[test]
fn columns_that_break_off_are_told_by_file_and_row() {
    let place = Place::new();
    let whole = columns(&rows(64)).to_string();
    let cut = place.file("cut.json", &whole[..whole.len() / 2]);
    fail(1, &["data", "inspect", &cut], &["cut.json is broken column-oriented JSON at row", "'passages'"]);
    let whole = gzip(columns(&rows(5000)).to_string().as_bytes());
    let cut = place.file("cut.json.gz", &whole[..whole.len() / 2]);
    fail(1, &["data", "inspect", &cut], &["cut.json.gz", "ends too soon"]);
}

#[test]
fn the_test_split_is_refused_with_the_reason() {
    let place = Place::new();
    let mut hidden = rows(10);
    hidden.iter_mut().flat_map(|row| &mut row.passages).for_each(|(label, _)| *label = -1);
    write_parquet(&place.path("test.parquet"), &hidden);
    let file = place.argument("test.parquet");
    let out = place.argument("out");
    let train = ["train", "--model", "demo-tiny", "--output-dir", &out, "--dataset", &file];
    fail(1, &train, &["hidden labels", "test split", "validation"]);
    write_parquet(&place.path("train.parquet"), &rows(64));
    let evaluated = ["--eval-dataset", &file, "--dataset", &place.argument("train.parquet")];
    let train = ["train", "--model", "demo-tiny", "--output-dir", &out];
    fail(1, &[train.as_slice(), &evaluated].concat(), &["hidden labels"]);
}

#[test]
fn memory_does_not_grow_with_the_dataset() {
    let place = Place::new();
    let peak = |count: usize| {
        let dataset = place.file(&format!("{count}.jsonl"), lines(rows(count).iter().map(json_row)));
        let out = place.argument(&format!("out-{count}"));
        let limits = ["--max-steps", "2", "--eval-queries", "20", "--batch-size", "4", "--output-dir", &out];
        let train = ["train", "--model", "demo-tiny", "--dataset", &dataset];
        succeed(&[train.as_slice(), &limits].concat());
        read_json(&place.path(&format!("out-{count}/standard_attention_results.json")))["peak_memory_gb"]
            .as_f64()
            .unwrap()
    };
    let (few, many) = (peak(400), peak(40_000));
    // 100 times the rows, 10 MB of text: tokens and texts in memory would be more than this.
    assert!(many - few < 0.02, "{few} GB of 400 rows, {many} GB of 40,000");
}
