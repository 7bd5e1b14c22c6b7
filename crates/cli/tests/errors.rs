//! What goes wrong is told on one line, with the right exit code, and leaves nothing behind.

mod common;

use std::fs;
use std::path::Path;

use common::{Place, fail, lines, mendel, names, pairs, read_json, stderr, succeed};
use serde_json::{Value, json};

/// `mendel train` of the built-in model on a small dataset, into `out`, fails and leaves the place as it was.
#[track_caller]
fn train_fails(place: &Place, code: i32, arguments: &[&str], parts: &[&str]) {
    let before = place.names();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let common = ["train", "--output-dir", &out, "--max-steps", "2"];
    let or_else = |flag: &'static str, value: &'static str| {
        if arguments.contains(&flag) { vec![] } else { vec![flag, value] }
    };
    let model = or_else("--model", "demo-tiny");
    let data = if arguments.contains(&"--dataset") { vec![] } else { vec!["--dataset", dataset.as_str()] };
    fail(code, &[common.as_slice(), &model, &data, arguments].concat(), parts);
    let after: Vec<String> = place.names().into_iter().filter(|name| name != "pairs.jsonl").collect();
    assert_eq!(after, before.into_iter().filter(|name| name != "pairs.jsonl").collect::<Vec<_>>(), "{arguments:?}");
}

/// A trained model's folder, in which a test may break things.
fn trained_model(place: &Place) -> String {
    let (dataset, out) = (place.pairs(), place.argument("first"));
    succeed(&["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "1", "--output-dir", &out]);
    place.argument("first/models/standard-seed42")
}

#[test]
fn a_folder_that_is_not_a_model_is_told_with_what_it_lacks() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    let empty = place.argument("empty");
    train_fails(&place, 1, &["--model", &empty], &[&empty, "is not a model", "config.json"]);
    fail(1, &["eval", &empty, "--dataset", "demo"], &["is not a model"]);
}

#[test]
fn a_folder_with_models_below_it_is_told_with_one_of_them() {
    let place = Place::new();
    let model = trained_model(&place);
    for folder in [place.argument("first"), place.argument("first/models")] {
        let line = ["embed", "-", "--model", &folder, "--output", "vectors.npy"];
        fail(1, &line, &["is not a model", &format!("did you mean {model}?")]);
    }
}

#[test]
fn a_model_name_that_is_no_folder_is_told_with_what_to_do() {
    train_fails(&Place::new(), 1, &["--model", "./no/such"], &["'./no/such'", "OWNER/NAME", "--preset demo"]);
    fail(1, &["eval", "./no/such", "--dataset", "demo"], &["'./no/such'"]);
}

#[test]
fn a_damaged_model_is_told_by_its_file() {
    let place = Place::new();
    let model = trained_model(&place);
    let weights = Path::new(&model).join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    train_fails(&place, 1, &["--model", &model], &["model.safetensors", "not a safetensors file"]);
    fail(1, &["eval", &model, "--dataset", "demo"], &["model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    train_fails(&place, 1, &["--model", &model], &["is not a model", "model.safetensors"]);
}

#[test]
fn a_damaged_word_on_how_texts_are_encoded_is_told_by_its_file() {
    let place = Place::new();
    let model = trained_model(&place);
    fs::write(Path::new(&model).join("dual_encoder.json"), "{\"pooling\": \"men\"}").unwrap();
    fail(1, &["eval", &model, "--dataset", "demo"], &["dual_encoder.json", "men"]);
}

#[test]
fn damaged_configurations_and_tokenizers_are_told_by_their_file() {
    let place = Place::new();
    let model = trained_model(&place);
    let broken = |name: &str, text: &str, parts: &[&str]| {
        let path = Path::new(&model).join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        train_fails(&place, 1, &["--model", &model], parts);
        fs::write(&path, bytes).unwrap();
    };
    broken("config.json", "{", &["config.json"]);
    broken("config.json", r#"{"hidden_size": "wide"}"#, &["config.json", "wide"]);
    broken("config.json", r#"{"model_type": "gpt2"}"#, &["model_type", "gpt2"]);
    broken("config.json", r#"{"hidden_size": 0, "num_attention_heads": 0}"#, &["n_heads is 0"]);
    broken("tokenizer.json", "{}", &["tokenizer.json"]);
}

#[test]
fn a_tensor_of_another_shape_is_told_with_both() {
    let place = Place::new();
    let model = trained_model(&place);
    let config = Path::new(&model).join("config.json");
    let mut value = read_json(&config);
    value["intermediate_size"] = json!(256);
    fs::write(&config, value.to_string()).unwrap();
    train_fails(&place, 1, &["--model", &model], &["intermediate", "[512", "[256"]);
}

#[test]
fn an_empty_dataset_is_told() {
    let place = Place::new();
    let empty = place.file("empty.jsonl", "");
    train_fails(&place, 1, &["--dataset", &empty], &["empty.jsonl", "no rows"]);
    let blank = place.file("blank.jsonl", "\n \n\n");
    train_fails(&place, 1, &["--dataset", &blank], &["blank.jsonl", "no rows"]);
    fs::create_dir(place.path("folder")).unwrap();
    train_fails(&place, 1, &["--dataset", &place.argument("folder")], &["folder", "no files"]);
    fail(1, &["data", "inspect", &place.argument("folder")], &["folder"]);
}

#[test]
fn rows_that_are_no_pairs_are_told_with_what_was_found() {
    let place = Place::new();
    let other = place.file("other.jsonl", "{\"question\": \"who\", \"answer\": \"me\"}\n");
    train_fails(&place, 1, &["--dataset", &other], &["other.jsonl", "question, answer"]);
    let prose = place.file("prose.txt", "It was a dark and stormy night.\n");
    train_fails(&place, 1, &["--dataset", &prose], &["prose.txt", "neither a JSON object nor two columns"]);
    let binary = place.file("binary", [0u8, 159, 146, 150, 255, 10]);
    train_fails(&place, 1, &["--dataset", &binary], &["binary", "UTF-8"]);
}

#[test]
fn too_many_wrong_rows_are_told_with_the_first() {
    let place = Place::new();
    let half = place.file("half.jsonl", lines(pairs()) + "{\"query\": 1, \"positive\": \"x\"}\n{\"query\": \"x\"\n");
    train_fails(&place, 1, &["--dataset", &half], &["2 of 66 rows", "half.jsonl:65", "--max-bad-rows"]);
    let wrong = place.file("wrong.jsonl", "{\"query\": 1, \"positive\": 2}\n".repeat(20));
    train_fails(&place, 1, &["--dataset", &wrong], &["20 of 20 rows", "wrong.jsonl:1"]);
    train_fails(&place, 1, &["--dataset", &wrong, "--max-bad-rows", "1"], &["no usable pair"]);
}

#[test]
fn a_gzip_file_that_ends_too_soon_is_told() {
    use std::io::Write;
    let place = Place::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(lines(pairs()).as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    let cut = place.file("cut.jsonl.gz", &bytes[..bytes.len() - 20]);
    train_fails(&place, 1, &["--dataset", &cut], &["cut.jsonl.gz", "ends too soon"]);
}

#[test]
fn the_default_dataset_is_told_to_need_the_hub() {
    let parts = ["cannot reach", "microsoft/ms_marco", "--preset demo"];
    train_fails(&Place::new(), 1, &["--dataset", "msmarco-v2.1"], &parts);
    fail(1, &["compare", "--model", "demo-tiny"], &parts);
    fail(1, &["data", "inspect", "no-such-file.jsonl"], &["'no-such-file.jsonl'"]);
}

#[test]
fn data_that_do_not_fill_a_batch_or_leave_nothing_to_evaluate_are_told() {
    let place = Place::new();
    let few = place.file("few.jsonl", lines(pairs().take(4)));
    train_fails(&place, 1, &["--dataset", &few], &["2 training pairs", "--batch-size of at most 2"]);
    let row = json!({"query": "q", "positive": "a passage"});
    let one_query = place.file("one.jsonl", lines(std::iter::repeat_n(row, 20)));
    train_fails(&place, 1, &["--dataset", &one_query], &["held-out", "--eval-dataset"]);
}

#[test]
fn a_batch_of_one_pair_needs_hard_negatives() {
    let place = Place::new();
    train_fails(&place, 2, &["--batch-size", "1"], &["nothing to contrast"]);
    let plain = place.file("plain.tsv", "what is a\tThis is a.\nwhat is b\tThis is b.\nwhat is c\tThis is c.\n");
    let arguments = ["--dataset", &plain, "--batch-size", "1", "--hard-negatives", "1"];
    train_fails(&place, 1, &arguments, &["nothing to contrast", "plain.tsv"]);
}

#[test]
fn pairs_that_are_all_alike_leave_nothing_to_contrast() {
    let place = Place::new();
    let row = |query: &str| json!({"query": query, "positive": "The same passage answers every question."});
    let alike = place.file("alike.jsonl", lines((0..40).map(|i| row(&format!("question {i}")))));
    train_fails(&place, 1, &["--dataset", &alike], &["no gradient reaches", "texts of the first batch are equal"]);
}

#[test]
fn settings_that_are_not_possible_are_wrong_usage() {
    let place = Place::new();
    for (arguments, part) in [
        (["--mutation-rate", "2"].as_slice(), "mutation-rate = 2"),
        (&["--device", "rocm"], "device = rocm"),
        (&["--device", "cuda:x"], "device = cuda:x"),
        (&["--precision", "f16"], "precision = f16"),
        (&["--qk-norm=maybe"], "maybe"),
        (&["--n-kv-heads", "0"], "n-kv-heads = 0"),
        (&["--in-proj-dim", "0"], "in-proj-dim = 0"),
        (&["--attention", "genetic", "--causal"], "--num-generations 0"),
        (&["--attention", "genetics"], "genetics"),
        (&["--max-seq-len", "2"], "max-seq-len = 2"),
        (&["--learning-rate", "inf"], "learning-rate = inf"),
        (&["--temperature", "0"], "temperature = 0"),
        (&["--dropout", "1"], "dropout = 1"),
        (&["--output-dir", ""], "output-dir"),
        (&["--dry-run", "--resume"], "--resume"),
    ] {
        train_fails(&place, 2, arguments, &[part]);
    }
    fail(2, &["compare", "--preset", "demo", "--arms", "standard,standard+qk-norm", "--qk-norm"], &["same attention"]);
}

#[test]
fn heads_that_do_not_divide_are_told_with_both_numbers() {
    train_fails(&Place::new(), 2, &["--n-kv-heads", "3"], &["n-kv-heads = 3", "query heads, 4"]);
    train_fails(&Place::new(), 2, &["--n-heads", "3"], &["n-heads = 3", "the model's width 128"]);
}

#[test]
fn what_stands_in_the_way_of_a_later_arm_is_told_before_the_first_is_trained() {
    let place = Place::new();
    let model = trained_model(&place);
    // A genetic part of its own, which a standard arm takes off and the other arms change.
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let arms = ["--arms", "standard,genetic", "--n-kv-heads", "2"];
    let common = ["compare", "--model", &model, "--dataset", &dataset, "--output-dir", &out];
    fail(1, &[common.as_slice(), &arms].concat(), &["key", "[128, 128]", "[64, 128]"]);
    assert!(!place.path("out").exists());
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_and_nothing_is_started() {
    let place = Place::new();
    let config = place.file("run.toml", "lerning-rate = 0.1\n");
    train_fails(&place, 2, &["--config", &config], &["'lerning-rate'", "'learning-rate'"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_told_before_the_work_begins() {
    let place = Place::new();
    let file = place.file("file", "in the way");
    let dataset = place.pairs();
    for out in [file.clone(), format!("{file}/below"), format!("{file}/far/below")] {
        let arguments = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out];
        fail(1, &arguments, &[&out, "choose another output folder"]);
    }
    assert_eq!(place.names(), ["file", "pairs.jsonl"]);
    fail(1, &["data", "demo", &format!("{file}/below")], &["file/below"]);
}

/// Permissions do not bind root, for whom this test shows nothing.
#[cfg(unix)]
#[test]
fn a_read_only_output_folder_is_told_before_the_work_begins() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let folder = place.path("read-only");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::create_dir(folder.join("probe")).is_ok() {
        eprintln!("skipped: permissions do not bind this user");
        return;
    }
    let (dataset, out) = (place.pairs(), place.argument("read-only"));
    let arguments = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out];
    fail(1, &arguments, &[&out, "choose another output folder"]);
    assert!(names(&folder).is_empty());
}

#[test]
fn a_checkpoint_that_is_not_there_is_told_and_nothing_begins_anew() {
    let place = Place::new();
    trained_model(&place);
    let checkpoints = place.path("first/checkpoints/standard-seed42");
    let (dataset, out) = (place.pairs(), place.argument("first"));
    let resume = |path: &str, parts: &[&str]| {
        let settings = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "1"];
        fail(1, &[settings.as_slice(), &["--output-dir", &out, "--resume", path]].concat(), parts);
        assert_eq!(names(&checkpoints), ["step-000001"]);
    };
    resume("no/such/step-000005", &["no/such/step-000005"]);
    let missing = checkpoints.join("step-000009").display().to_string();
    resume(&missing, &[&missing]);
    for other in [checkpoints.to_str().unwrap(), &out] {
        resume(other, &[other, "no checkpoint", "step-NNNNNN", "or none to take the newest"]);
    }
}

#[test]
fn a_checkpoint_that_was_moved_is_still_the_one_that_is_resumed_from() {
    let place = Place::new();
    trained_model(&place);
    fs::rename(place.path("first/checkpoints/standard-seed42/step-000001"), place.path("kept")).unwrap();
    let (dataset, out, kept) = (place.pairs(), place.argument("first"), place.argument("kept"));
    let settings = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "1"];
    let output = mendel(&[settings.as_slice(), &["--output-dir", &out, "--resume", &kept]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("standard goes on from {kept}")), "{}", stderr(&output));
    let genetic = ["--attention", "genetic", "--output-dir", &out, "--resume", &kept];
    fail(1, &[settings.as_slice(), &genetic].concat(), &["\"standard\"", "\"genetic\""]);
}

#[test]
fn a_run_is_not_resumed_with_other_settings_or_other_data() {
    let place = Place::new();
    trained_model(&place);
    let config = fs::read(place.path("first/config.toml")).unwrap();
    let (dataset, out) = (place.pairs(), place.argument("first"));
    let settings = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--output-dir", &out, "--resume"];
    let resume = |arguments: &[&str], parts: &[&str]| {
        fail(1, &[settings.as_slice(), arguments].concat(), parts);
        assert_eq!(fs::read(place.path("first/config.toml")).unwrap(), config, "{arguments:?}");
    };
    let differences = [
        "of other settings",
        "resume with what it was, or begin anew in another --output-dir",
        "learning-rate was 0.00002 and is 0.5",
        "max-steps was 1 and is 3",
    ];
    resume(&["--max-steps", "3", "--learning-rate", "0.5"], &differences);
    // The gradient cache rounds differently, so that going on with it would end in other bits.
    let cached = ["--max-steps", "1", "--loss-micro-batch", "2"];
    resume(&cached, &["of other settings", "loss-micro-batch was 0 and is 2"]);
    let changed = |row: usize, field: &str| {
        let mut rows: Vec<Value> = pairs().collect();
        rows[row][field] = json!("Something else.");
        place.file("pairs.jsonl", lines(rows.into_iter()));
    };
    // The first pair is held out, the second trained on.
    for row in [0, 1] {
        changed(row, "positive");
        resume(&["--max-steps", "1"], &["of other data", "SHA-256"]);
    }
}

#[test]
fn resuming_where_nothing_was_saved_says_so_and_begins() {
    let place = Place::new();
    let (dataset, out) = (place.pairs(), place.argument("out"));
    let arguments = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "1", "--quiet"];
    let output = mendel(&[arguments.as_slice(), &["--output-dir", &out, "--resume"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("mendel: warning: no checkpoint to resume from"), "{}", stderr(&output));
}

#[test]
fn texts_that_cannot_be_embedded_are_told_and_no_file_is_written() {
    let place = Place::new();
    let model = trained_model(&place);
    let output = place.argument("vectors.npy");
    let embed = |texts: &str, parts: &[&str]| {
        fail(1, &["embed", texts, "--model", &model, "--output", &output], parts);
        assert!(!place.path("vectors.npy").exists());
    };
    embed("no-such-file.txt", &["no-such-file.txt"]);
    embed(&place.file("bad.jsonl", "{\"text\": \"x\"}\n{\"txt\": 1}\n"), &["bad.jsonl", "line 2"]);
    embed(&place.file("bad.txt", b"fine\n\xff\n"), &["bad.txt", "line 2"]);
    embed(&place.argument("first"), &["first"]);
    fail(2, &["embed", "-", "--model", &model, "--output", "vectors.csv"], &["vectors.csv", ".npy"]);
}

#[test]
fn embedding_tells_what_was_written_and_warns_where_there_is_no_text() {
    let place = Place::new();
    let (model, output) = (trained_model(&place), place.argument("vectors.npy"));
    for (texts, told) in [
        ("", "mendel: warning: "),
        ("", "texts.txt holds no text"),
        ("", "0 vectors of 128 numbers in "),
        ("one\n", "1 vector of 128 numbers in "),
    ] {
        let run = mendel(&["embed", &place.file("texts.txt", texts), "--model", &model, "--output", &output]);
        assert_eq!(run.status.code(), Some(0));
        assert!(stderr(&run).contains(told), "{}", stderr(&run));
    }
}

#[test]
fn a_result_that_cannot_be_printed_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return eprintln!("skipped: there is no /dev/full here") };
    let output = common::program().args(["compare", "--print-config"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}
