//! What is learned: from which weights, with which settings, and how a run that diverges ends.

mod common;

use common::{Place, fail, lines, mendel, names, pairs, read_json, read_rows, read_tensors, stderr, succeed};
use serde_json::{Value, json};

/// Three steps of the built-in model on a small dataset, with more words; the folder written is `out`.
fn train(place: &Place, more: &[&str]) {
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "3", "--output-dir", &out];
    succeed(&[["train"].as_slice(), &common, more].concat());
}

#[test]
fn arms_share_the_initial_weights_of_all_that_they_share() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let arms = "standard,genetic,standard+qk-norm";
    // A rate that rounds to nothing leaves the initial weights.
    let common = ["compare", "--model", "demo-tiny", "--dataset", &dataset, "--arms", arms, "--output-dir", &out];
    succeed(&[common.as_slice(), &["--max-steps", "1", "--learning-rate", "1e-300"]].concat());
    let weights = |arm: &str| read_tensors(&place.path(&format!("out/models/{arm}-seed42/model.safetensors")));
    let standard = weights("standard");
    assert!(standard == weights("genetic"));
    let normed = weights("standard+qk-norm");
    assert!(standard.iter().all(|(name, tensor)| normed[name] == *tensor));
    let own: Vec<&String> = normed.keys().filter(|name| !standard.contains_key(*name)).collect();
    assert_eq!(own.len(), 4, "two gains in each of two layers: {own:?}");
    let untrained = |arm: &str| {
        let results = read_json(&place.path(&format!("out/{arm}_attention_results.json")));
        (results["untrained"].clone(), results["eval"].clone())
    };
    for arm in ["standard", "genetic"] {
        let (before, after) = untrained(arm);
        assert_eq!(before, after, "{arm} is as it was");
    }
}

#[test]
fn arms_see_the_same_pairs_in_the_same_order() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["compare", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--log-steps", "1"];
    // Without a modulation that differs from 1 the arms would be equal; without dropout and steps that change anything,
    // a loss tells which pairs were in its batch.
    let still = ["--max-steps", "5", "--learning-rate", "1e-300", "--dropout", "0", "--num-generations", "0"];
    succeed(&[common.as_slice(), &still].concat());
    let losses = |arm: &str| -> Vec<f64> {
        let rows = read_rows(&place.path(&format!("out/history/{arm}-seed42.jsonl")));
        rows.iter().filter(|row| row["kind"] == "step").filter_map(|row| row["loss"].as_f64()).collect()
    };
    let (standard, genetic) = (losses("standard"), losses("genetic"));
    assert_eq!(standard.len(), 5);
    let spread = |losses: &[f64]| {
        losses.iter().copied().fold(f64::MIN, f64::max) - losses.iter().copied().fold(f64::MAX, f64::min)
    };
    let apart = standard.iter().zip(&genetic).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart < 0.1 * spread(&standard), "{standard:?} {genetic:?}");
}

#[test]
fn a_run_that_diverges_is_stopped_with_its_step_its_pairs_and_what_to_try() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let run = |rate: &str, more: &[&str], parts: &[&str]| {
        let common =
            ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--save-steps", "1"];
        let steep = ["--max-steps", "5", "--warmup-steps", "0", "--learning-rate", rate];
        fail(1, &[common.as_slice(), &steep, more].concat(), parts);
    };
    let try_this = ["training pairs [", "--learning-rate", "--warmup-steps"];
    run("1e30", &[], &[["step 2: the loss is not finite"].as_slice(), &try_this].concat());
    // The checkpoint before it is whole, and the run goes on from it to the same end.
    let checkpoints = place.path("out/checkpoints/standard-seed42");
    assert_eq!(names(&checkpoints), ["step-000001"]);
    run("1e30", &["--resume"], &["step 2: the loss is not finite"]);
    let named = checkpoints.join("step-000001").display().to_string();
    run("1e30", &["--resume", &named], &["step 2: the loss is not finite"]);
    assert_eq!(names(&checkpoints), ["step-000001"]);
    assert!(!place.path("out/models").exists());
}

#[test]
fn weights_that_are_not_finite_are_never_saved() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--warmup-steps", "0"];
    let parts = ["step 1: the model is not finite", "training pairs ["];
    fail(1, &[common.as_slice(), &["--learning-rate", "1e39", "--save-steps", "1"]].concat(), &parts);
    assert!(!place.path("out/checkpoints").exists());
    fail(1, &[common.as_slice(), &["--learning-rate", "1e39", "--max-steps", "1"]].concat(), &parts);
}

#[test]
fn a_loss_that_is_not_finite_at_the_first_step_stops_the_run_there() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--warmup-steps", "0"];
    fail(1, &[common.as_slice(), &["--temperature", "1e-60"]].concat(), &["step 1: the loss is not finite"]);
}

#[test]
fn queries_that_are_trained_on_and_evaluated_are_warned_of() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--eval-dataset", &dataset];
    let output = mendel(&[common.as_slice(), &["--max-steps", "1", "--output-dir", &out]].concat());
    assert!(stderr(&output).contains("64 of 64 queries that are evaluated are trained on"), "{}", stderr(&output));
}

#[test]
fn every_setting_of_the_training_trains() {
    for more in [
        ["--loss", "symmetric"].as_slice(),
        &["--pooling", "cls"],
        &["--pooling", "max"],
        &["--n-kv-heads", "2"],
        &["--n-kv-heads", "1", "--attention", "genetic"],
        &["--in-proj-dim", "64"],
        &["--in-proj-dim", "64", "--n-kv-heads", "2", "--qk-norm", "--attention", "genetic"],
        &["--qk-norm"],
        &["--causal"],
        &["--causal", "--num-generations", "0", "--attention", "genetic"],
        &["--evolution", "mean-field", "--attention", "genetic"],
        &["--fitness-scale", "unit-sum", "--attention", "genetic"],
        &["--attention", "genetic", "--population-size", "1", "--num-generations", "1"],
        &["--attention", "genetic", "--mutation-rate", "0", "--crossover-rate", "1", "--selection-pressure", "0"],
        &["--attention", "genetic", "--mutation-rate", "1", "--crossover-rate", "0", "--selection-pressure", "30"],
        &["--query-prefix", "query: ", "--passage-prefix", "passage: "],
        &["--lr-schedule", "cosine"],
        &["--lr-schedule", "constant", "--warmup-steps", "0"],
        &["--dropout", "0"],
        &["--hard-negatives", "1"],
        &["--hard-negatives", "5"],
        &["--hard-negatives", "1", "--batch-size", "1"],
        &["--max-seq-len", "3"],
        &["--max-seq-len", "100000"],
        &["--weight-decay", "0", "--max-grad-norm", "1e-3"],
        &["--epochs", "9223372036854775807"],
    ] {
        let place = Place::new();
        train(&place, more);
        let arm = if more.contains(&"genetic") { "genetic" } else { "standard" };
        let results = read_json(&place.path(&format!("out/{arm}_attention_results.json")));
        assert_eq!(results["steps"], 3, "{more:?}");
        assert!(results["final_loss"].as_f64().is_some_and(f64::is_finite), "{more:?}");
        let model = place.argument(&format!("out/models/{arm}-seed42"));
        let dataset = place.argument("pairs.jsonl");
        let evaluated: Value =
            serde_json::from_str(&succeed(&["eval", &model, "--dataset", &dataset, "--json"])).unwrap();
        assert!(evaluated["eval"]["mrr@10"].as_f64().is_some_and(f64::is_finite), "{more:?}");
    }
}

#[test]
fn a_model_that_pools_otherwise_is_evaluated_as_it_was_trained() {
    let place = Place::new();
    let (dataset, dev) = (place.pairs(), place.file("dev.jsonl", lines(pairs().step_by(3))));
    let out = place.argument("out");
    let unusual = ["--pooling", "cls", "--max-seq-len", "9", "--query-prefix", "which of these "];
    let common = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--eval-dataset", &dev, "--output-dir", &out];
    succeed(&[common.as_slice(), &["--max-steps", "3", "--learning-rate", "1e-3"], &unusual].concat());
    let model = place.argument("out/models/standard-seed42");
    let evaluated: Value = serde_json::from_str(&succeed(&["eval", &model, "--dataset", &dev, "--json"])).unwrap();
    let results = read_json(&place.path("out/standard_attention_results.json"));
    assert_eq!(evaluated["eval"], results["eval"]);
    let otherwise = succeed(&["eval", &model, "--dataset", &dev, "--json", "--pooling", "mean", "--query-prefix", ""]);
    let otherwise: Value = serde_json::from_str(&otherwise).unwrap();
    assert_ne!(otherwise["embedding_quality"], results["embedding_quality"]);
}

#[test]
fn equal_texts_are_trained_on_and_never_contrasted() {
    let place = Place::new();
    let rows: Vec<Value> = pairs().take(16).flat_map(|pair| std::iter::repeat_n(pair, 4)).collect();
    let dataset = place.file("repeated.jsonl", lines(rows.into_iter()));
    let out = place.argument("out");
    let settings = ["--max-steps", "40", "--epochs", "99", "--learning-rate", "1e-3", "--warmup-steps", "5"];
    let common = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--batch-size", "16"];
    succeed(&[common.as_slice(), &settings].concat());
    // Were a pair's copies its negatives, no loss could fall below the logarithm of how many there are.
    let loss = read_json(&place.path("out/standard_attention_results.json"))["final_loss"].as_f64().unwrap();
    assert!(loss < 0.3, "{loss}");
}

#[test]
fn hard_negatives_that_no_pair_has_are_warned_of() {
    let place = Place::new();
    let plain = pairs().map(|mut pair| {
        pair.as_object_mut().unwrap().remove("negatives");
        pair
    });
    let (dataset, out) = (place.file("plain.jsonl", lines(plain)), place.argument("out"));
    let arguments = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--max-steps", "1"];
    let output = mendel(&[arguments.as_slice(), &["--hard-negatives", "2"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("mendel: warning: no pair"), "{}", stderr(&output));
}

#[test]
fn texts_of_any_kind_are_trained_on() {
    let place = Place::new();
    let strange = [
        json!({"query": "🦀🦀🦀", "positive": "日本語の文章です。"}),
        json!({"query": "\u{0}\u{1}control", "positive": "\u{202e}right to left"}),
        json!({"query": "x".repeat(5000), "positive": "word ".repeat(20_000)}),
        json!({"query": "e\u{301}", "positive": "\u{e9}"}),
        json!({"query": "\"quotes\" and \\ and \t tabs", "positive": "[CLS] [SEP] [MASK] [PAD]"}),
        json!({"query": ".", "positive": "?"}),
    ];
    let dataset = place.file("strange.jsonl", lines(pairs().take(20).chain(strange)));
    let out = place.argument("out");
    let common = ["compare", "--model", "demo-tiny", "--dataset", &dataset, "--eval-dataset", &dataset];
    succeed(&[common.as_slice(), &["--output-dir", &out, "--batch-size", "26", "--max-steps", "2"]].concat());
}
