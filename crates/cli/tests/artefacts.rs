//! What a run leaves is complete, agrees with itself, and can be used.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use common::{
    MEASURES, Place, floats, lines, mendel, names, pairs, program, read_json, read_rows, read_tensors, stderr, succeed,
};
use safetensors::SafeTensors;
use serde_json::Value;

const ARMS: [&str; 2] = ["standard", "genetic"];

/// A comparison on the demo, made once for all tests here: its folder and what it printed.
fn comparison() -> &'static (PathBuf, String) {
    static COMPARISON: OnceLock<(PathBuf, String)> = OnceLock::new();
    COMPARISON.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("artefacts");
        let _ = fs::remove_dir_all(&folder);
        let steps = ["--max-steps", "30", "--eval-steps", "20", "--log-steps", "10", "--save-steps", "15"];
        let output_dir = ["--output-dir", folder.to_str().unwrap()];
        let printed = succeed(&[["compare", "--preset", "demo"].as_slice(), &steps, &output_dir].concat());
        (folder, printed)
    })
}

fn artefact(name: &str) -> PathBuf {
    comparison().0.join(name)
}

fn results(arm: &str) -> Value {
    read_json(&artefact(&format!("{arm}_attention_results.json")))
}

#[track_caller]
fn positive(value: &Value) -> f64 {
    let number = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!(number > 0.0 && number.is_finite(), "{number}");
    number
}

#[track_caller]
fn assert_measures(measured: &Value) {
    for measures in [measured, &measured["in_batch"]] {
        for name in MEASURES {
            let value = measures[name].as_f64().unwrap_or_else(|| panic!("{name} is missing from {measures}"));
            assert!((0.0..=1.0).contains(&value), "{name} is {value}");
        }
    }
}

#[test]
fn every_artefact_is_there_and_nothing_else() {
    let folder = &comparison().0;
    let top = ["checkpoints", "comparison.json", "config.toml", "embeddings", "genetic_attention_results.json"];
    let runs = ["history", "models", "report.html", "report.md", "runs", "standard_attention_results.json"];
    assert_eq!(names(folder), [top.as_slice(), &runs, &["tensorboard", "training_curves"]].concat());
    let runs = ["genetic-seed42", "standard-seed42"];
    let endings = [
        ("checkpoints", ""),
        ("models", ""),
        ("tensorboard", ""),
        ("history", ".jsonl"),
        ("runs", ".json"),
        ("embeddings", ".safetensors"),
    ];
    for (kind, ending) in endings {
        assert_eq!(names(&folder.join(kind)), runs.map(|run| format!("{run}{ending}")), "{kind}");
    }
    for run in runs {
        assert_eq!(names(&folder.join("checkpoints").join(run)), ["step-000015", "step-000030"]);
        let model = ["config.json", "dual_encoder.json", "model.safetensors", "tokenizer.json"];
        let model = [model.as_slice(), &["tokenizer_config.json", "vocab.txt"]].concat();
        assert_eq!(names(&folder.join("models").join(run)), model);
    }
}

#[test]
fn the_results_of_an_arm_have_every_key_of_the_interface() {
    for arm in ARMS {
        let results = results(arm);
        assert_eq!(results["arm"], arm);
        assert_eq!(results["config"]["learning-rate"], 0.001);
        assert_eq!(results["peak_memory_kind"], "process");
        for number in ["final_loss", "total_time", "eval_time", "peak_memory_gb"] {
            positive(&results[number]);
        }
        let epochs = results["epoch_times"].as_array().unwrap();
        let sum: f64 = epochs.iter().map(positive).sum();
        assert!((sum - positive(&results["total_time"])).abs() < 1e-6);
        let throughput = &results["throughput"];
        let rate = positive(&throughput["pairs_per_second"]);
        assert!((rate * positive(&results["total_time"]) - 30.0 * 64.0).abs() < 0.1, "{rate}");
        assert!(positive(&throughput["tokens_per_second"]) > rate);
        assert!(positive(&throughput["model_flop_utilisation"]) < 1.5);
        assert_measures(&results["eval"]);
        assert_measures(&results["untrained"]);
        assert_eq!(results["seeds"].as_array().unwrap().len(), 1);
        assert_eq!(results["seeds"][0]["seed"], 42);
        for key in ["final_loss", "eval", "embedding_quality", "throughput"] {
            assert_eq!(results["seeds"][0][key], results[key], "{key}");
        }
        let quality = &results["embedding_quality"];
        for key in ["positive_pairs", "random_pairs", "alignment", "uniformity", "variance", "norms"] {
            assert!(!quality[key].is_null(), "{key} is missing from {quality}");
        }
        let mean = |pairs: &str| quality[pairs]["mean"].as_f64().unwrap();
        assert!(mean("positive_pairs") > mean("random_pairs"));
    }
}

#[test]
fn the_comparison_is_of_the_two_results() {
    let [standard, genetic] = ARMS.map(results);
    let comparison = read_json(&artefact("comparison.json"));
    assert_eq!(comparison["reference"], "standard");
    let [difference] = comparison["differences"].as_array().unwrap().as_slice() else { panic!("{comparison}") };
    assert_eq!(difference["arm"], "genetic");
    let measures = difference["measures"].as_object().unwrap();
    assert_eq!(measures.len(), 2 * MEASURES.len() + 2);
    for (name, compared) in measures {
        let of = |results: &Value| match (name.as_str(), name.strip_prefix("in_batch/")) {
            ("final_loss", _) => results["final_loss"].as_f64().unwrap(),
            (_, Some(name)) => results["eval"]["in_batch"][name].as_f64().unwrap(),
            (name, None) => results["eval"][name].as_f64().unwrap(),
        };
        assert_eq!(compared["reference"], of(&standard), "{name}");
        assert_eq!(compared["arm"], of(&genetic), "{name}");
        assert_eq!(compared["difference"], of(&genetic) - of(&standard), "{name}");
    }
    let ratio = positive(&genetic["peak_memory_gb"]) / positive(&standard["peak_memory_gb"]);
    assert_eq!(difference["cost_ratios"]["peak_memory_gb"], ratio);
    let seconds = |arm: &str| -> Vec<f64> {
        comparison["step_costs"][arm]["seconds"].as_array().unwrap().iter().map(positive).collect()
    };
    let mut ratios: Vec<f64> =
        seconds("genetic").iter().zip(seconds("standard")).map(|(own, first)| own / first).collect();
    ratios.sort_by(f64::total_cmp);
    assert_eq!(difference["cost_ratios"]["step_time"], (ratios[4] + ratios[5]) / 2.0);
}

#[test]
fn the_history_has_a_row_for_each_logged_step_and_each_evaluation() {
    for arm in ARMS {
        let rows = read_rows(&artefact(&format!("history/{arm}-seed42.jsonl")));
        let kinds: Vec<(&str, u64)> =
            rows.iter().map(|row| (row["kind"].as_str().unwrap(), row["step"].as_u64().unwrap())).collect();
        let of_steps = [("step", 10), ("step", 20), ("evaluation", 20), ("step", 30), ("evaluation", 30)];
        let (views, others): (Vec<_>, Vec<_>) = kinds.iter().copied().partition(|(kind, _)| *kind == "genetics");
        assert_eq!(others, [[("evaluation", 0)].as_slice(), &of_steps].concat());
        let expected = if arm == "genetic" { [0, 20, 30].map(|step| ("genetics", step)).to_vec() } else { Vec::new() };
        assert_eq!(views, expected);
        for row in rows.iter().filter(|row| row["kind"] == "step") {
            for number in ["loss", "learning_rate", "gradient_norm", "pairs_per_second", "seconds", "epoch"] {
                positive(&row[number]);
            }
        }
        let last = rows.iter().rfind(|row| row["kind"] == "evaluation").unwrap();
        let results = results(arm);
        for name in MEASURES {
            assert_eq!(last[name], results["eval"][name], "{name}");
            assert_eq!(last[format!("in_batch/{name}")], results["eval"]["in_batch"][name], "{name}");
        }
        assert_eq!(rows[0]["mrr@10"], results["untrained"]["mrr@10"]);
        let losses: Vec<f64> = rows.iter().filter_map(|row| row["loss"].as_f64()).collect();
        assert!(losses.is_sorted_by(|a, b| a > b), "the loss falls: {losses:?}");
    }
}

#[test]
fn the_embeddings_are_unit_vectors_with_their_ids() {
    for arm in ARMS {
        let path = artefact(&format!("embeddings/{arm}-seed42.safetensors"));
        let tensors = read_tensors(&path);
        let bytes = fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let ids: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["ids"]).unwrap();
        for (name, count) in [("queries", 450), ("passages", 1930)] {
            let (shape, bytes) = &tensors[name];
            assert_eq!(*shape, [count, 128]);
            for vector in floats(bytes).chunks(128) {
                let norm: f32 = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                assert!((norm - 1.0).abs() < 1e-5, "{norm}");
            }
            let ids = ids[name].as_array().unwrap();
            assert_eq!(ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), count);
            assert_eq!(ids.len(), count);
        }
    }
}

#[test]
fn a_saved_model_measures_what_its_results_say() {
    let place = Place::new();
    for arm in ARMS {
        let (model, out) = (artefact(&format!("models/{arm}-seed42")), place.argument(arm));
        let model = model.to_str().unwrap();
        let arguments = ["eval", model, "--dataset", "demo", "--batch-size", "64", "--json", "--output-dir", &out];
        let printed: Value = serde_json::from_str(&succeed(&arguments)).unwrap();
        let results = results(arm);
        assert_eq!(printed["eval"], results["eval"]);
        assert_eq!(printed["embedding_quality"], results["embedding_quality"]);
        assert_eq!(read_json(&place.path(arm).join("evaluation.json")), printed);
    }
}

#[test]
fn the_settings_in_force_repeat_the_run() {
    let place = Place::new();
    let (config, out) = (artefact("config.toml"), place.argument("again"));
    succeed(&["compare", "--config", config.to_str().unwrap(), "--output-dir", &out]);
    for arm in ARMS {
        common::assert_same_run(&comparison().0, &place.path("again"), arm);
    }
}

#[test]
fn stdout_has_the_table_and_the_verdict_alone() {
    let lines: Vec<&str> = comparison().1.lines().collect();
    let first_words: Vec<&str> = lines.iter().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    let rows = ["standard, untrained", "genetic, untrained", "standard", "genetic", "genetic − standard"];
    let (verdict, lines) = lines.split_last().unwrap();
    assert_eq!(first_words[2..7], rows, "{lines:#?}");
    assert!(verdict.starts_with("VERDICT mrr@10 genetic vs standard: ") && verdict.contains(" delta="), "{verdict}");
    assert!(verdict.contains(" ci95=[") && verdict.contains("] p="), "{verdict}");
    let columns = ["loss", "MRR@10", "nDCG@10", "R@1", "R@10", "R@100", "training", "memory", "pairs/s"];
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), columns);
    assert!(lines[1].chars().all(|character| character == '─'), "{}", lines[1]);
    let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
}

/// A small run, for what needs no demo: `command` with more words.
fn small(place: &Place, command: &str, more: &[&str]) -> std::process::Output {
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "3", "--output-dir", &out];
    mendel(&[[command].as_slice(), &common, more].concat())
}

#[test]
fn json_is_one_document_with_both_arms_and_their_difference() {
    let place = Place::new();
    let output = small(&place, "compare", &["--json"]);
    let value: Value = serde_json::from_str(common::stdout(&output)).unwrap();
    assert_eq!(value["arms"].as_array().unwrap().len(), 2);
    assert_eq!(value["arms"][1], read_json(&place.path("out/genetic_attention_results.json")));
    assert_eq!(value["differences"], read_json(&place.path("out/comparison.json"))["differences"]);
}

#[test]
fn where_there_is_no_terminal_nothing_is_coloured_or_redrawn() {
    let output = small(&Place::new(), "compare", &[]);
    assert_eq!(output.status.code(), Some(0));
    for told in [common::stdout(&output), stderr(&output)] {
        assert!(!told.is_empty() && !told.contains(['\x1b', '\r']), "{told}");
    }
    assert!(stderr(&output).contains("genetic step 3/3: loss "), "{}", stderr(&output));
}

#[test]
fn quiet_tells_the_result_alone() {
    let output = small(&Place::new(), "compare", &["--quiet", "--warmup-steps", "0"]);
    assert_eq!(stderr(&output), "");
    assert!(common::stdout(&output).contains("genetic − standard"));
}

#[test]
fn train_writes_its_arm_alone() {
    let place = Place::new();
    let output = small(&place, "train", &["--attention", "genetic+qk-norm", "--seed", "7"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let top = ["checkpoints", "config.toml", "embeddings", "genetic+qk-norm_attention_results.json", "history"];
    assert_eq!(names(&place.path("out")), [top.as_slice(), &["models", "runs", "tensorboard"]].concat());
    assert_eq!(names(&place.path("out/models")), ["genetic+qk-norm-seed7"]);
    let first_words: Vec<&str> = common::stdout(&output).lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(first_words[2..], ["genetic+qk-norm, untrained", "genetic+qk-norm"]);
}

#[test]
fn what_other_settings_have_left_is_neither_mixed_nor_lost_unless_that_is_asked_for() {
    let place = Place::new();
    let compared = small(&place, "compare", &["--seed", "7"]);
    assert_eq!(compared.status.code(), Some(0), "{}", stderr(&compared));
    let before = names(&place.path("out"));
    let train = |more: &[&str]| small(&place, "train", &[["--attention", "standard"].as_slice(), more].concat());
    let refused = train(&["--quiet"]);
    let parts = ["arms was [", "seed was 7 and is 42", "--output-dir", "--resume", "--overwrite"];
    common::assert_failed(&refused, 1, &["train"], &parts);
    assert_eq!(names(&place.path("out")), before);
    assert_eq!(train(&["--overwrite"]).status.code(), Some(0));
    let top =
        ["checkpoints", "config.toml", "embeddings", "history", "models", "runs", "standard_attention_results.json"];
    assert_eq!(names(&place.path("out")), [top.as_slice(), &["tensorboard"]].concat());
    assert_eq!(names(&place.path("out/models")), ["standard-seed42"]);
    // The same again, and what decides no result, stand in nobody's way.
    assert_eq!(train(&["--threads", "1", "--log-steps", "2"]).status.code(), Some(0));
}

#[test]
fn a_run_that_ends_within_its_warm_up_is_warned_of() {
    let output = small(&Place::new(), "train", &["--quiet", "--warmup-steps", "12"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("3 steps end within the warm-up of 12, at 25%"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_tries_every_arm_and_writes_nothing() {
    let place = Place::new();
    let output = small(&place, "compare", &["--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for arm in ARMS {
        assert!(stderr(&output).contains(&format!("{arm}: a step of 8 pairs")), "{}", stderr(&output));
    }
    assert_eq!(place.names(), ["pairs.jsonl"]);
}

/// What `embed` writes: by file ending the vectors, and the ids where there are any.
fn embed(place: &Place, model: &str, texts: &str, ending: &str, more: &[&str]) -> (Vec<f32>, Option<Vec<Value>>) {
    let output = place.argument(&format!("vectors.{ending}"));
    succeed(&[["embed", texts, "--model", model, "--output", &output].as_slice(), more].concat());
    let path = Path::new(&output);
    match ending {
        "npy" => {
            let bytes = fs::read(path).unwrap();
            let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
            (floats(&bytes[header..]), None)
        }
        "safetensors" => {
            let bytes = fs::read(path).unwrap();
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let ids = serde_json::from_str(&header.metadata().as_ref().unwrap()["ids"]).unwrap();
            (floats(&read_tensors(path)["embeddings"].1), Some(ids))
        }
        _ => {
            let rows = read_rows(path);
            let vector = |row: &Value| row["embedding"].as_array().unwrap().clone();
            let numbers = rows.iter().flat_map(vector).map(|x| x.as_f64().unwrap() as f32).collect();
            (numbers, Some(rows.iter().map(|row| row["id"].clone()).collect()))
        }
    }
}

#[test]
fn embeddings_are_the_same_in_every_format_and_those_of_the_run() {
    let place = Place::new();
    succeed(&["data", "demo", &place.argument("demo")]);
    let (corpus, model) = (place.argument("demo/corpus.jsonl"), artefact("models/genetic-seed42"));
    let model = model.to_str().unwrap();
    let formats: BTreeMap<&str, _> =
        ["npy", "safetensors", "jsonl"].map(|ending| (ending, embed(&place, model, &corpus, ending, &[]))).into();
    let ids: Vec<Value> = (0..1930).map(|index| format!("p{index}").into()).collect();
    for (ending, (vectors, found)) in &formats {
        assert!(*vectors == formats["npy"].0, "{ending}");
        assert!(found.as_ref().is_none_or(|found| *found == ids), "{ending}");
    }
    let of_run = read_tensors(&artefact("embeddings/genetic-seed42.safetensors"));
    let vectors = &formats["npy"].0;
    assert_eq!(vectors.len(), 1930 * 128);
    // The run has the passages in the order in which its questions name them.
    let rounded = |vector: &[f32]| vector.iter().map(|x| (x * 1e3).round() as i32).collect::<Vec<_>>();
    let sums = |vectors: &[f32]| {
        let mut sums: Vec<f32> = vectors.chunks(128).map(|vector| vector.iter().sum()).collect();
        sums.sort_unstable_by(f32::total_cmp);
        sums
    };
    assert_eq!(rounded(&sums(vectors)), rounded(&sums(&floats(&of_run["passages"].1))));
}

#[test]
fn embed_reads_standard_input_and_puts_the_prefix_of_its_side_before_each_text() {
    let place = Place::new();
    let output = small(&place, "train", &["--query-prefix", "query of ", "--passage-prefix", "passage of "]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let model = place.argument("out/models/standard-seed42");
    let bare = place.file("bare.toml", "query-prefix = ''\npassage-prefix = ''\n");
    let query = place.file("query.txt", "oak\n");
    let written_out = place.file("written-out.tsv", "a\tquery of oak\nb\tpassage of oak\n");
    let (expected, ids) = embed(&place, &model, &written_out, "jsonl", &["--config", &bare]);
    assert_eq!(ids.unwrap(), ["a", "b"]);
    let as_query = embed(&place, &model, &query, "npy", &["--as", "query"]).0;
    let as_passage = embed(&place, &model, &query, "npy", &[]).0;
    let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(difference(&as_query, &expected[..128]) < 1e-5);
    assert!(difference(&as_passage, &expected[128..]) < 1e-5);
    assert!(difference(&as_query, &as_passage) > 1e-3);
    let from_stdin = place.argument("stdin.npy");
    let mut child = program()
        .args(["embed", "-", "--model", &model, "--output", &from_stdin, "--as", "query"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"oak\n").unwrap();
    assert!(child.wait().unwrap().success());
    let bytes = fs::read(place.path("stdin.npy")).unwrap();
    assert_eq!(floats(&bytes[bytes.len() - 512..]), as_query);
}

#[test]
fn no_texts_are_no_embeddings() {
    let place = Place::new();
    assert_eq!(small(&place, "train", &[]).status.code(), Some(0));
    let (model, empty) = (place.argument("out/models/standard-seed42"), place.file("empty.txt", "\n\n"));
    for ending in ["npy", "safetensors", "jsonl"] {
        assert!(embed(&place, &model, &empty, ending, &[]).0.is_empty(), "{ending}");
    }
}

#[test]
fn a_trained_model_is_trained_on_from_its_folder() {
    let place = Place::new();
    assert_eq!(small(&place, "train", &["--attention", "genetic"]).status.code(), Some(0));
    let (dataset, model) = (place.pairs(), place.argument("out/models/genetic-seed42"));
    let out = place.argument("second");
    // A rate that rounds to nothing leaves the weights as they were.
    let settings = ["--max-steps", "1", "--learning-rate", "1e-300", "--attention", "genetic", "--output-dir", &out];
    succeed(&[["train", "--model", &model, "--dataset", &dataset].as_slice(), &settings].concat());
    let weights = |out: &str| read_tensors(&place.path(out).join("models/genetic-seed42/model.safetensors"));
    assert!(weights("out") == weights("second"));
}

#[test]
fn the_demo_that_is_written_is_inspected_and_trained_on() {
    let place = Place::new();
    let folder = place.argument("demo");
    succeed(&["data", "demo", &folder]);
    assert_eq!(names(&place.path("demo")), ["corpus.jsonl", "dev.jsonl", "train.jsonl"]);
    let rows = read_rows(&place.path("demo/train.jsonl")).len();
    for path in [folder.clone(), format!("{folder}/train.jsonl")] {
        let inspected: Value = serde_json::from_str(&succeed(&["data", "inspect", &path, "--json"])).unwrap();
        assert_eq!(inspected["rows"], rows, "{path}");
        assert_eq!(inspected["usable"], rows, "{path}");
    }
    assert!(succeed(&["data", "inspect", &folder]).contains("usable pairs"));
    let weights = |dataset: &str, eval_dataset: &str, out: &str| {
        let data = ["--dataset", dataset, "--eval-dataset", eval_dataset, "--output-dir", &place.argument(out)];
        succeed(&[["train", "--preset", "demo", "--max-steps", "3"].as_slice(), &data].concat());
        fs::read(place.path(out).join("models/standard-seed42/model.safetensors")).unwrap()
    };
    let dev = format!("{folder}/dev.jsonl");
    assert!(weights(&folder, &dev, "written") == weights("demo", &dev, "built-in"), "the data is the same");
}

#[test]
fn inspecting_counts_what_is_refused_by_reason() {
    let place = Place::new();
    let rows = lines(pairs().take(3))
        + "not json\n{\"query\": 1, \"positive\": \"x\"}\n{\"query\": \" \", \"positive\": \"x\"}\n";
    let file = place.file("mixed.jsonl", rows);
    let inspected: Value = serde_json::from_str(&succeed(&["data", "inspect", &file, "--json"])).unwrap();
    assert_eq!((&inspected["rows"], &inspected["usable"]), (&6.into(), &3.into()));
    for (reason, line) in [("not-json", 4), ("wrong-type", 5), ("empty-text", 6)] {
        assert_eq!(inspected["refused"][reason]["count"], 1, "{inspected}");
        assert_eq!(inspected["refused"][reason]["first"]["line"], line, "{inspected}");
    }
}
