//! The binary from outside: what it says, where, and with which exit code.

mod common;

use common::{Place, begin, fail, mendel, program, stderr, stdout, succeed};
use mendel::Settings;
use serde_json::Value;

#[track_caller]
fn wrong_usage(arguments: &[&str], parts: &[&str]) {
    fail(2, arguments, parts);
}

#[test]
fn the_help_lists_every_command() {
    let output = mendel(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for command in ["compare", "train", "eval", "embed", "data", "bench", "selftest", "info"] {
        assert!(stdout(&output).contains(&format!("\n  {command} ")), "{command}");
    }
}

/// The help with its line breaks undone.
fn help(command: &str) -> String {
    stdout(&mendel(&[command, "--help"])).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_help_of_a_flag_shows_the_default_of_its_setting() {
    let compare = help("compare");
    for default in ["bert-base-uncased", "0.00002", "standard,genetic", "info-nce", "artefacts"] {
        assert!(compare.contains(&format!("[default: {default}]")), "{default} is missing from: {compare}");
    }
    assert!(help("train").contains("[default: standard]"));
}

#[test]
fn the_help_of_preset_names_every_preset() {
    let presets = format!("A named set of settings: {}", mendel::presets::NAMES.join(" or "));
    assert!(help("compare").contains(&presets));
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(stdout(&mendel(&["--version"])), concat!("mendel ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn without_a_command_the_help_is_shown_as_wrong_usage() {
    let output = mendel(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Usage:"));
}

#[test]
fn an_unknown_flag_is_told_with_the_nearest() {
    wrong_usage(&["train", "--batchsize", "8"], &["--batchsize", "--batch-size"]);
}

#[test]
fn a_flag_that_is_called_otherwise_here_is_told_with_its_name_and_nothing_far_off_is_suggested() {
    for (arguments, meant) in [
        (["train", "--lr", "1"], "'--learning-rate'"),
        (["compare", "--steps", "9"], "'--max-steps'"),
        (["train", "--arms", "genetic"], "'--attention'"),
        (["compare", "--attention", "genetic"], "'--arms'"),
    ] {
        wrong_usage(&arguments, &[meant]);
    }
    for arguments in [["compare", "--colour", "red"], ["embed", "--arms", "genetic"], ["eval", "--lr", "1"]] {
        let output = mendel(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(!stderr(&output).contains("similar argument"), "{}", stderr(&output));
    }
}

#[test]
fn a_list_may_have_spaces_after_its_commas() {
    let output = mendel(&["compare", "--seeds", "1, 2", "--arms", "genetic, standard", "--print-config"]);
    assert!(stdout(&output).contains("seeds = [1, 2]"), "{}", stderr(&output));
    assert!(stdout(&output).contains("arms = [\"genetic\", \"standard\"]"), "{}", stdout(&output));
}

#[test]
fn what_is_no_number_is_told_with_what_it_must_be() {
    let whole = "it must be a whole number of 0 or more";
    wrong_usage(&["compare", "--seeds", "1-3"], &["'1-3'", "--seeds", whole]);
    wrong_usage(&["compare", "--max-steps", "1e3"], &["'1e3'", "--max-steps", whole]);
    wrong_usage(&["compare", "--threads", "-1"], &["'-1'", "--threads", whole]);
    wrong_usage(&["bench", "--pairs", "few"], &["'few'", "--pairs", whole]);
    wrong_usage(&["compare", "--learning-rate", "low"], &["'low'", "--learning-rate", "it must be a number"]);
}

#[test]
fn a_dry_run_has_no_result_to_print_as_json() {
    wrong_usage(&["train", "--dry-run", "--json"], &["--dry-run", "--json"]);
}

#[test]
fn an_unknown_command_is_told_with_the_nearest() {
    wrong_usage(&["compere"], &["compere", "compare"]);
}

#[test]
fn an_unknown_key_is_told_with_its_file_and_the_nearest() {
    let folder = Place::new();
    let file = folder.file("settings.toml", "batch_size = 8\n");
    wrong_usage(&["compare", "--config", &file], &["settings.toml", "'batch_size'", "'batch-size'"]);
}

#[test]
fn a_sweeps_file_is_told_with_the_command_that_it_is_for() {
    let folder = Place::new();
    let file = folder.file("sweep.toml", "preset = \"demo\"\n[grid]\nepochs = [1, 2]\n");
    wrong_usage(&["compare", "--config", &file], &["[grid]", &format!("mendel sweep --config {file}")]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_its_key() {
    let folder = Place::new();
    let file = folder.file("settings.toml", "mutation-rate = \"high\"\n");
    wrong_usage(&["compare", "--config", &file], &["mutation-rate", "\"high\"", "expected a number"]);
}

#[test]
fn a_settings_file_that_is_missing_is_told_by_name() {
    wrong_usage(&["train", "--config", "no-such.toml"], &["no-such.toml"]);
}

#[test]
fn an_unknown_preset_is_told_with_the_nearest_and_all() {
    wrong_usage(&["compare", "--preset", "dmeo"], &["'dmeo'", "nearest is 'demo'", "demo, msmarco"]);
}

#[test]
fn a_value_out_of_range_is_told_by_name() {
    wrong_usage(&["compare", "--mutation-rate", "2"], &["mutation-rate = 2", "between 0 and 1"]);
    wrong_usage(&["compare", "--mutation-rate", "nan"], &["mutation-rate = NaN"]);
    wrong_usage(&["train", "--learning-rate", "-1"], &["learning-rate = -1", "above 0"]);
    wrong_usage(&["train", "--num-generations", "-1"], &["--num-generations"]);
    wrong_usage(&["compare", "--threads", "999999999"], &["threads = 999999999"]);
    wrong_usage(&["bench", "--crossover-rate", "2"], &["crossover-rate = 2"]);
}

#[test]
fn a_name_that_is_no_choice_is_told_with_the_choices() {
    wrong_usage(&["compare", "--pooling", "men"], &["--pooling", "`mean`, `cls`, `max`"]);
    wrong_usage(&["compare", "--arms", "standard,genetics"], &["'genetics'", "standard+qk-norm"]);
}

#[test]
fn a_batch_of_one_pair_is_refused_with_both_ways_on() {
    wrong_usage(&["train", "--batch-size", "1"], &["nothing to contrast", "batch-size to 2", "hard-negatives to 1"]);
}

#[test]
fn a_causal_genetic_arm_is_told_to_use_the_fixed_point() {
    wrong_usage(&["compare", "--causal"], &["--num-generations 0"]);
}

#[test]
fn a_device_that_this_version_lacks_is_told_by_name() {
    wrong_usage(&["compare", "--device", "rocm"], &["device = rocm", "not available in this version"]);
}

#[test]
fn train_refuses_settings_of_two_arms() {
    let folder = Place::new();
    let file = folder.file("settings.toml", "arms = [\"standard\", \"genetic\"]\n");
    wrong_usage(&["train", "--config", &file], &["standard, genetic", "--attention"]);
    let chosen = mendel(&["train", "--config", &file, "--attention", "genetic", "--print-config"]);
    assert!(stdout(&chosen).contains("arms = [\"genetic\"]"));
}

#[test]
fn a_log_filter_that_cannot_be_read_is_told() {
    let output = program().args(["compare", "--print-config"]).env("MENDEL_LOG", "mendel=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("MENDEL_LOG=mendel=loud"), "{}", stderr(&output));
}

#[test]
fn the_printed_settings_are_those_in_force_and_read_back_as_they_are() {
    let folder = Place::new();
    let flags = [
        ["compare", "--preset", "demo"].as_slice(),
        &["--learning-rate", "3e-5", "--arms", "genetic,standard+qk-norm", "--seed", "9223372036854775807"],
        &["--query-prefix", "a \"query\": ", "--dropout", "0.1", "--evolution", "mean-field", "--print-config"],
    ]
    .concat();
    let first = mendel(&flags);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let settings: Settings = toml::from_str(stdout(&first)).unwrap();
    assert_eq!((settings.batch_size, settings.learning_rate), (64, 3e-5));
    let file = folder.file("settings.toml", stdout(&first));
    let second = mendel(&["compare", "--config", &file, "--print-config"]);
    assert_eq!(stdout(&second), stdout(&first));
}

#[test]
fn without_flags_the_settings_in_force_are_the_defaults() {
    let output = mendel(&["compare", "--print-config"]);
    assert_eq!(toml::from_str::<Settings>(stdout(&output)).unwrap(), Settings::default());
    let output = mendel(&["compare", "--preset", "msmarco", "--print-config"]);
    assert_eq!(toml::from_str::<Settings>(stdout(&output)).unwrap(), Settings::default());
}

#[test]
fn a_closed_pipe_ends_the_program_in_silence() {
    for arguments in [["compare", "--print-config"], ["compare", "--help"]] {
        let mut child = begin(&arguments);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn the_gradient_cache_takes_the_memory_of_its_pairs() {
    let peak = |pairs, more: &[&str]| {
        let bench = ["bench", "--shape", "demo-tiny", "--arms", "genetic", "--steps", "1", "--json", "--pairs", pairs];
        let measured: Value = serde_json::from_str(&succeed(&[bench.as_slice(), more].concat())).unwrap();
        measured["arms"][0]["peak_memory_gb"].as_f64().unwrap()
    };
    let [few, all, cached] = [peak("16", &[]), peak("256", &[]), peak("256", &["--loss-micro-batch", "16"])];
    assert!(all > 4.0 * few && cached < 1.5 * few, "16 pairs {few}, 256 pairs {all}, 256 by 16 {cached} GB");
}

#[test]
fn a_measured_step_tells_its_operations_and_takes_no_new_memory() {
    let common = ["bench", "--shape", "demo-tiny", "--pairs", "4", "--steps", "6", "--json"];
    for more in [["--precision", "f32"], ["--precision", "bf16"], ["--lengths", "20"], ["--loss-micro-batch", "2"]] {
        let measured: Value = serde_json::from_str(&succeed(&[common.as_slice(), &more].concat())).unwrap();
        let steps = |arm: usize| -> Vec<f64> {
            let all = measured["arms"][arm]["step_seconds"]["all"].as_array().unwrap();
            all.iter().map(|seconds| seconds.as_f64().unwrap()).collect()
        };
        let mut ratios: Vec<f64> = steps(1).iter().zip(steps(0)).map(|(own, first)| own / first).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = measured["arms"][1]["time_ratio"].as_f64().unwrap();
        assert!((ratio - (ratios[2] + ratios[3]) / 2.0).abs() < 1e-9 && measured["arms"][0]["time_ratio"] == 1.0);
        for arm in measured["arms"].as_array().unwrap() {
            let median = arm["step_seconds"]["median"].as_f64().unwrap();
            let operations = arm["operations"].as_object().unwrap();
            let sum: f64 = operations.values().map(|seconds| seconds.as_f64().unwrap()).sum();
            assert!(operations.contains_key("linear_backward") && sum > 0.0 && median > 0.0, "{arm}");
            assert!(arm["page_faults"].as_f64().unwrap() < 200.0, "{arm}");
        }
    }
    let limits: Value = serde_json::from_str(&succeed(&["bench", "--limits", "--json"])).unwrap();
    assert!(limits["matrix_peak"].as_f64().unwrap() > 1e9 && limits["memory_read"].as_f64().unwrap() > 1e8, "{limits}");
    wrong_usage(&["bench", "--lengths", "2"], &["'2' is neither msmarco nor a number of tokens from 3 to 512"]);
}
