//! What the tests share that run the program as a user does.
#![allow(dead_code, reason = "each file of tests is a crate of its own and uses a part of this")]

pub mod emulated_gpu;
pub mod hub_server;
pub mod ms_marco;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything takes that a test waits for, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where nobody answers.
pub const NOWHERE: &str = "http://127.0.0.1:9";

/// The program, told nothing by the environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mendel"));
    for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "MENDEL_LOG", "MENDEL_CUDA_LIBRARIES"] {
        command.env_remove(name);
    }
    // The numbers that are expected are the CPU's: a real GPU is hidden. The emulated one is seen nevertheless.
    command.env("CUDA_VISIBLE_DEVICES", "");
    // No Hub, but for the tests that bring their own; a cache of our own.
    command.env("HF_ENDPOINT", NOWHERE).env("HF_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-hub"));
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn mendel(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// Runs the program, which must succeed; what it printed on stdout.
#[track_caller]
pub fn succeed(arguments: &[&str]) -> String {
    let output = mendel(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output).to_owned()
}

/// Runs the program, which must end with this exit code, nothing on stdout, and one line on stderr that begins
/// `mendel: error:` and holds every part. `--quiet` leaves that line alone there.
#[track_caller]
pub fn fail(code: i32, arguments: &[&str], parts: &[&str]) {
    let output = mendel(&[arguments, &["--quiet"]].concat());
    assert_failed(&output, code, arguments, parts);
}

/// What [`fail`] says of a run of the program.
#[track_caller]
pub fn assert_failed(output: &Output, code: i32, arguments: &[&str], parts: &[&str]) {
    let told = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    assert_eq!(stdout(output), "", "{arguments:?}");
    assert_eq!(told.lines().count(), 1, "{arguments:?}: {told}");
    assert!(told.starts_with("mendel: error: "), "{arguments:?}: {told}");
    for part in parts.iter().chain(&[""]) {
        assert!(told.contains(part), "{arguments:?}: '{part}' is missing from: {told}");
    }
    for part in ["panicked", "backtrace", "RUST_"] {
        assert!(!told.contains(part), "{arguments:?}: {told}");
    }
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A folder that is removed with the test, and paths in it as arguments.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn argument(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file; its path as an argument.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).unwrap();
        self.argument(name)
    }

    /// The names of what lies in it, hidden or not.
    pub fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    /// A file of 64 pairs about buildings, 8 in each of 8 towns, each with one negative.
    pub fn pairs(&self) -> String {
        self.file("pairs.jsonl", lines(pairs()))
    }
}

/// The names of the measures, as the interface has them.
pub const MEASURES: [&str; 11] = [
    "mrr@10",
    "ndcg@10",
    "map@100",
    "recall@1",
    "recall@5",
    "recall@10",
    "recall@100",
    "recall@1000",
    "precision@1",
    "precision@5",
    "hit_rate@5",
];

/// Where the real data is, if not beside the repository.
const SHARED_DATA: &str = "MENDEL_SHARED_DATA";

/// A file or folder of the real data; says so where it is absent.
pub fn shared(name: &str) -> Option<String> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os(SHARED_DATA).map_or_else(beside, PathBuf::from).join(name);
    if !path.exists() {
        eprintln!("skipped: {} is absent; {SHARED_DATA} says where the real data is", path.display());
        return None;
    }
    Some(path.to_str()?.to_owned())
}

/// The folder of all-MiniLM-L6-v2; says so where it is not named.
pub fn minilm() -> Option<String> {
    let folder = std::env::var("MENDEL_TEST_MODEL").ok();
    if folder.is_none() {
        eprintln!("skipped: MENDEL_TEST_MODEL names no model folder (.ci/run fetches one)");
    }
    folder
}

/// The names of what lies in a folder, in order.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// 64 rows `{"query", "positive", "negatives"}`.
pub fn pairs() -> impl Iterator<Item = Value> {
    let towns = ["ash", "birch", "cedar", "elm", "fir", "oak", "pine", "yew"];
    let buildings = ["bridge", "clock", "mill", "tower", "garden", "school", "market", "harbour"];
    towns.into_iter().flat_map(move |town| buildings.into_iter().map(move |building| (town, building))).map(
        |(town, building)| {
            json!({
                "query": format!("who built the {building} of {town}"),
                "positive": format!("The {building} of {town} was built by a guild of masons."),
                "negatives": [format!("The {building} of {town} is old.")],
            })
        },
    )
}

/// A line for each row.
pub fn lines(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| format!("{row}\n")).collect()
}

/// A file of JSON.
#[track_caller]
pub fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of JSON lines.
#[track_caller]
pub fn read_rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A file of tensors: by name the shape and the bytes.
pub fn read_tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), view.data().to_vec()))).collect()
}

/// The numbers of a tensor's bytes.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends a process at once, as a power cut would.
pub fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Presses Ctrl-C.
#[cfg(unix)]
#[track_caller]
pub fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// A run of the program in the background, its stdout and stderr kept.
pub fn begin(arguments: &[&str]) -> Child {
    program().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What is left of a value without the times in it, which no two runs share.
pub fn without_times(mut value: Value) -> Value {
    const TIMES: [&str; 8] = [
        "seconds",
        "pairs_per_second",
        "total_time",
        "epoch_times",
        "eval_time",
        "throughput",
        "peak_memory_gb",
        "config",
    ];
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !TIMES.contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = without_times(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

/// Two output folders hold the same run of an arm, bit for bit but for times: model, optimizer, embeddings, history and
/// results.
#[track_caller]
pub fn assert_same_run(first: &Path, second: &Path, arm: &str) {
    let name = format!("{arm}-seed42");
    let both = |file: String| [first.join(&file), second.join(&file)];
    let newest = names(&first.join("checkpoints").join(&name)).pop().unwrap();
    for file in [
        format!("models/{name}/model.safetensors"),
        format!("embeddings/{name}.safetensors"),
        format!("checkpoints/{name}/{newest}/optimizer.safetensors"),
    ] {
        let [a, b] = both(file).map(|path| (fs::read(&path).unwrap(), path));
        assert!(a.0 == b.0, "{} and {} differ", a.1.display(), b.1.display());
    }
    let [a, b] = both(format!("history/{name}.jsonl")).map(|path| read_rows(&path).into_iter().map(without_times));
    assert_eq!(a.collect::<Vec<_>>(), b.collect::<Vec<_>>(), "{arm}");
    let [a, b] = both(format!("{arm}_attention_results.json")).map(|path| without_times(read_json(&path)));
    assert_eq!(a, b, "{arm}");
}
