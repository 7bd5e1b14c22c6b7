//! A run that was stopped, in whatever way, goes on to the bits of one that was not.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use common::{
    Place, assert_same_run, begin, fail, kill, lines, mendel, names, pairs, program, stderr, succeed, wait_until,
};

/// A small dataset and a run of 20 steps on it, 2 to an epoch, that logs every step and saves every fifth.
struct Runs {
    place: Place,
    dataset: String,
}

impl Runs {
    fn new() -> Runs {
        let place = Place::new();
        // Held-out pairs of their own, so that the number of steps does not hang on which are drawn.
        let dataset = place.file("train.jsonl", lines(pairs().skip(8)));
        place.file("dev.jsonl", lines(pairs().take(8)));
        Runs { place, dataset }
    }

    /// The command line of the run into the folder `out`; `more` flags cover those of the run.
    fn line(&self, command: &str, out: &str, more: &[&str]) -> Vec<String> {
        let (dev, out) = (self.place.argument("dev.jsonl"), self.place.argument(out));
        let settings = [
            ["--model", "demo-tiny"],
            ["--dataset", &self.dataset],
            ["--eval-dataset", &dev],
            ["--output-dir", &out],
            ["--batch-size", "28"],
            ["--epochs", "10"],
            ["--warmup-steps", "5"],
            ["--learning-rate", "1e-3"],
            ["--log-steps", "1"],
            ["--eval-steps", "7"],
            ["--save-steps", "5"],
        ];
        let of_the_run = settings.iter().filter(|[flag, _]| !more.contains(flag)).flatten();
        [command].iter().chain(of_the_run).chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// The whole of the run.
    fn straight(&self, command: &str, out: &str, more: &[&str]) {
        succeed(&words(&self.line(command, out, more)));
    }

    /// The run, killed when the checkpoint of a step is there.
    fn killed_at(&self, step: u64, arm: &str, command: &str, out: &str, more: &[&str]) {
        let checkpoint = self.checkpoints(out, arm).join(format!("step-{step:06}"));
        // A machine so busy that the run ends before it is killed gets another chance.
        for _ in 0..10 {
            let mut child = begin(&words(&self.line(command, out, more)));
            wait_until("a checkpoint", || checkpoint.exists() || child.try_wait().unwrap().is_some());
            kill(&mut child);
            assert!(checkpoint.exists(), "the run ended without saving {}", checkpoint.display());
            if !self.place.path(out).join(format!("{arm}_attention_results.json")).exists() {
                return;
            }
            fs::remove_dir_all(self.place.path(out)).unwrap();
        }
        panic!("the run was never killed in time");
    }

    /// Goes on to the end; what was told on the way.
    fn resume(&self, command: &str, out: &str, more: &[&str]) -> String {
        let output = mendel(&words(&self.line(command, out, &[more, &["--resume"]].concat())));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output).to_owned()
    }

    fn checkpoints(&self, out: &str, arm: &str) -> PathBuf {
        self.place.path(out).join(format!("checkpoints/{arm}-seed42"))
    }

    /// The names of the checkpoints, the newest last. A kill may leave what is none.
    fn steps(&self, out: &str, arm: &str) -> Vec<String> {
        names(&self.checkpoints(out, arm)).into_iter().filter(|name| name.starts_with("step-")).collect()
    }

    #[track_caller]
    fn assert_same(&self, first: &str, second: &str, arm: &str) {
        assert_same_run(&self.place.path(first), &self.place.path(second), arm);
    }
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

const GENETIC: [&str; 2] = ["--attention", "genetic"];

#[test]
fn a_run_that_was_killed_and_resumed_ends_in_the_bits_of_one_that_was_not() {
    let runs = Runs::new();
    runs.straight("train", "straight", &GENETIC);
    runs.killed_at(10, "genetic", "train", "killed", &GENETIC);
    let told = runs.resume("train", "killed", &GENETIC);
    assert!(told.contains("genetic goes on from") && !told.contains("step 5/20"), "{told}");
    runs.assert_same("straight", "killed", "genetic");
}

#[test]
fn a_comparison_killed_in_its_second_arm_keeps_the_first() {
    let runs = Runs::new();
    runs.straight("compare", "straight", &[]);
    runs.killed_at(10, "genetic", "compare", "killed", &[]);
    let told = runs.resume("compare", "killed", &[]);
    assert!(!told.contains("standard goes on from") && !told.contains("standard step 20/20"), "{told}");
    for arm in ["standard", "genetic"] {
        runs.assert_same("straight", "killed", arm);
    }
    let comparisons = ["straight", "killed"]
        .map(|out| without_times(common::read_json(&runs.place.path(out).join("comparison.json"))));
    assert_eq!(comparisons[0], comparisons[1]);
}

/// A comparison but for its times and memory.
fn without_times(mut comparison: Value) -> Value {
    for difference in comparison["differences"].as_array_mut().unwrap() {
        difference.as_object_mut().unwrap().remove("cost_ratios");
    }
    comparison.as_object_mut().unwrap().remove("step_costs");
    comparison
}

#[test]
fn a_comparison_of_several_seeds_killed_at_any_moments_ends_in_the_same_comparison() {
    let runs = Runs::new();
    let seeds = ["--seeds", "1,2", "--arms", "standard,genetic,genetic+qk-norm", "--save-steps", "1"];
    runs.straight("compare", "straight", &seeds);
    let resumed = [seeds.as_slice(), &["--resume"]].concat();
    for milliseconds in [900, 1700, 1200, 2100, 1500] {
        let mut child = begin(&words(&runs.line("compare", "killed", &resumed)));
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(&mut child);
    }
    runs.resume("compare", "killed", &seeds);
    let [straight, killed] = ["straight", "killed"]
        .map(|out| without_times(common::read_json(&runs.place.path(out).join("comparison.json"))));
    assert_eq!(straight, killed);
    assert_eq!(straight["differences"].as_array().unwrap().len(), 3);
    for seed in [1, 2] {
        for arm in ["standard", "genetic", "genetic+qk-norm"] {
            let history = |out: &str| {
                let rows = common::read_rows(&runs.place.path(out).join(format!("history/{arm}-seed{seed}.jsonl")));
                rows.into_iter().map(without_speed).collect::<Vec<_>>()
            };
            assert_eq!(history("straight"), history("killed"), "{arm}, seed {seed}");
        }
    }
}

fn without_speed(mut row: Value) -> Value {
    let fields = row.as_object_mut().unwrap();
    fields.remove("seconds");
    fields.remove("pairs_per_second");
    row
}

#[test]
fn a_run_killed_at_any_moments_ends_in_the_same_bits() {
    let runs = Runs::new();
    runs.straight("train", "straight", &GENETIC);
    let frequent = [GENETIC.as_slice(), &["--save-steps", "1", "--keep-checkpoints", "2"]].concat();
    let resumed = [frequent.as_slice(), &["--resume"]].concat();
    for milliseconds in [30, 410, 620, 335, 780, 555] {
        let mut child = begin(&words(&runs.line("train", "killed", &resumed)));
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(&mut child);
    }
    let told = runs.resume("train", "killed", &frequent);
    assert!(!told.contains("damaged"), "{told}");
    runs.assert_same("straight", "killed", "genetic");
    let checkpoints = names(&runs.checkpoints("killed", "genetic"));
    assert_eq!(checkpoints, ["step-000019", "step-000020"], "what a kill left is cleared away");
}

#[cfg(unix)]
#[test]
fn after_ctrl_c_the_command_that_is_told_goes_on_to_the_same_bits() {
    let runs = Runs::new();
    runs.straight("train", "straight", &GENETIC);
    // A name that the command which is told has to quote.
    let out = "it's interrupted";
    let command = loop {
        let child = begin(&words(&runs.line("train", out, &GENETIC)));
        let history = runs.place.path(out).join("history/genetic-seed42.jsonl");
        wait_until("a logged step", || fs::read_to_string(&history).is_ok_and(|rows| rows.lines().count() >= 3));
        common::interrupt(&child);
        let output = child.wait_with_output().unwrap();
        if output.status.code() == Some(0) {
            fs::remove_dir_all(runs.place.path(out)).unwrap();
            continue;
        }
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(common::stdout(&output), "");
        let last = stderr(&output).lines().last().unwrap().to_owned();
        let (told, command) = last.split_once("this goes on from it: ").unwrap();
        assert_eq!(told, "mendel: interrupted, the state is saved; ");
        break command.to_owned();
    };
    assert!(!runs.place.path(out).join("models").exists());
    let resumed = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{command}: {}", stderr(&resumed));
    // The step at which it stopped has a checkpoint that the straight run does not have, and nothing else differs.
    runs.assert_same("straight", out, "genetic");
}

#[cfg(unix)]
#[test]
fn ctrl_c_while_a_model_is_evaluated_that_has_nothing_to_save_ends_at_once() {
    let runs = Runs::new();
    runs.straight("train", "trained", &["--max-steps", "1"]);
    let model = runs.place.argument("trained/models/standard-seed42");
    let many: String = "a sentence that is embedded again and again\n".repeat(100_000);
    let texts = runs.place.file("texts.txt", many);
    let output = runs.place.argument("vectors.npy");
    let child = begin(&["embed", &texts, "--model", &model, "--output", &output]);
    std::thread::sleep(Duration::from_millis(300));
    common::interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert!(!runs.place.path("vectors.npy").exists());
}

/// Changes one byte in the middle of a file.
fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over_for_the_one_before() {
    let runs = Runs::new();
    runs.straight("train", "straight", &GENETIC);
    for file in ["optimizer.safetensors", "state.json"] {
        runs.killed_at(10, "genetic", "train", "killed", &GENETIC);
        let checkpoints = runs.checkpoints("killed", "genetic");
        let steps = runs.steps("killed", "genetic");
        let [.., before, newest] = steps.as_slice() else { panic!("{steps:?}") };
        let newest = checkpoints.join(newest);
        damage(&newest.join(file));
        let newest = newest.display().to_string();
        fail(1, &words(&runs.line("train", "killed", &["--attention", "genetic", "--resume", &newest])), &[&newest]);
        let told = runs.resume("train", "killed", &GENETIC);
        let warning = told.lines().find(|line| line.starts_with("mendel: warning: ")).unwrap();
        assert!(warning.contains(&newest) && warning.contains(file), "{warning}");
        assert!(told.contains(&format!("goes on from {}", checkpoints.join(before).display())), "{told}");
        runs.assert_same("straight", "killed", "genetic");
        fs::remove_dir_all(runs.place.path("killed")).unwrap();
    }
}

#[test]
fn with_no_undamaged_checkpoint_the_run_begins_anew() {
    let runs = Runs::new();
    runs.straight("train", "straight", &[]);
    runs.killed_at(5, "standard", "train", "killed", &[]);
    let checkpoints = runs.checkpoints("killed", "standard");
    for name in runs.steps("killed", "standard") {
        fs::remove_file(checkpoints.join(name).join("manifest.json")).unwrap();
    }
    let told = runs.resume("train", "killed", &[]);
    assert!(told.contains("no manifest.json") && told.contains("no checkpoint to resume from"), "{told}");
    runs.assert_same("straight", "killed", "standard");
}

#[test]
fn a_run_goes_on_from_an_older_checkpoint_that_is_named() {
    let runs = Runs::new();
    runs.straight("compare", "straight", &[]);
    runs.straight("compare", "again", &[]);
    let older = runs.checkpoints("again", "genetic").join("step-000010").display().to_string();
    let output = mendel(&words(&runs.line("compare", "again", &["--resume", &older])));
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains(&format!("genetic goes on from {older}")), "{told}");
    assert!(told.contains("genetic step 11/20") && !told.contains("standard step 20/20"), "{told}");
    for arm in ["standard", "genetic"] {
        runs.assert_same("straight", "again", arm);
    }
}

#[test]
fn a_finished_run_that_is_resumed_writes_the_same_artefacts_again() {
    let runs = Runs::new();
    runs.straight("train", "straight", &[]);
    runs.straight("train", "again", &[]);
    fs::remove_dir_all(runs.place.path("again/models")).unwrap();
    runs.resume("train", "again", &[]);
    runs.assert_same("straight", "again", "standard");
}

#[test]
fn a_finished_comparison_that_is_resumed_keeps_the_costs_that_it_measured() {
    let runs = Runs::new();
    runs.straight("compare", "straight", &[]);
    let comparison = runs.place.path("straight/comparison.json");
    let before = fs::read(&comparison).unwrap();
    runs.resume("compare", "straight", &[]);
    assert_eq!(fs::read(&comparison).unwrap(), before);
}

#[test]
fn a_run_is_resumed_by_its_output_folder_alone() {
    let runs = Runs::new();
    runs.straight("train", "straight", &GENETIC);
    runs.killed_at(10, "genetic", "train", "killed", &GENETIC);
    common::succeed(&["train", "--resume", "--output-dir", &runs.place.argument("killed")]);
    runs.assert_same("straight", "killed", "genetic");
}

#[test]
fn the_number_of_threads_changes_no_bit_and_may_differ_on_resume() {
    let runs = Runs::new();
    runs.straight("train", "one", &[GENETIC.as_slice(), &["--threads", "1"]].concat());
    runs.straight("train", "three", &[GENETIC.as_slice(), &["--threads", "3"]].concat());
    runs.assert_same("one", "three", "genetic");
    runs.killed_at(10, "genetic", "train", "mixed", &[GENETIC.as_slice(), &["--threads", "2"]].concat());
    runs.resume("train", "mixed", &[GENETIC.as_slice(), &["--threads", "1"]].concat());
    runs.assert_same("one", "mixed", "genetic");
}

#[test]
fn in_bf16_too_the_number_of_threads_changes_no_bit_and_a_killed_run_ends_the_same() {
    let runs = Runs::new();
    let bf16 = |threads| [GENETIC.as_slice(), &["--precision", "bf16", "--threads", threads]].concat();
    runs.straight("train", "one", &bf16("1"));
    runs.straight("train", "three", &bf16("3"));
    runs.assert_same("one", "three", "genetic");
    runs.killed_at(10, "genetic", "train", "mixed", &bf16("2"));
    runs.resume("train", "mixed", &bf16("1"));
    runs.assert_same("one", "mixed", "genetic");
}

#[test]
fn with_the_gradient_cache_too_the_number_of_threads_changes_no_bit_and_a_killed_run_ends_the_same() {
    let runs = Runs::new();
    let cached = |threads| [GENETIC.as_slice(), &["--loss-micro-batch", "5", "--threads", threads]].concat();
    runs.straight("train", "one", &cached("1"));
    runs.killed_at(10, "genetic", "train", "killed", &cached("2"));
    runs.resume("train", "killed", &cached("3"));
    runs.assert_same("one", "killed", "genetic");
}

#[test]
fn beginning_anew_in_the_place_of_an_earlier_run_says_that_its_checkpoints_go() {
    let runs = Runs::new();
    runs.straight("train", "out", &[]);
    let output = program().args(runs.line("train", "out", &["--keep-checkpoints", "1"])).output().unwrap();
    assert!(stderr(&output).contains("mendel: warning: 3 checkpoints of an earlier run"), "{}", stderr(&output));
    assert_eq!(names(&runs.checkpoints("out", "standard")).len(), 1);
}
