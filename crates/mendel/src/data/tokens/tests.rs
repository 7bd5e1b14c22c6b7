use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::Settings;
use crate::data::demo::demo_tokenizer;
use crate::data::source::Source;
use crate::data::{DataError, LoadOptions, Pair, text_key};
use crate::progress::{Event, Observer, Silent};
use crate::texts::TextEncoder;
use crate::tokenizer::Tokenizer;

/// Learned once for all tests.
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(demo_tokenizer);

fn encoder(max_seq_len: usize) -> TextEncoder {
    TextEncoder::new(TOKENIZER.clone(), &Settings { max_seq_len, ..Settings::default() }, 512)
}

/// A folder with a dataset in it, and a cache.
struct Place(tempfile::TempDir);

impl Place {
    fn new(content: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("pairs.tsv", content);
        place
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn store_of(&self, name: &str, max_seq_len: usize) -> Result<TokenStore, DataError> {
        let path = self.0.path().join(name);
        let files = Source::find(path.to_str().unwrap(), &mut Silent)?.training;
        let cache = TokenCache { folder: self.cache(), encoder: encoder(max_seq_len) };
        cache.of_files(name, &files, &LoadOptions::default(), &mut Silent)
    }

    /// The folders of stores, and when each was made.
    fn stores(&self) -> Vec<(PathBuf, SystemTime)> {
        let entries = fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path());
        let mut stores: Vec<_> =
            entries.filter(|path| path.is_dir()).map(|path| (path.clone(), made(&path.join("store.json")))).collect();
        stores.sort();
        stores
    }
}

fn made(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

const ROWS: &str = "who built the mill\tA guild built the mill.\tThe mill is old.\tThe tower is new.\n\
                    who built the tower\tA king built the tower.\n\
                    who built the mill\tA guild built the mill.\tThe mill is old.\n";

fn pairs() -> Vec<Pair> {
    pairs_of(ROWS)
}

fn pairs_of(rows: &str) -> Vec<Pair> {
    let row = |row: &str| {
        let mut texts = row.split('\t');
        Pair::new(texts.next().unwrap(), texts.next().unwrap(), texts).unwrap()
    };
    rows.lines().map(row).collect()
}

#[track_caller]
fn assert_holds(store: &TokenStore, pairs: &[Pair], encoder: &TextEncoder) {
    assert_eq!(store.len(), pairs.len());
    let same = |text: Text<'_>, expected: &str| {
        assert_eq!(text.tokens, encoder.passages(&[expected])[0], "{expected}");
        assert_eq!(text.key, text_key(expected));
    };
    for (place, pair) in pairs.iter().enumerate() {
        same(store.query(place), &pair.query);
        same(store.positive(place), &pair.positive);
        assert_eq!(store.negative_count(place), pair.negatives.len());
        pair.negatives.iter().enumerate().for_each(|(which, text)| same(store.negative(place, which), text));
    }
}

#[test]
fn a_store_holds_every_text_of_every_pair_on_disk_as_in_memory() {
    let (place, encoder) = (Place::new(ROWS), encoder(64));
    let store = place.store_of("pairs.tsv", 64).unwrap();
    assert_holds(&store, &pairs(), &encoder);
    assert_eq!((store.report.rows, store.report.usable), (3, 3));
    let in_memory = TokenStore::of_pairs(&pairs(), &encoder);
    assert_holds(&in_memory, &pairs(), &encoder);
    assert_eq!(store.fingerprint(0..3), in_memory.fingerprint(0..3));
    assert_ne!(store.fingerprint(0..3), store.fingerprint(0..2));
}

#[test]
fn many_chunks_keep_their_order() {
    let rows: String =
        (0..5000).map(|i| format!("who built mill {i}\tA guild built mill {i}.\tMill {i} is old.\n")).collect();
    let place = Place::new(&rows);
    assert_holds(&place.store_of("pairs.tsv", 64).unwrap(), &pairs_of(&rows), &encoder(64));
}

#[test]
fn a_dataset_is_tokenised_once_wherever_it_is_moved_and_again_for_another_content_or_length() {
    let place = Place::new(ROWS);
    place.store_of("pairs.tsv", 64).unwrap();
    let first = place.stores();
    assert_eq!(first.len(), 1);
    place.write("moved", ROWS);
    assert_holds(&place.store_of("moved", 64).unwrap(), &pairs(), &encoder(64));
    assert_eq!(place.stores(), first);
    place.store_of("pairs.tsv", 6).unwrap();
    assert_eq!(place.stores().len(), 2);
    place.write("pairs.tsv", &ROWS.replace("king", "queen"));
    place.store_of("pairs.tsv", 64).unwrap();
    assert_eq!(place.stores().len(), 3);
}

#[test]
fn refused_rows_are_told_where_the_file_is_now() {
    let place = Place::new(&(ROWS.repeat(50) + "broken\n"));
    place.store_of("pairs.tsv", 64).unwrap();
    fs::rename(place.0.path().join("pairs.tsv"), place.0.path().join("moved")).unwrap();
    let report = place.store_of("moved", 64).unwrap().report;
    let (_, refused) = report.refused.first_key_value().unwrap();
    assert_eq!((refused.first.file.file_name().unwrap().to_str(), refused.first.line), (Some("moved"), 151));
}

#[test]
fn whatever_a_kill_leaves_is_not_trusted() {
    let place = Place::new(ROWS);
    place.store_of("pairs.tsv", 64).unwrap();
    let (store, _) = place.stores().remove(0);
    // A run that was killed before the rename, at any point: some of the columns, cut anywhere, perhaps a manifest.
    for kept in 0..6 {
        fs::rename(&store, store.with_extension("partial")).unwrap();
        for name in fs::read_dir(store.with_extension("partial")).unwrap().skip(kept) {
            fs::write(name.unwrap().path(), [0; 13]).unwrap();
        }
        assert_holds(&place.store_of("pairs.tsv", 64).unwrap(), &pairs(), &encoder(64));
        assert!(!store.with_extension("partial").exists());
    }
}

#[test]
fn a_damaged_store_is_made_anew() {
    let place = Place::new(ROWS);
    place.store_of("pairs.tsv", 64).unwrap();
    let (store, _) = place.stores().remove(0);
    let names = ["tokens", "texts", "negative-tokens", "negatives", "pairs", "store.json"];
    for name in names {
        let whole = fs::read(store.join(name)).unwrap();
        let damages: [Option<Vec<u8>>; 4] = [
            None,
            Some(Vec::new()),
            Some(whole[..whole.len() - 4].to_vec()),
            Some([whole.clone(), vec![0; 8]].concat()),
        ];
        for damage in damages {
            match damage {
                None => fs::remove_file(store.join(name)).unwrap(),
                Some(bytes) => fs::write(store.join(name), bytes).unwrap(),
            }
            assert_holds(&place.store_of("pairs.tsv", 64).unwrap(), &pairs(), &encoder(64));
        }
    }
    // Ends that lead out of the tokens.
    let mut ends = fs::read(store.join("texts")).unwrap();
    ends[..8].copy_from_slice(&u64::MAX.to_ne_bytes());
    fs::write(store.join("texts"), ends).unwrap();
    assert_holds(&place.store_of("pairs.tsv", 64).unwrap(), &pairs(), &encoder(64));
}

#[test]
fn data_that_are_refused_leave_no_store() {
    let place = Place::new("broken\nbroken\n");
    // Recognised by its third row.
    place.write("bad.tsv", "broken\nq\tp\nbroken\n");
    let message = place.store_of("bad.tsv", 64).unwrap_err().to_string();
    assert!(message.contains("2 of 3 rows are malformed"), "{message}");
    assert!(place.stores().is_empty());
}

/// Fails the test when a row is read.
struct NothingIsRead;

impl Observer for NothingIsRead {
    fn observe(&mut self, event: Event<'_>) {
        if let Event::StageStarted { what, .. } = event {
            assert!(!what.starts_with("Tokenising"), "{what}");
        }
    }
}

#[test]
fn a_later_run_reads_no_row() {
    let place = Place::new(ROWS);
    place.store_of("pairs.tsv", 64).unwrap();
    let path = place.0.path().join("pairs.tsv");
    let files = Source::find(path.to_str().unwrap(), &mut Silent).unwrap().training;
    let cache = TokenCache { folder: place.cache(), encoder: encoder(64) };
    cache.of_files("pairs.tsv", &files, &LoadOptions::default(), &mut NothingIsRead).unwrap();
}

#[test]
fn a_cache_that_cannot_be_written_is_told_with_the_flag() {
    let place = Place::new(ROWS);
    place.write("cache", "a file in the way");
    let message = place.store_of("pairs.tsv", 64).unwrap_err().to_string();
    assert!(message.contains("cannot keep tokens in") && message.contains("--cache-dir"), "{message}");
}

#[test]
fn two_runs_that_begin_together_make_one_store() {
    let place = Place::new(&ROWS.repeat(300));
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| place.store_of("pairs.tsv", 64).unwrap().len())).collect();
        assert!(runs.into_iter().all(|run| run.join().unwrap() == 900));
    });
    assert_eq!(place.stores().len(), 1);
}

proptest! {
    #[test]
    fn any_pairs_come_back(texts in prop::collection::vec(("[a-z ]{1,20}", "[a-z]{1,9}", prop::collection::vec("[a-z]{1,5}", 0..3)), 0..20)) {
        let pairs: Vec<Pair> =
            texts.iter().filter_map(|(query, positive, negatives)| Pair::new(query, positive, negatives).ok()).collect();
        let encoder = encoder(16);
        assert_holds(&TokenStore::of_pairs(&pairs, &encoder), &pairs, &encoder);
    }
}
