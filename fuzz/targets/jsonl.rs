#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mendel_fuzz::pairs("rows.jsonl", bytes));
