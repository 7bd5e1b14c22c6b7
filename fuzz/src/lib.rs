//! What the fuzzer calls with any bytes, and the ordinary tests with the seeds: readers that must give a result or an
//! error, and never panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use mendel::bert::tensors_from_bytes;
use mendel::data::beir::Collection;
use mendel::data::sts::sentence_pairs;
use mendel::data::{DataError, LoadOptions, inspect, load, panic_becomes_error};
use mendel::engine::Device;
use mendel::progress::Silent;

/// A folder of this process, in memory where the system has such a place.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let folder = parent.join(format!("mendel-fuzz-{}", std::process::id()));
    fs::create_dir_all(folder.join("qrels")).expect("a folder for the fuzzer's files");
    let document = "{\"_id\": \"d1\", \"title\": \"t\", \"text\": \"x\"}\n{\"_id\": \"d2\", \"text\": \"y\"}\n";
    fs::write(folder.join("corpus.jsonl"), document).expect("a corpus");
    fs::write(folder.join("queries.jsonl"), "{\"_id\": \"q1\", \"text\": \"x\"}\n").expect("queries");
    folder
});

fn file(name: &str, bytes: &[u8]) -> String {
    let path = FOLDER.join(name);
    fs::write(&path, bytes).expect("the fuzzer's file");
    path.display().to_string()
}

/// Rows of pairs or of MS MARCO as lines, in columns, plain and gzip: whatever `load` takes them for.
pub fn pairs(name: &str, bytes: &[u8]) {
    let path = file(name, bytes);
    let loaded = load(&path, &LoadOptions { max_bad_rows: 1.0 }, &mut Silent);
    if let Ok(dataset) = &loaded {
        assert_eq!(dataset.report.usable as usize, dataset.pairs.len());
        assert!(dataset.pairs.iter().all(|pair| !pair.query.is_empty() && !pair.positive.is_empty()));
    }
    let inspected = inspect(&path, None, &mut Silent);
    // What is refused as a whole is refused by both, but for what only training refuses.
    let only_training = matches!(loaded, Err(DataError::NothingUsable { .. } | DataError::HiddenLabels { .. }));
    assert!(only_training || loaded.is_ok() == inspected.is_ok());
}

/// Parquet. Where the crate that reads it panics, which becomes an error, the fuzzer is not to be stopped.
pub fn parquet(bytes: &[u8]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let stop = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic_becomes_error() {
                stop(panic);
            }
        }));
    });
    pairs("rows.parquet", bytes);
}

/// Rows of pairs as TSV, and of sentence pairs as TSV or CSV.
pub fn tsv(bytes: &[u8]) {
    pairs("rows.tsv", bytes);
    let _ = sentence_pairs(Path::new(&file("sentences", bytes)));
}

/// Judgements of a collection.
pub fn qrels(bytes: &[u8]) {
    file("qrels/test.tsv", bytes);
    if let Ok(collection) = Collection::open(&FOLDER, "test", &mut Silent) {
        assert!(collection.queries.iter().all(|query| query.id == "q1" && !query.judged.is_empty()));
    }
}

/// Weights.
pub fn safetensors(bytes: &[u8]) {
    let _ = tensors_from_bytes("weights", bytes, &Device::cpu(), |_| true);
}
