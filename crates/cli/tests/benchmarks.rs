//! Sentence similarity, collections in BEIR's layout, runs, BM25 and mined negatives, as a user has them.

mod common;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use common::{MEASURES, Place, fail, mendel, minilm, read_rows, shared, stderr, succeed};
use serde_json::Value;

/// A model trained for a step.
fn model(place: &Place) -> String {
    let (dataset, out) = (place.pairs(), place.argument("first"));
    succeed(&["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "1", "--output-dir", &out]);
    place.argument("first/models/standard-seed42")
}

const CORPUS: &str = "{\"_id\": \"mill\", \"title\": \"The mill\", \"text\": \"A guild of masons built it.\"}\n\
                      {\"_id\": \"tower\", \"title\": \"\", \"text\": \"The tower of ash was built by a king.\"}\n\
                      {\"_id\": \"garden\", \"text\": \"Roses grow in it.\"}\n\
                      {\"_id\": \"same\", \"text\": \"roses in a garden\"}\n";
const QUERIES: &str = "{\"_id\": \"q1\", \"text\": \"mill built by masons?\"}\n\
                       {\"_id\": \"same\", \"text\": \"roses in a garden\"}\n\
                       {\"_id\": \"unjudged\", \"text\": \"tower\"}\n";
const QRELS: &str = "query-id\tcorpus-id\tscore\nq1\tmill\t2\nq1\ttower\t1\nsame\tgarden\t1\n";

/// A collection of four documents, in which a query is a document too.
fn collection(place: &Place) -> String {
    fs::create_dir_all(place.path("beir/qrels")).unwrap();
    place.file("beir/corpus.jsonl", CORPUS);
    place.file("beir/queries.jsonl", QUERIES);
    place.file("beir/qrels/test.tsv", QRELS);
    place.argument("beir")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(&[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn a_collection_is_searched_by_the_model_and_by_bm25() {
    let place = Place::new();
    let (model, beir) = (model(&place), collection(&place));
    let run = place.argument("run.trec");
    let evaluated = json(&["eval", &model, "--task", "beir", "--dataset", &beir, "--run-file", &run]);
    assert_eq!((&evaluated["queries"], &evaluated["documents"]), (&2.into(), &4.into()));
    let bm25 = &evaluated["systems"]["bm25"];
    // By words the mill comes first, then the tower; the query that is a document does not find itself.
    assert_eq!((&bm25["mrr@10"], &bm25["ndcg@10"]), (&1.0.into(), &1.0.into()));
    assert!(evaluated["systems"]["model"]["mrr@10"].as_f64().is_some_and(|mrr| mrr > 0.0));
    let told = succeed(&["eval", &model, "--task", "beir", "--dataset", &beir]);
    assert!(told.contains("BM25") && told.contains("model") && told.contains("nDCG@10"), "{told}");
    let alone = succeed(&["eval", &model, "--task", "beir", "--dataset", &beir, "--no-bm25"]);
    assert!(!alone.contains("BM25"), "{alone}");
    let lines: Vec<Vec<String>> =
        fs::read_to_string(run).unwrap().lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
    // Four documents for one query, for the other all but itself.
    assert_eq!(lines.len(), 7);
    for line in &lines {
        assert_eq!((line.len(), line[1].as_str(), line[5].as_str()), (6, "Q0", "mendel"));
        assert_ne!(line[0], line[2]);
    }
    let score = |line: &[String]| line[4].parse::<f32>().unwrap();
    assert!(lines.windows(2).all(|two| two[0][0] != two[1][0] || score(&two[0]) >= score(&two[1])));
}

#[test]
fn gzip_trec_judgements_and_a_relevance_level_are_understood() {
    let place = Place::new();
    let (model, beir) = (model(&place), collection(&place));
    let eval = ["eval", &model, "--task", "beir", "--dataset", &beir];
    let numbers = |mut value: Value| {
        for system in ["bm25", "model"] {
            value["systems"][system].as_object_mut().unwrap().remove("seconds");
        }
        value["systems"].take()
    };
    let plain = numbers(json(&eval));
    for name in ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"] {
        let path = place.path("beir").join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        place.file(&format!("beir/{name}.gz"), gzip(&text));
    }
    assert_eq!(numbers(json(&eval)), plain);
    place.file("beir/qrels/trec.tsv", "q1 0 mill 2\nq1 0 tower 1\nsame 0 garden 1\n");
    assert_eq!(numbers(json(&[eval.as_slice(), &["--split", "trec"]].concat())), plain);
    // From grade 2 on only the mill is relevant, and the other query has no answer; nDCG stays.
    let level = numbers(json(&[eval.as_slice(), &["--relevance-level", "2"]].concat()));
    assert_eq!(level["bm25"]["recall@10"], 0.5);
    assert_eq!(level["bm25"]["ndcg@10"], plain["bm25"]["ndcg@10"]);
}

#[test]
fn broken_collections_are_told_by_file_and_line() {
    let place = Place::new();
    let model = model(&place);
    let fails = |name: &str, content: &[u8], parts: &[&str]| {
        let beir = collection(&place);
        place.file(&format!("beir/{name}"), content);
        fail(1, &["eval", &model, "--task", "beir", "--dataset", &beir], parts);
    };
    fails("corpus.jsonl", b"{\"_id\": \"mill\", \"text\": 3}\n", &["corpus.jsonl:1"]);
    fails("queries.jsonl", b"{\"_id\": \"q1\", \"text\": \"x\"}\nnone\n", &["queries.jsonl:2"]);
    fails("qrels/test.tsv", b"q1\tmill\t1.5\n", &["test.tsv:1", "'1.5' is not a whole number"]);
    fails("qrels/test.tsv", b"q1\tnone\t1\n", &["test.tsv:1", "not in corpus.jsonl"]);
    let many: String =
        (0..2000).map(|i| format!("{{\"_id\": \"d{i}\", \"text\": \"text {}\"}}\n", i * 7919 % 2003)).collect();
    fails("corpus.jsonl", &gzip(&many)[..2000], &["corpus.jsonl", "ends too soon"]);
    let beir = collection(&place);
    fail(1, &["eval", &model, "--task", "beir", "--dataset", &beir, "--split", "dev"], &["no dev.tsv", "are test"]);
    fail(1, &["eval", &model, "--task", "beir", "--dataset", &place.argument("first")], &["not in BEIR's layout"]);
    let run = ["eval", &model, "--task", "sts", "--dataset", &beir, "--run-file", "x"];
    fail(2, &run, &["--run-file", "retrieves nothing"]);
    fail(2, &["eval", &model, "--dataset", "demo", "--split", "dev"], &["--split", "--task beir"]);
}

#[test]
fn sentence_pairs_are_correlated_and_broken_ones_told() {
    let place = Place::new();
    let model = model(&place);
    let header = "score\tsentence1\tsentence2\n";
    let rows = "5\tthe mill of ash\tthe mill of ash\n1\tthe mill of ash\twho built it\n0.5\troses\tthe tower of king\n";
    let tsv = place.file("sts.tsv", format!("{header}{rows}"));
    let found = json(&["eval", &model, "--task", "sts", "--dataset", &tsv]);
    assert_eq!(found["sts"]["pairs"], 3);
    assert!(found["sts"]["spearman"].as_f64().is_some_and(|rho| rho > 0.4), "{found}");
    let csv = place.file("sts.csv.gz", gzip(&format!("{header}{rows}").replace('\t', ",")));
    assert_eq!(json(&["eval", &model, "--task", "sts", "--dataset", &csv])["sts"], found["sts"]);
    let fails = |content: &str, parts: &[&str]| {
        let file = place.file("bad.tsv", content);
        fail(1, &["eval", &model, "--task", "sts", "--dataset", &file], parts);
    };
    fails(&format!("{header}high\tx\ty\n"), &["bad.tsv:2", "'high' is not a number"]);
    fails(&format!("{header}1\tx\n"), &["bad.tsv:2", "2 columns"]);
    fails(&format!("{header}1\tx\ty\n1\tz\tw\n"), &["bad.tsv", "2 pairs, 1 different scores"]);
    fails(header, &["0 pairs"]);
    fail(1, &["eval", &model, "--task", "sts", "--dataset", "none.tsv"], &["none.tsv"]);
}

#[test]
fn a_collection_is_trained_on_by_its_training_split() {
    let place = Place::new();
    let beir = collection(&place);
    let judgements: String = "query-id\tcorpus-id\tscore\nq1\tmill\t1\nq1\tgarden\t0\nsame\tgarden\t1\n".into();
    place.file("beir/qrels/train.tsv", judgements);
    let inspected = json(&["data", "inspect", &beir]);
    assert_eq!((&inspected["usable"], &inspected["negatives"]), (&2.into(), &1.into()));
    assert_eq!(inspected["examples"][0]["positive"], "The mill A guild of masons built it.");
}

#[test]
fn what_a_collection_is_tested_with_is_not_trained_on_and_not_evaluated_without_its_corpus() {
    let place = Place::new();
    let (model, beir, out) = (model(&place), collection(&place), place.argument("out"));
    let train = ["train", "--model", "demo-tiny", "--max-steps", "1", "--batch-size", "4", "--output-dir", &out];
    fail(1, &[train.as_slice(), &["--dataset", &beir]].concat(), &["no qrels/train.tsv", "--task beir"]);
    fail(2, &["eval", &model, "--dataset", &beir], &["BEIR's layout", "--task beir"]);
    fail(2, &["eval", &model, "--task", "beir"], &["msmarco-v2.1", "--dataset"]);
    let evaluated = ["--dataset", &place.pairs(), "--eval-dataset", &beir];
    let output = mendel(&[train.as_slice(), &evaluated].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("the split test is evaluated over the passages that it judges"));
}

#[test]
fn mined_negatives_share_words_answer_nothing_and_train() {
    let place = Place::new();
    let (pairs, output) = (place.pairs(), place.argument("mined.jsonl"));
    let mine = ["data", "mine", &pairs, "--output", &output, "--negatives", "3"];
    let mined = json(&mine);
    assert_eq!((&mined["pairs"], &mined["passages"]), (&64.into(), &128.into()));
    let rows = read_rows(&place.path("mined.jsonl"));
    for row in &rows {
        let (query, positive) = (row["query"].as_str().unwrap(), row["positive"].as_str().unwrap());
        let negatives: Vec<&str> =
            row["negatives"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert_eq!((negatives.len(), negatives.iter().collect::<HashSet<_>>().len()), (3, 3), "{row}");
        assert!(!negatives.contains(&positive));
        let words: HashSet<&str> = query.split(' ').collect();
        assert!(
            negatives[0].trim_end_matches('.').split(' ').filter(|word| words.contains(word)).count() >= 2,
            "{row}"
        );
    }
    let again = fs::read(place.path("mined.jsonl")).unwrap();
    succeed(&mine);
    assert_eq!(fs::read(place.path("mined.jsonl")).unwrap(), again);
    let skipped = place.argument("skipped.jsonl");
    succeed(&["data", "mine", &pairs, "--output", &skipped, "--negatives", "1", "--skip", "1"]);
    assert_eq!(read_rows(&place.path("skipped.jsonl"))[0]["negatives"][0], rows[0]["negatives"][1]);
    let beir = collection(&place);
    succeed(&["data", "mine", &pairs, "--output", &output, "--corpus", &beir]);
    let from_corpus = read_rows(&place.path("mined.jsonl"));
    assert!(from_corpus.iter().any(|row| row["negatives"][0] == "The tower of ash was built by a king."));
    let out = place.argument("out");
    let train = ["train", "--model", "demo-tiny", "--dataset", &output, "--hard-negatives", "2", "--max-steps", "1"];
    succeed(&[train.as_slice(), &["--output-dir", &out]].concat());
    fail(1, &["data", "mine", "none.jsonl", "--output", &output], &["'none.jsonl'"]);
    let below_a_file = format!("{output}/below/mined.jsonl");
    fail(1, &["data", "mine", &pairs, "--output", &below_a_file], &["mined.jsonl/below"]);
}

#[test]
fn a_run_of_pairs_can_be_written() {
    let place = Place::new();
    let (model, run) = (model(&place), place.argument("pairs.trec"));
    succeed(&["eval", &model, "--dataset", &place.pairs(), "--run-file", &run]);
    // 64 queries against 128 passages.
    assert_eq!(fs::read_to_string(run).unwrap().lines().count(), 64 * 128);
    let judged = fs::read_to_string(place.path("pairs.qrels")).unwrap();
    assert_eq!(judged.lines().count(), 64);
    assert_eq!(judged.lines().next(), Some("q0 0 p0 1"));
}

/// What the reference implementation scores (benches/peers/retrieval_scores.py).
fn reference() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../mendel/tests/fixtures/minilm_scores.json");
    common::read_json(&PathBuf::from(path))
}

#[track_caller]
fn assert_near(found: &Value, expected: &Value, names: &[&str]) {
    for name in names {
        let [found, expected] = [found, expected].map(|of| of[name].as_f64().unwrap());
        assert!((found - expected).abs() < 0.001, "{name}: {found}, sentence-transformers {expected}");
    }
}

#[test]
fn minilm_scores_on_sts_b_what_sentence_transformers_scores() {
    let (Some(model), Some(data)) = (minilm(), shared("stsb/test.tsv")) else { return };
    let found = json(&["eval", &model, "--task", "sts", "--dataset", &data]);
    let expected = &reference()["sts"]["stsb/test.tsv"];
    assert_near(&found["sts"], expected, &["spearman", "pearson", "pairs"]);
}

fn scores_as_the_reference(name: &str) {
    let (Some(model), Some(data)) = (minilm(), shared(&format!("beir/{name}"))) else { return };
    let found = json(&["eval", &model, "--task", "beir", "--dataset", &data]);
    let expected = &reference()["beir"][format!("{name}/test")];
    assert_near(&found["systems"]["model"], expected, &MEASURES);
    assert_near(&found, expected, &["queries", "documents"]);
    // Every BM25 is a little different; a plain one without stemming has 0.33 and 0.66.
    assert!(found["systems"]["bm25"]["ndcg@10"].as_f64().is_some_and(|ndcg| ndcg > 0.32), "{found}");
}

#[test]
fn minilm_scores_on_cranfield_what_sentence_transformers_scores() {
    scores_as_the_reference("cranfield");
}

#[test]
fn minilm_scores_on_scifact_what_sentence_transformers_scores() {
    scores_as_the_reference("scifact");
}
