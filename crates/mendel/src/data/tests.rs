//! Loading, from the files of other tools and from the real ones in `shared/data`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::*;
use crate::progress::{Event, Observer, Silent};

fn load_default(source: &Path) -> Result<Dataset, DataError> {
    load(source.to_str().unwrap(), &LoadOptions::default(), &mut Silent)
}

/// A folder with one file in it.
fn file_with(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn ms_marco_row(query: &str, labels: &[i64], texts: &[&str]) -> String {
    serde_json::json!({
        "query": query, "query_id": 7, "query_type": "numeric", "answers": [],
        "passages": {"is_selected": labels, "passage_text": texts, "url": vec![""; texts.len()]},
    })
    .to_string()
}

#[test]
fn the_first_selected_passage_is_the_positive_and_only_those_labelled_0_are_negatives() {
    let row = ms_marco_row("q", &[0, -1, 1, 1, 0, 0], &["a", "b", "c", "d", " c ", "d"]);
    let (_folder, path) = file_with("rows.txt", row);
    let loaded = load_default(&path).unwrap();
    assert_eq!(loaded.pairs, [Pair { query: "q".into(), positive: "c".into(), negatives: vec!["a".into()] }]);
}

#[test]
fn rows_without_a_positive_are_counted_but_are_not_bad_rows() {
    let rows = [
        ms_marco_row("q", &[0, 1], &["a", "b"]),
        ms_marco_row("q", &[0, 0], &["a", "b"]),
        ms_marco_row("q", &[-1, -1], &["a", "b"]),
    ];
    let (_folder, path) = file_with("rows.jsonl", rows.join("\n"));
    let report = load_default(&path).unwrap().report;
    assert_eq!((report.rows, report.usable, report.malformed()), (3, 1, 0));
    assert_eq!(report.refused[&RefusedReason::NoSelectedPassage].count, 1);
    assert_eq!(report.refused[&RefusedReason::HiddenLabels].first, Location { file: path, line: 3 });
}

#[test]
fn the_format_shows_in_the_content_whatever_the_name_says() {
    let expected = vec![Pair { query: "q".into(), positive: "p".into(), negatives: vec!["n".into()] }];
    let json = r#"{"query": "q", "positive": "p", "negatives": ["n", "p", " "], "source": 3}"#;
    for content in ["q\tp\tn\n", "\u{feff}q\tp\tn\r\n", "query\tpositive\tnegative\nq\tp\tn\n", "\n \nq\tp\tn", json] {
        for bytes in [content.as_bytes().to_vec(), gzip(content.as_bytes())] {
            let (_folder, path) = file_with("data.parquet", bytes);
            assert_eq!(load_default(&path).unwrap().pairs, expected, "{content:?}");
        }
    }
}

#[test]
fn every_kind_of_broken_row_is_counted_under_its_reason() {
    let rows: [&[u8]; 8] = [
        br#"{"query": "q", "positive": "p"}"#,
        br#"{"query": "q", "positive": "#,
        br#"{"query": "q", "positive": 3}"#,
        br#"{"query": "q"}"#,
        br#"["q", "p"]"#,
        br#"{"query": " ", "positive": "p"}"#,
        b"{\"query\": \"q\xff\", \"positive\": \"p\"}",
        b"   ",
    ];
    let (_folder, path) = file_with("rows.jsonl", rows.join(&b'\n'));
    let loaded = load(path.to_str().unwrap(), &LoadOptions { max_bad_rows: 1.0 }, &mut Silent).unwrap();
    let counts: Vec<(RefusedReason, u64, u64)> =
        loaded.report.refused.iter().map(|(reason, refused)| (*reason, refused.count, refused.first.line)).collect();
    let expected = [
        (RefusedReason::EmptyText, 1, 6),
        (RefusedReason::WrongType, 2, 3),
        (RefusedReason::NotJson, 2, 2),
        (RefusedReason::BadUtf8, 1, 7),
    ];
    assert_eq!(counts, expected);
    assert_eq!((loaded.report.rows, loaded.report.usable), (7, 1));
}

#[test]
fn too_many_bad_rows_stop_with_the_counts_the_first_one_and_the_flag() {
    let (_folder, path) = file_with("pairs.tsv", "q\tp\nno tab here\nq\t \n");
    let message = load_default(&path).unwrap_err().to_string();
    for part in ["2 of 3 rows", "1 empty text, 1 no second column", "pairs.tsv:2", "--max-bad-rows 0.01"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_share_of_bad_rows_that_is_allowed_does_not_stop() {
    let rows = "q\tp\n".repeat(99) + "broken\n";
    let (_folder, path) = file_with("pairs.tsv", rows);
    assert_eq!(load_default(&path).unwrap().pairs.len(), 99);
}

#[test]
fn nothing_usable_is_an_error_with_the_counts() {
    let (_folder, path) = file_with("hidden.jsonl", ms_marco_row("q", &[-1], &["a"]));
    let message = load_default(&path).unwrap_err().to_string();
    assert!(message.contains("hidden labels") && message.contains("validation split"), "{message}");
    let (_folder, path) = file_with("unanswered.jsonl", ms_marco_row("q", &[0], &["a"]));
    let message = load_default(&path).unwrap_err().to_string();
    assert!(message.contains("no usable pair: of 1 rows 1 no selected passage"), "{message}");
    let (_folder, path) = file_with("empty.jsonl", "");
    let message = load_default(&path).unwrap_err().to_string();
    assert!(message.contains("no usable pair: it has no rows"), "{message}");
}

#[test]
fn a_name_that_is_no_path_names_the_two_ways_on() {
    let message = load("no-such-data", &LoadOptions::default(), &mut Silent).unwrap_err().to_string();
    for part in ["'no-such-data'", "msmarco-v2.1", "file or folder", "--preset demo"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_gzip_file_that_was_cut_off_is_an_error_that_names_it() {
    let rows: String = (0..20_000).map(|i| format!("query {i}\tpassage {}\n", i * 7919 % 20_011)).collect();
    let whole = gzip(rows.as_bytes());
    let (_folder, path) = file_with("cut.tsv.gz", &whole[..whole.len() / 2]);
    let message = load_default(&path).unwrap_err().to_string();
    assert!(message.contains("cut.tsv.gz") && message.contains("ends too soon"), "{message}");
}

#[test]
fn what_is_no_training_data_is_refused_with_what_it_is() {
    let cases: [(&[u8], &str); 6] = [
        (b"PAR1\x15\x04", "damaged Parquet"),
        (b"\xff\xfe\x00q", "not UTF-8"),
        (b"A line of prose.\n", "neither a JSON object nor two columns"),
        (b"{\"_id\": \"1\", \"text\": \"t\"}\n", "the fields _id, text"),
        (b"{\"query\": {\"0\": \"q\"}}", "column-oriented JSON without passages"),
        (b"{\"query\": ", "not JSON"),
    ];
    for (content, part) in cases {
        let (_folder, path) = file_with("data", content);
        let message = load_default(&path).unwrap_err().to_string();
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn observe(&mut self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.0.push(text);
        }
    }
}

#[test]
fn a_header_of_tsv_is_no_pair_and_numbers_are_no_queries() {
    for header in ["query\tpositive", "Question\tAnswer", "anchor\tpositive\tnegative", "query\tpassage"] {
        let (_folder, path) = file_with("pairs.tsv", format!("{header}\n911\tthe number to call\nwho\tme\n"));
        assert_eq!(load_default(&path).unwrap().pairs.len(), 2, "{header}");
    }
    for rows in ["1\t0\td1\t1\n2\t0\td2\t1\n", "score\tfirst\tsecond\n2.5\ta\tb\n3.0\tc\td\n"] {
        let (_folder, path) = file_with("other.tsv", rows);
        let message = load_default(&path).unwrap_err().to_string();
        assert!(message.contains("its first column holds numbers"), "{message}");
    }
}

#[test]
fn a_folder_is_its_training_files_in_the_order_of_their_names() {
    let (folder, _) = file_with("b.tsv", "second\tp\n");
    fs::write(folder.path().join("a.jsonl"), r#"{"query": "first", "positive": "p"}"#).unwrap();
    fs::write(folder.path().join("mix.test.tsv"), "held out\tp\n").unwrap();
    fs::write(folder.path().join("README.md"), "# Data\n").unwrap();
    fs::write(folder.path().join(".hidden"), "hidden\tp\n").unwrap();
    fs::create_dir(folder.path().join("nested")).unwrap();
    fs::write(folder.path().join("nested/c.tsv"), "nested\tp\n").unwrap();
    let mut warnings = Warnings::default();
    let loaded = load(folder.path().to_str().unwrap(), &LoadOptions::default(), &mut warnings).unwrap();
    let queries: Vec<&str> = loaded.pairs.iter().map(|pair| pair.query.as_str()).collect();
    assert_eq!(queries, ["first", "second"]);
    assert!(
        warnings.0[0].contains("README.md") && warnings.0[0].contains("mix.test.tsv is a test split"),
        "{:?}",
        warnings.0
    );
}

#[test]
fn a_folder_of_held_out_files_only_is_read() {
    let (folder, _) = file_with("dev.tsv", "q\tp\n");
    assert_eq!(load_default(folder.path()).unwrap().pairs.len(), 1);
}

#[test]
fn a_folder_without_data_is_an_error_that_says_what_is_in_it() {
    let (folder, _) = file_with("README.md", "# Data\n");
    let message = load_default(folder.path()).unwrap_err().to_string();
    assert!(message.contains("no training data") && message.contains("README.md"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    assert!(load_default(empty.path()).unwrap_err().to_string().contains("no files"));
}

#[test]
fn the_fingerprint_follows_the_pairs_and_nothing_else() {
    let fingerprint = |content: &str| {
        let (_folder, path) = file_with("data", content);
        inspect(path.to_str().unwrap(), None, &mut Silent).unwrap().fingerprint
    };
    let plain = fingerprint("q\tp\tn\n");
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, fingerprint("\nq\t p\tn\nbroken\n"));
    assert_eq!(plain, fingerprint(r#"{"query": "q", "positive": "p", "negatives": ["n"]}"#));
    for other in ["q\tp\n", "q\tpn\n", "q\tp\tn\nq\tp\tn\n", "qp\tn\n"] {
        assert_ne!(plain, fingerprint(other), "{other:?}");
    }
}

/// Rows as the official files have them: a column an object, passages a list of objects.
fn columns(rows: &[(&str, &[(i64, &str)])]) -> Vec<u8> {
    let passages = |row: &[(i64, &str)]| -> Value {
        row.iter().map(|(label, text)| json!({"is_selected": label, "passage_text": text, "url": ""})).collect()
    };
    let keyed = |value: &dyn Fn(usize) -> Value| -> Value {
        // The official keys are not in order either.
        (0..rows.len()).rev().map(|row| ((row * 7).to_string(), value(row))).collect::<serde_json::Map<_, _>>().into()
    };
    json!({
        "answers": keyed(&|_| json!(["x"])),
        "passages": keyed(&|row| passages(rows[row].1)),
        "query": keyed(&|row| rows[row].0.into()),
        "query_id": keyed(&|row| row.into()),
        "wellFormedAnswers": keyed(&|_| "[]".into()),
    })
    .to_string()
    .into_bytes()
}

#[test]
fn column_oriented_json_is_the_same_rows_plain_and_gzip_and_pretty() {
    let rows: [(&str, &[(i64, &str)]); 2] = [("first", &[(0, "a"), (1, "b")]), ("second", &[(1, "c")])];
    let plain = columns(&rows);
    let pretty = serde_json::to_vec_pretty(&serde_json::from_slice::<Value>(&plain).unwrap()).unwrap();
    for content in [plain.clone(), gzip(&plain), pretty] {
        let (_folder, path) = file_with("train_v2.1.json", content);
        let pairs = load_default(&path).unwrap().pairs;
        let expected = [
            Pair { query: "second".into(), positive: "c".into(), negatives: vec![] },
            Pair { query: "first".into(), positive: "b".into(), negatives: vec!["a".into()] },
        ];
        assert_eq!(pairs, expected);
    }
}

#[test]
fn what_is_wrong_in_columns_is_told_by_row() {
    let broken: [(&str, &str); 4] = [
        (
            r#"{"passages": {"0": [{"is_selected": 1, "passage_text": "p"}]"#,
            "data.json is broken column-oriented JSON at row 2 of 'passages'",
        ),
        (r#"{"passages": {"0": []}, "query": {"0": "q"}} x"#, "trailing characters"),
        (
            r#"{"passages": {"0": [{"is_selected": "yes", "passage_text": "p"}]}, "query": {"0": "q"}}"#,
            "1 wrong or missing field",
        ),
        (
            r#"{"passages": {"0": [{"is_selected": 1, "passage_text": "p"}]}, "query": {"1": "q"}}"#,
            "1 wrong or missing field",
        ),
    ];
    for (content, part) in broken {
        let (_folder, path) = file_with("data.json", content);
        let message = load_default(&path).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("data.json"), "{part:?} is not in {message:?}");
    }
    let row: (&str, &[(i64, &str)]) = ("q", &[(1, "p")]);
    let whole = gzip(&columns(&[row].repeat(50_000)));
    let (_folder, path) = file_with("cut.json.gz", &whole[..whole.len() / 2]);
    let message = load_default(&path).unwrap_err().to_string();
    assert!(message.contains("cut.json.gz is a gzip file that ends too soon"), "{message}");
}

#[test]
fn an_inspection_counts_what_repeats() {
    let (_folder, path) = file_with("data.tsv", "a b\tp\nA\tp\tn\na b\tq\nbroken\n");
    let inspection = inspect(path.to_str().unwrap(), None, &mut Silent).unwrap();
    assert_eq!((inspection.duplicate_queries, inspection.duplicate_positives, inspection.negatives), (1, 1, 1));
    assert_eq!((inspection.duplicate_pairs, inspection.unit), (0, "words"));
    let in_tokens = inspect(path.to_str().unwrap(), Some(&demo::demo_tokenizer()), &mut Silent).unwrap();
    assert_eq!((in_tokens.unit, in_tokens.query_lengths.max, in_tokens.passage_lengths.max), ("tokens", 4, 3));
    assert_eq!(inspection.query_lengths, Lengths { min: 1, p50: 2, p90: 2, p99: 2, max: 2 });
    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["rows"], 4);
    assert_eq!(json["refused"]["no-second-column"]["count"], 1);
    assert_eq!(json["examples"][1]["negatives"][0], "n");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_loading_panic(bytes: Vec<u8>, start in 0usize..5) {
        let starts: [&[u8]; 5] = [b"", b"q\tp\n", b"{\"query\":1,\"positive\":2}\n", b"\x1f\x8b\x08", b"\xef\xbb\xbf"];
        let (_folder, path) = file_with("data", [starts[start], &bytes].concat());
        if let Ok(loaded) = load(path.to_str().unwrap(), &LoadOptions { max_bad_rows: 1.0 }, &mut Silent) {
            let refused: u64 = loaded.report.refused.values().map(|refused| refused.count).sum();
            proptest::prop_assert_eq!(loaded.report.rows, loaded.report.usable + refused);
        }
    }
}

/// A file of the real data, where this checkout has it.
fn shared(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = std::env::var_os("MENDEL_SHARED_DATA").map_or(workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        eprintln!("skipped: there is no {}; MENDEL_SHARED_DATA can say where the data is", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn the_real_ms_marco_sample_loads_but_for_its_unanswered_questions() {
    let Some(path) = shared("msmarco/qa-v1.1-sample.jsonl.gz") else { return };
    let loaded = load_default(&path).unwrap();
    assert_eq!((loaded.report.rows, loaded.report.usable, loaded.report.malformed()), (200, 189, 0));
    assert_eq!(loaded.report.refused[&RefusedReason::NoSelectedPassage].count, 11);
    assert!(loaded.pairs.iter().any(|pair| pair.negatives.len() > 5));
}

#[test]
fn the_other_real_files_load_whole() {
    for (name, rows) in [
        ("msmarco/train-positives.jsonl.gz", 620),
        ("msmarco/train-triples.jsonl.gz", 100),
        ("mix/train.jsonl.gz", 34_956),
        ("mix/dev.jsonl.gz", 2_789),
        ("pairs/wikiqa.train.jsonl.gz", 1_040),
    ] {
        let Some(path) = shared(name) else { continue };
        let loaded = load_default(&path).unwrap();
        assert_eq!((loaded.report.rows, loaded.report.usable), (rows, rows), "{name}: {}", loaded.report.reasons());
    }
}

#[test]
fn the_real_mixture_folder_trains_on_train_alone() {
    let Some(path) = shared("mix") else { return };
    assert_eq!(load_default(&path).unwrap().pairs.len(), 34_956);
}
