//! Fetching from a Hub on loopback, as it should be and as it should not.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use common::hub_server::{Fault, HubServer};
use common::ms_marco::{rows, write_parquet};
use common::{NOWHERE, Place, program, read_json, stderr, stdout};

const REPOSITORY: &str = "datasets/microsoft/ms_marco";
const TRAIN: &str = "v2.1/train-00000-of-00002.parquet";
const TRAIN_2: &str = "v2.1/train-00001-of-00002.parquet";
const VALIDATION: &str = "v2.1/validation-00000-of-00001.parquet";

/// A Hub with MS MARCO on it, and an empty cache.
struct Hub {
    server: HubServer,
    place: Place,
}

impl Hub {
    fn new() -> Hub {
        let hub = Hub { server: HubServer::start(), place: Place::new() };
        let shard = hub.place.path("shard");
        let rows = rows(150);
        for (file, rows) in [(TRAIN, &rows[..70]), (TRAIN_2, &rows[70..120]), (VALIDATION, &rows[120..])] {
            write_parquet(&shard, rows);
            hub.server.put(REPOSITORY, file, fs::read(&shard).unwrap());
        }
        for file in ["README.md", "v2.1/test-00000-of-00001.parquet", "v1.1/train-00000-of-00001.parquet"] {
            hub.server.put(REPOSITORY, file, "not to be fetched");
        }
        hub
    }

    fn cache(&self) -> PathBuf {
        self.place.path("hf/hub/datasets--microsoft--ms_marco")
    }

    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = program();
        command.env("HF_ENDPOINT", self.server.endpoint()).env("HF_HOME", self.place.path("hf"));
        command.args(arguments).arg("--quiet").envs(variables.iter().copied()).output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run_with(arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output).to_owned()
    }

    #[track_caller]
    fn fail_with(&self, arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]) {
        let output = self.run_with(arguments, variables);
        let told = stderr(&output);
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{arguments:?}: {told}");
        assert!(told.starts_with("mendel: error: ") && !told.contains("panicked"), "{told}");
        for part in parts {
            assert!(told.contains(part), "'{part}' is missing from: {told}");
        }
    }

    #[track_caller]
    fn fail(&self, arguments: &[&str], parts: &[&str]) {
        self.fail_with(arguments, &[], parts);
    }

    /// Every file of the dataset is in the cache as it is on the Hub.
    #[track_caller]
    fn assert_fetched(&self, printed: &str) {
        let paths: Vec<&Path> = printed.lines().map(Path::new).collect();
        assert_eq!(paths.len(), 3, "{printed}");
        let shard = self.place.path("again");
        for (path, rows) in paths.iter().zip([&rows(150)[..70], &rows(150)[70..120], &rows(150)[120..]]) {
            write_parquet(&shard, rows);
            assert!(fs::read(path).unwrap() == fs::read(&shard).unwrap(), "{}", path.display());
        }
        let blobs = fs::read_dir(self.cache().join("blobs")).unwrap();
        let parts = blobs.filter(|blob| blob.as_ref().unwrap().path().extension().is_some_and(|end| end == "part"));
        assert_eq!(parts.count(), 0);
    }
}

#[test]
fn both_splits_are_fetched_into_the_ordinary_cache_once_and_the_test_split_never() {
    let hub = Hub::new();
    let printed = hub.succeed(&["data", "fetch"]);
    hub.assert_fetched(&printed);
    assert!(printed.contains("snapshots") && printed.contains(TRAIN), "{printed}");
    assert_eq!(hub.server.downloads("test-00000-of-00001.parquet").len(), 0);
    hub.server.forget_requests();
    assert_eq!(hub.succeed(&["data", "fetch", "msmarco-v2.1"]), printed);
    assert_eq!(hub.server.requests().len(), 0);
    let offline = hub.run_with(&["data", "fetch"], &[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", NOWHERE)]);
    assert_eq!(stdout(&offline), printed);
}

#[test]
fn an_interrupted_download_goes_on_where_it_ended() {
    let hub = Hub::new();
    hub.server.fail(TRAIN_2, [Fault::Cut(500), Fault::Cut(0), Fault::Cut(100)]);
    hub.fail(&["data", "fetch"], &[TRAIN_2, "could not be fetched whole", "run again"]);
    let from = |hub: &Hub| -> Vec<usize> {
        let downloads =
            hub.server.downloads(TRAIN_2).into_iter().filter(|request| request.path.starts_with("storage:"));
        downloads.filter_map(|request| request.range_from()).collect()
    };
    assert_eq!(from(&hub), [0, 500, 500]);
    let printed = hub.succeed(&["data", "fetch"]);
    assert_eq!(from(&hub), [0, 500, 500, 600]);
    hub.assert_fetched(&printed);
}

#[test]
fn what_a_kill_left_is_completed_whether_it_is_a_part_or_whole_or_too_much() {
    for left in [3, usize::MAX, 1_000_000] {
        let hub = Hub::new();
        hub.server.fail(TRAIN, [Fault::Cut(7), Fault::Cut(0), Fault::Cut(0)]);
        hub.fail(&["data", "fetch"], &["run again"]);
        let blobs = fs::read_dir(hub.cache().join("blobs")).unwrap().map(|blob| blob.unwrap().path());
        let part = blobs.into_iter().find(|blob| blob.extension().is_some_and(|end| end == "part")).unwrap();
        let shard = hub.place.path("again");
        write_parquet(&shard, &rows(150)[..70]);
        let whole = fs::read(&shard).unwrap();
        let held = match left {
            usize::MAX => whole.clone(),
            length if length > whole.len() => [whole.clone(), vec![0; 10]].concat(),
            length => whole[..length].to_vec(),
        };
        fs::write(&part, held).unwrap();
        let printed = hub.succeed(&["data", "fetch"]);
        hub.assert_fetched(&printed);
    }
}

#[test]
fn a_shard_that_was_damaged_on_the_way_is_told_and_not_kept() {
    for fault in [Fault::Garbled, Fault::Short(200)] {
        let hub = Hub::new();
        hub.server.fail(VALIDATION, [fault.clone()]);
        hub.fail(&["data", "fetch"], &[VALIDATION, "was damaged on the way", "run again"]);
        let printed = hub.succeed(&["data", "fetch"]);
        hub.assert_fetched(&printed);
    }
}

#[test]
fn a_server_that_sends_the_whole_file_again_is_not_trusted() {
    let hub = Hub::new();
    hub.server.fail(TRAIN, [Fault::Cut(500), Fault::WithoutRange]);
    hub.fail(&["data", "fetch"], &[TRAIN, "was damaged on the way"]);
    let printed = hub.succeed(&["data", "fetch"]);
    hub.assert_fetched(&printed);
}

#[test]
fn every_refusal_says_what_to_do() {
    let hub = Hub::new();
    let fetch = ["data", "fetch"];
    hub.server.fail("/api/", [Fault::Status(404)]);
    hub.fail(&fetch, &["nothing under the name of the dataset 'microsoft/ms_marco'", "--preset demo"]);
    hub.server.fail("/api/", [Fault::Status(429)]);
    hub.fail(&fetch, &["too many requests", "HF_TOKEN"]);
    hub.server.fail(TRAIN, [Fault::Status(429)]);
    hub.fail(&fetch, &["too many requests"]);
    hub.server.fail(TRAIN, [Fault::Status(500), Fault::Status(503), Fault::Status(502)]);
    hub.fail(&fetch, &[TRAIN, "status 502", "run again"]);
    hub.server.fail("/api/", [Fault::Status(403)]);
    hub.fail(&fetch, &["status 403", "HF_TOKEN"]);
    hub.server.require_token("secret");
    hub.fail(&fetch, &["status 401", "HF_TOKEN", "gated"]);
    hub.fail_with(&fetch, &[("HF_TOKEN", "wrong")], &["status 401"]);
}

#[test]
fn a_failure_that_passes_is_not_told() {
    let hub = Hub::new();
    hub.server.fail("/api/", [Fault::Status(503)]);
    hub.server.fail(TRAIN, [Fault::Status(503), Fault::Cut(10)]);
    let printed = hub.succeed(&["data", "fetch"]);
    hub.assert_fetched(&printed);
}

#[test]
fn the_token_is_that_of_the_variable_or_of_the_file_in_the_cache() {
    let hub = Hub::new();
    hub.server.require_token("secret");
    let output = hub.run_with(&["data", "fetch"], &[("HF_TOKEN", "secret")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let hub = Hub::new();
    hub.server.require_token("from the file");
    fs::create_dir_all(hub.place.path("hf")).unwrap();
    fs::write(hub.place.path("hf/token"), "from the file\n").unwrap();
    hub.succeed(&["data", "fetch"]);
}

#[test]
fn without_a_network_one_line_says_what_is_missing_and_the_two_ways_on() {
    let hub = Hub::new();
    let nowhere = [("HF_ENDPOINT", NOWHERE)];
    let dataset = ["cannot reach http://127.0.0.1:9", "microsoft/ms_marco", "local file or folder", "--preset demo"];
    hub.fail_with(&["data", "fetch"], &nowhere, &dataset);
    hub.fail_with(&["train", "--model", "demo-tiny"], &nowhere, &dataset);
    let model = ["cannot reach http://127.0.0.1:9", "'bert-base-uncased'", "local folder", "--preset demo"];
    for arguments in [["train"].as_slice(), &["compare"], &["eval", "bert-base-uncased"]] {
        hub.fail_with(arguments, &nowhere, &model);
    }
    let offline = [("HF_HUB_OFFLINE", "1")];
    hub.fail_with(&["data", "fetch"], &offline, &["HF_HUB_OFFLINE", "microsoft/ms_marco", "--preset demo"]);
    assert_eq!(hub.server.requests().len(), 0);
}

#[test]
fn a_dataset_that_was_fetched_in_part_is_not_taken_for_whole() {
    let hub = Hub::new();
    hub.succeed(&["data", "fetch"]);
    let shard = hub.cache().join("snapshots").join(common::hub_server::COMMIT).join(TRAIN_2);
    fs::remove_file(shard).unwrap();
    hub.fail_with(&["data", "fetch"], &[("HF_HUB_OFFLINE", "1")], &["not whole in the cache"]);
    let printed = hub.succeed(&["data", "fetch"]);
    hub.assert_fetched(&printed);
}

/// Puts the built-in model, trained for a step, on the Hub.
fn put_model(hub: &Hub, name: &str) -> PathBuf {
    let (dataset, out) = (hub.place.pairs(), hub.place.argument("trained"));
    let train = ["train", "--model", "demo-tiny", "--dataset", &dataset, "--max-steps", "1", "--output-dir", &out];
    hub.succeed(&train);
    let folder = hub.place.path("trained/models/standard-seed42");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        hub.server.put(name, path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
    }
    folder
}

#[test]
fn a_model_of_the_hub_trains_evaluates_and_embeds_under_its_old_name_too() {
    let hub = Hub::new();
    let folder = put_model(&hub, "google-bert/bert-base-uncased");
    hub.server.put("google-bert/bert-base-uncased", "pytorch_model.bin", "not to be fetched");
    hub.server.rename("bert-base-uncased", "google-bert/bert-base-uncased");
    // With nothing but defaults: the model and the data are the Hub's.
    let out = hub.place.argument("out");
    hub.succeed(&["train", "--max-steps", "2", "--output-dir", &out]);
    let results = read_json(&hub.place.path("out/standard_attention_results.json"));
    assert_eq!(results["config"]["model"], "bert-base-uncased");
    assert!(hub.server.requests().iter().all(|request| !request.path.ends_with(".bin")));
    let texts = hub.place.file("texts.txt", "who built the mill\n");
    let embed = |model: &str, name: &str| {
        let output = hub.place.argument(name);
        hub.succeed(&["embed", &texts, "--model", model, "--output", &output]);
        fs::read(output).unwrap()
    };
    assert_eq!(embed("bert-base-uncased", "a.npy"), embed(folder.to_str().unwrap(), "b.npy"));
    hub.succeed(&["eval", "google-bert/bert-base-uncased", "--dataset", "demo"]);
    assert!(hub.succeed(&["data", "fetch", "--model", "bert-base-uncased"]).contains("models--bert-base-uncased"));
}

#[test]
fn a_model_that_another_program_fetched_in_part_is_completed() {
    let hub = Hub::new();
    put_model(&hub, "owner/model");
    let fetch = ["data", "fetch", "--model", "owner/model"];
    let snapshot = PathBuf::from(hub.succeed(&fetch).trim());
    // As a program leaves it that has a tokenizer but no use for the rest, and does not give commits a reference.
    let refs = hub.place.path("hf/hub/models--owner--model/refs");
    fs::remove_file(snapshot.join("dual_encoder.json")).unwrap();
    fs::remove_file(refs.join(common::hub_server::COMMIT)).unwrap();
    let offline = hub.run_with(&fetch, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.status.code(), Some(0), "{}", stderr(&offline));
    hub.succeed(&fetch);
    assert!(snapshot.join("dual_encoder.json").is_file());
    // Without a tokenizer it is no model, with or without a network.
    for file in ["tokenizer.json", "vocab.txt"] {
        fs::remove_file(snapshot.join(file)).unwrap();
    }
    hub.fail_with(&fetch, &[("HF_HUB_OFFLINE", "1")], &["not whole in the cache"]);
    hub.succeed(&fetch);
    assert!(snapshot.join("tokenizer.json").is_file());
}

#[test]
fn a_file_that_was_not_looked_over_before_a_kill_is_looked_over_then() {
    let hub = Hub::new();
    let printed = hub.succeed(&["data", "fetch"]);
    let blob = fs::canonicalize(printed.lines().next().unwrap()).unwrap();
    fs::write(&blob, "damaged").unwrap();
    // Killed before the snapshot got its name.
    fs::remove_file(hub.cache().join("refs/main")).unwrap();
    let printed = hub.succeed(&["data", "fetch"]);
    hub.assert_fetched(&printed);
}

#[cfg(unix)]
#[test]
fn an_interrupt_while_fetching_ends_at_once() {
    let hub = Hub::new();
    // Slow enough: every attempt fails, and the waits between them are long.
    hub.server.fail(TRAIN, std::iter::repeat_n(Fault::Cut(1), 3));
    let mut command = program();
    command.env("HF_ENDPOINT", hub.server.endpoint()).env("HF_HOME", hub.place.path("hf"));
    command.args(["train", "--model", "demo-tiny", "--output-dir", &hub.place.argument("out")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    common::wait_until("the first attempt", || !hub.server.downloads(TRAIN).is_empty());
    common::interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!hub.place.path("out").exists());
}

#[test]
fn what_is_no_model_on_the_hub_is_told() {
    let hub = Hub::new();
    hub.server.put("owner/old", "config.json", "{}");
    hub.server.put("owner/old", "pytorch_model.bin", "weights");
    hub.fail(&["eval", "owner/old"], &["'owner/old' has no model.safetensors", "safetensors format"]);
    hub.fail(&["eval", "owner/none"], &["nothing under the name of the model 'owner/none'", "check it"]);
    hub.fail(&["eval", "./no/such/folder"], &["'./no/such/folder'", "OWNER/NAME"]);
    let output = hub.run_with(&["data", "fetch", "squad"], &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn ms_marco_is_trained_on_its_training_split_and_evaluated_on_its_validation_split() {
    let hub = Hub::new();
    let out = hub.place.argument("out");
    let output = program()
        .env("HF_ENDPOINT", hub.server.endpoint())
        .env("HF_HOME", hub.place.path("hf"))
        .args(["train", "--model", "demo-tiny", "--max-steps", "1", "--output-dir", &out])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("120 training pairs (none refused); 30 queries over 60 passages"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("Fetching v2.1/train"), "{}", stderr(&output));
    let inspected = hub.succeed(&["data", "inspect", "msmarco-v2.1", "--json"]);
    assert!(inspected.contains("\"usable\": 120"), "{inspected}");
}
