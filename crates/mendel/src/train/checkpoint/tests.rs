use proptest::prelude::*;

use super::*;
use crate::files::stopping::{Manner, Stopping, at_every_operation};

/// Two steps' worth of files: one written by a function in pieces, one of a few bytes, one empty.
const WEIGHTS: &str = "weights.safetensors";

fn save(store: &CheckpointStore, step: u64, fill: u8) -> Result<Saved, CheckpointError> {
    let weights = |writer: &mut dyn Write| (0..10).try_for_each(|_| writer.write_all(&[fill; 300]));
    let state = format!("state {fill}");
    store.save(
        step,
        &[
            (WEIGHTS, Content::Writer(&weights)),
            ("state.json", Content::Bytes(state.as_bytes())),
            ("empty", Content::Bytes(&[])),
        ],
    )
}

/// The step and the fill of the newest checkpoint, with its files checked against each other.
fn newest(store: &CheckpointStore) -> Option<(u64, u8)> {
    let checkpoint = store.newest().unwrap().checkpoint?;
    let weights = checkpoint.read(WEIGHTS).unwrap();
    assert_eq!(weights, [weights[0]; 3000]);
    assert_eq!(checkpoint.read("state.json").unwrap(), format!("state {}", weights[0]).as_bytes());
    Some((checkpoint.step(), weights[0]))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Saves `then` after `before` and breaks at every operation: the newest checkpoint must be the last of `before`, or
/// `then` if that was completed, and the next save must work and leave nothing behind.
fn survives_a_stop_at_every_operation(before: &[(u64, u8)], then: (u64, u8), left: &[&str]) {
    let runs = at_every_operation(|manner, operation| {
        let context = format!("{manner:?} at operation {operation}");
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("checkpoints/standard-seed1");
        let store = CheckpointStore::new(&dir, 2);
        for &(step, fill) in before {
            save(&store, step, fill).unwrap();
        }
        let files = Arc::new(Stopping::new(manner, operation));
        let stopping = CheckpointStore { files: files.clone(), dir: dir.clone(), keep: 2 };
        let saved = save(&stopping, then.0, then.1);
        files.lose_what_was_not_synced();

        let found = store.newest().unwrap();
        assert_eq!(found.damaged, [], "{context}");
        let found = newest(&store);
        assert!(found == before.last().copied() || found == Some(then), "{context}: {found:?}");
        match saved {
            Ok(saved) => {
                assert_eq!(found, Some(then), "{context}");
                assert_eq!(saved.not_removed.is_empty(), !files.reached(), "{context}");
            }
            Err(error) => assert!(error.to_string().contains("stopped by the test"), "{context}: {error}"),
        }
        if manner == Manner::FailOnce && found != Some(then) {
            assert!(names_if_any(&dir).iter().all(|name| !name.contains(TEMPORARY)), "{context}");
        }
        assert!(save(&store, then.0, then.1).unwrap().not_removed.is_empty());
        assert_eq!(newest(&store), Some(then), "{context}");
        assert_eq!(names(&dir), left, "{context}");
        files.reached()
    });
    assert!(runs > 50, "{runs}");
}

fn names_if_any(folder: &Path) -> Vec<String> {
    if folder.exists() { names(folder) } else { Vec::new() }
}

#[test]
fn a_stop_at_any_operation_of_the_first_save_leaves_nothing_or_all_of_it() {
    survives_a_stop_at_every_operation(&[], (500, 1), &["step-000500"]);
}

#[test]
fn a_stop_at_any_operation_of_a_save_leaves_the_checkpoint_before_or_the_new_one() {
    let before = [(500, 1), (1000, 2)];
    survives_a_stop_at_every_operation(&before, (1500, 3), &["step-001000", "step-001500"]);
}

#[test]
fn a_stop_at_any_operation_of_a_replacement_leaves_the_old_one_or_the_new_one() {
    survives_a_stop_at_every_operation(&[(500, 1)], (500, 2), &["step-000500"]);
    survives_a_stop_at_every_operation(&[(500, 1), (1000, 2)], (1000, 3), &["step-000500", "step-001000"]);
}

#[test]
fn the_newest_ones_are_kept_and_those_of_later_steps_let_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 2);
    for step in [9_000_000, 1, 2, 3] {
        assert_eq!(save(&store, step, 7).unwrap().path, folder.path().join(folder_name(step)));
    }
    assert_eq!(names(folder.path()), ["step-000002", "step-000003", "step-9000000"]);
    assert_eq!(newest(&store), Some((9_000_000, 7)));
}

#[test]
fn at_least_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 0);
    save(&store, 1, 1).unwrap();
    save(&store, 2, 2).unwrap();
    assert_eq!(names(folder.path()), ["step-000002"]);
}

#[test]
fn a_folder_that_is_not_there_has_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let found = CheckpointStore::new(folder.path().join("none"), 1).newest().unwrap();
    assert!(found.checkpoint.is_none() && found.damaged.is_empty());
}

#[test]
fn other_files_and_folders_are_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let others = [".step-1.tmp-2", "notes.txt", "step-1", "step-best"];
    for name in others {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let store = CheckpointStore::new(folder.path(), 1);
    save(&store, 5, 1).unwrap();
    assert_eq!(newest(&store), Some((5, 1)));
    assert_eq!(names(folder.path()), [&others[..2], &["step-000005"], &others[2..]].concat());
}

#[test]
fn a_checkpoint_opens_by_its_path_wherever_it_was_moved() {
    let folder = tempfile::tempdir().unwrap();
    let saved = save(&CheckpointStore::new(folder.path().join("a"), 1), 500, 3).unwrap();
    let moved = folder.path().join("the good one");
    fs::rename(saved.path, &moved).unwrap();
    let checkpoint = Checkpoint::open(&moved).unwrap();
    assert_eq!((checkpoint.step(), checkpoint.path()), (500, &*moved));
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), [WEIGHTS, "state.json", "empty"]);
    let error = checkpoint.read("optimizer").unwrap_err().to_string();
    assert!(error.contains("holds no 'optimizer'"), "{error}");
}

#[test]
fn a_missing_path_is_an_error_that_says_so() {
    let error = Checkpoint::open("no/such/step-000500").unwrap_err();
    assert!(error.to_string().starts_with("there is no checkpoint 'no/such/step-000500'; name "), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_refused_with_the_file_and_both_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let path = save(&CheckpointStore::new(folder.path(), 1), 500, 3).unwrap().path;
    let checkpoint = Checkpoint::open(&path).unwrap();
    fs::write(path.join("state.json"), "state 4").unwrap();
    let checksum = |text| hex(&Sha256::digest(text));
    for error in [Checkpoint::open(&path).unwrap_err(), checkpoint.read("state.json").unwrap_err()] {
        let message = error.to_string();
        assert!(message.contains("step-000500' is damaged: the file 'state.json' has"), "{message}");
        assert!(message.contains(&checksum("state 3")) && message.contains(&checksum("state 4")), "{message}");
    }
}

#[test]
fn every_kind_of_damage_is_passed_over_with_its_reason() {
    type Harm = fn(&Path);
    let rewrite_manifest = |path: &Path, from: &str, to: &str| {
        let path = path.join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    };
    let harms: [(Harm, &str); 6] = [
        (|path| fs::remove_file(path.join(MANIFEST)).unwrap(), "never completed"),
        (|path| fs::write(path.join(MANIFEST), "{").unwrap(), "manifest.json cannot be read"),
        (|path| fs::remove_file(path.join("empty")).unwrap(), "the file 'empty' is missing"),
        (|path| fs::create_dir(path.join("more")).unwrap(), "'more' is not one of its files"),
        (|path| fs::write(path.join("state.json"), "").unwrap(), "has 0 bytes and was written with 7"),
        (
            |path| {
                fs::remove_file(path.join("empty")).unwrap();
                fs::create_dir(path.join("empty")).unwrap();
            },
            "the file 'empty' cannot be read",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 100);
    save(&store, 1, 1).unwrap();
    for (step, (harm, _)) in (2..).zip(&harms) {
        harm(&save(&store, step, 2).unwrap().path);
    }
    rewrite_manifest(&save(&store, 8, 2).unwrap().path, "\"step\": 8", "\"step\": 9");
    rewrite_manifest(&save(&store, 9, 2).unwrap().path, "\"format\": 1", "\"format\": 2");

    let found = store.newest().unwrap();
    assert_eq!(found.checkpoint.unwrap().step(), 1);
    let reasons = harms.iter().map(|(_, reason)| *reason).chain(["of step 9", "format 2"]);
    let found: Vec<String> = found.damaged.iter().rev().map(ToString::to_string).collect();
    assert_eq!(found.len(), 8);
    for (step, (message, reason)) in (2..).zip(found.iter().zip(reasons)) {
        assert!(message.contains(reason) && message.contains(&folder_name(step)), "{message}");
    }
}

#[test]
fn any_change_to_any_byte_of_the_manifest_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = save(&CheckpointStore::new(folder.path(), 1), 500, 3).unwrap().path;
    let manifest = path.join(MANIFEST);
    let written = fs::read(&manifest).unwrap();
    for place in 0..written.len() {
        // A digit or letter into another, a letter's case, and what makes a space a tab or a line break, which mean the same to a reader of JSON.
        for flip in [1, 32, b' ' ^ b'\t', b' ' ^ b'\n'] {
            let mut changed = written.clone();
            changed[place] ^= flip;
            fs::write(&manifest, changed).unwrap();
            assert!(Checkpoint::open(&path).is_err(), "byte {place} xor {flip}");
        }
        fs::write(&manifest, &written[..place]).unwrap();
        assert!(Checkpoint::open(&path).is_err(), "cut to {place} bytes");
    }
    fs::write(&manifest, written).unwrap();
    assert!(Checkpoint::open(&path).is_ok());
}

#[test]
fn names_that_are_no_plain_file_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 1);
    for name in ["", ".hidden", "../up", "a\\b", MANIFEST] {
        let error = store.save(1, &[(name, Content::Bytes(b""))]).unwrap_err();
        assert!(matches!(error, CheckpointError::BadName { .. }), "{name}: {error}");
    }
    let twice = [("a", Content::Bytes(b"")), ("a", Content::Bytes(b""))];
    assert!(store.save(1, &twice).unwrap_err().to_string().contains("another file has it"));
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_writer_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::new(folder.path(), 1);
    let fail = |_: &mut dyn Write| Err(io::Error::other("no such tensor"));
    let error = store.save(1, &[("weights", Content::Writer(&fail))]).unwrap_err().to_string();
    assert!(error.contains("weights': no such tensor"), "{error}");
    assert_eq!(names(folder.path()), [""; 0]);
}

proptest! {
    // Each case waits for the disk dozens of times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_changed_or_cut_byte_of_any_file_is_seen_and_the_one_before_is_taken(
        file in prop::sample::select(vec![WEIGHTS, "state.json", MANIFEST]),
        place: prop::sample::Index,
        flip in 1u8..,
        cut: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(folder.path(), 2);
        save(&store, 500, 1).unwrap();
        let path = save(&store, 1000, 2).unwrap().path;
        let mut bytes = fs::read(path.join(file)).unwrap();
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= flip;
        }
        fs::write(path.join(file), bytes).unwrap();

        let found = store.newest().unwrap();
        prop_assert_eq!(found.checkpoint.unwrap().step(), 500);
        prop_assert_eq!(found.damaged.len(), 1);
        prop_assert_eq!(&found.damaged[0].path, &path);
        // A changed manifest may look like any damage, so there only the folder is sure.
        let message = found.damaged[0].to_string();
        prop_assert!(file == MANIFEST || message.contains(file), "{}", message);
        let refused = Checkpoint::open(&path).unwrap_err().to_string();
        prop_assert!(refused.starts_with(&message), "{}", refused);
    }
}
