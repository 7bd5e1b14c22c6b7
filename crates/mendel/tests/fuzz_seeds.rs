//! The fuzzer's seeds, and what it ever found, go through the readers again.

#[path = "../../../fuzz/src/lib.rs"]
mod readers;

use std::path::Path;

fn replay(target: &str, read: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        read(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 2, "{} has {seeds} seeds", folder.display());
}

// One test: the readers share files.
#[test]
fn no_seed_makes_a_reader_panic() {
    replay("jsonl", |bytes| readers::pairs("rows.jsonl", bytes));
    replay("tsv", readers::tsv);
    replay("qrels", readers::qrels);
    replay("parquet_rows", readers::parquet);
    replay("safetensors", readers::safetensors);
}
