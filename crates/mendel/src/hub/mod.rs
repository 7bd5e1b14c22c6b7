//! Datasets and models from the Hugging Face Hub, in its ordinary cache, by the `hf-hub` crate.
//!
//! What is in the cache whole is used without a look at the network. What is fetched is compared with the size and,
//! where the Hub tells it, the SHA-256 that it should have; an interrupted download goes on where it ended.

mod download;
mod error;

pub use self::error::HubError;

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::progress::Observer;

/// The weights, which are fetched last: where they are, all else is.
const WEIGHTS: &str = "model.safetensors";
/// What a model must have beside them.
const CONFIG: &str = "config.json";
/// What is fetched of a model where it is there.
const OPTIONAL: [&str; 7] = [
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "dual_encoder.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
];

/// Datasets by our names: the repository and the folder in it.
const DATASETS: [(&str, &str, &str); 2] =
    [("msmarco-v2.1", "microsoft/ms_marco", "v2.1"), ("msmarco-v1.1", "microsoft/ms_marco", "v1.1")];

/// A dataset's Parquet files in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubDataset {
    /// To train on.
    pub train: Vec<PathBuf>,
    /// To evaluate on.
    pub validation: Vec<PathBuf>,
}

/// The Hub and its cache, as the environment says: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`,
/// `HF_HUB_OFFLINE`.
struct Hub {
    endpoint: String,
    cache: Cache,
    token: Option<String>,
    offline: bool,
}

/// The files of a dataset that has a name on the Hub, fetched where they are not in the cache. A test split is never
/// fetched: MS MARCO's has hidden labels.
///
/// # Errors
/// Where they are not in the cache and cannot be fetched whole.
pub fn dataset(name: &str, observer: &mut dyn Observer) -> Result<Option<HubDataset>, HubError> {
    let Some((_, id, folder)) = DATASETS.iter().find(|(own, ..)| *own == name) else { return Ok(None) };
    let repository = Repository::new(Hub::from_env()?, id, RepoType::Dataset);
    if let Some(snapshot) = repository.snapshot()
        && let Some(dataset) = HubDataset::of(&local_shards(&snapshot, folder), &snapshot)
    {
        return Ok(Some(dataset));
    }
    let listed = repository.files()?;
    let of_folder = |file: &&String| file.rsplit_once('/').is_some_and(|(of, _)| of == *folder);
    let files: Vec<String> = listed.files.iter().filter(of_folder).cloned().collect();
    let Some(wanted) = HubDataset::of(&files, Path::new("")) else {
        return Err(HubError::Shards { repository: id.to_string(), folder: folder.to_string() });
    };
    let wanted: Vec<String> =
        wanted.train.iter().chain(&wanted.validation).map(|file| file.to_string_lossy().into_owned()).collect();
    let snapshot = repository.fetch(&listed.commit, &wanted, observer)?;
    Ok(HubDataset::of(&wanted, &snapshot))
}

/// The folder of a model that has a name on the Hub, `name` or `owner/name`; `None` where a name cannot be one.
///
/// # Errors
/// Where it is not in the cache and cannot be fetched whole.
pub fn model(name: &str, observer: &mut dyn Observer) -> Result<Option<PathBuf>, HubError> {
    if !is_id(name) {
        return Ok(None);
    }
    let repository = Repository::new(Hub::from_env()?, name, RepoType::Model);
    let here = repository.snapshot().filter(|snapshot| is_model(snapshot));
    if let Some(snapshot) = here.as_ref().filter(|snapshot| repository.is_of_ours(snapshot)) {
        return Ok(Some(snapshot.clone()));
    }
    let listed = match (repository.files(), here) {
        (Ok(listed), _) => listed,
        // Another program fetched what it needed, which is all that can be had now.
        (Err(HubError::Offline { .. } | HubError::Unreachable { .. }), Some(snapshot)) => return Ok(Some(snapshot)),
        (Err(error), _) => return Err(error),
    };
    let has = |file: &str| listed.files.iter().any(|other| other == file);
    for file in [CONFIG, WEIGHTS] {
        if !has(file) {
            return Err(HubError::Lacks { repository: name.to_string(), file });
        }
    }
    let wanted = OPTIONAL.into_iter().filter(|file| has(file)).chain([CONFIG, WEIGHTS]);
    let wanted: Vec<String> = wanted.map(str::to_owned).collect();
    Ok(Some(repository.fetch(&listed.commit, &wanted, observer)?))
}

/// Whether a folder has what a model cannot do without.
fn is_model(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    has(WEIGHTS) && has(CONFIG) && (has("tokenizer.json") || has("vocab.txt"))
}

/// Whether a name can be that of a repository: one or two parts of letters, digits and `.-_`.
fn is_id(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-_".contains(letter))
    };
    name.split('/').count() <= 2 && name.split('/').all(is_part)
}

impl HubDataset {
    /// From names `<folder>/<split>-00000-of-00007.parquet` below a folder, each split's shards all there.
    fn of(files: &[String], below: &Path) -> Option<Self> {
        let split = |name: &str| {
            let mut shards: Vec<(&String, usize, usize)> =
                files.iter().filter_map(|file| shard(file, name).map(|(place, count)| (file, place, count))).collect();
            shards.sort_by_key(|(_, place, _)| *place);
            let whole =
                shards.iter().enumerate().all(|(index, (_, place, count))| *place == index && *count == shards.len());
            (whole && !shards.is_empty()).then(|| shards.iter().map(|(file, ..)| below.join(file)).collect::<Vec<_>>())
        };
        Some(HubDataset { train: split("train")?, validation: split("validation")? })
    }
}

/// The place and the count in `<folder>/<split>-<place>-of-<count>.parquet`.
fn shard(file: &str, split: &str) -> Option<(usize, usize)> {
    let name = file.rsplit('/').next()?.strip_suffix(".parquet")?.strip_prefix(split)?.strip_prefix('-')?;
    let (place, count) = name.split_once("-of-")?;
    Some((place.parse().ok()?, count.parse().ok()?))
}

/// Files of a snapshot's folder, as the Hub names them.
fn local_shards(snapshot: &Path, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(snapshot.join(folder)).into_iter().flatten().flatten();
    // A link whose blob is gone is not there.
    let there = entries.filter(|entry| entry.path().is_file());
    there.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect()
}

impl Hub {
    fn from_env() -> Result<Self, HubError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let folder = variable("HF_HUB_CACHE").map(PathBuf::from);
        let home =
            || variable("HF_HOME").map(PathBuf::from).or_else(|| Some(dirs::home_dir()?.join(".cache/huggingface")));
        let folder = folder.or_else(|| Some(home()?.join("hub"))).ok_or(HubError::NoHome)?;
        // A link in the cache is relative to it, and has to be found from anywhere.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let cache = Cache::new(folder);
        let is_set = |value: String| !["0", "false", "no", "off"].contains(&value.to_lowercase().as_str());
        Ok(Hub {
            endpoint: variable("HF_ENDPOINT").unwrap_or("https://huggingface.co".into()).trim_end_matches('/').into(),
            token: variable("HF_TOKEN").or_else(|| cache.token()),
            cache,
            offline: variable("HF_HUB_OFFLINE").is_some_and(is_set),
        })
    }

    fn api(&self) -> Result<Api, HubError> {
        let builder = ApiBuilder::from_cache(self.cache.clone()).with_endpoint(self.endpoint.clone());
        let builder = builder.with_token(self.token.clone()).with_progress(false);
        let builder = builder.with_user_agent("mendel", env!("CARGO_PKG_VERSION"));
        builder.build().map_err(|error| HubError::Protocol { url: self.endpoint.clone(), why: error.to_string() })
    }
}

/// A repository of the Hub.
struct Repository {
    hub: Hub,
    id: String,
    kind: RepoType,
}

/// A repository's newest commit.
struct Listed {
    commit: String,
    files: Vec<String>,
}

impl Repository {
    fn new(hub: Hub, id: &str, kind: RepoType) -> Self {
        Repository { hub, id: id.into(), kind }
    }

    fn main(&self) -> Repo {
        Repo::new(self.id.clone(), self.kind)
    }

    fn cached(&self, repo: Repo) -> CacheRepo {
        self.hub.cache.repo(repo)
    }

    /// The folder in the cache of the commit last fetched.
    fn snapshot(&self) -> Option<PathBuf> {
        let reference = self.hub.cache.path().join(self.main().folder_name()).join("refs/main");
        let commit = std::fs::read_to_string(reference).ok()?;
        let snapshot = self.cached(self.main()).pointer_path(commit.trim());
        snapshot.is_dir().then_some(snapshot)
    }

    /// Whether a snapshot was fetched by this program, which gives a commit its reference last but one.
    fn is_of_ours(&self, snapshot: &Path) -> bool {
        let references = self.hub.cache.path().join(self.main().folder_name()).join("refs");
        snapshot.file_name().is_some_and(|commit| references.join(commit).is_file())
    }

    /// What the repository has now.
    fn files(&self) -> Result<Listed, HubError> {
        if self.hub.offline {
            let (name, cache) = (self.name(), self.hub.cache.path().clone());
            return Err(HubError::Offline { name, cache, ways: self.ways_on() });
        }
        let remote = self.hub.api()?.repo(self.main());
        let info = download::with_patience(|| remote.info().map_err(|error| self.failed(None, error)))?;
        let files = info.siblings.into_iter().map(|file| file.rfilename).collect();
        Ok(Listed { commit: info.sha, files })
    }

    /// Fetches files of a commit into the cache, in this order, and returns their folder.
    fn fetch(&self, commit: &str, files: &[String], observer: &mut dyn Observer) -> Result<PathBuf, HubError> {
        let repo = Repo::with_revision(self.id.clone(), self.kind, commit.into());
        let api = self.hub.api()?;
        let remote: ApiRepo = api.repo(repo.clone());
        for file in files {
            // What a killed run left was perhaps not looked over any more.
            let is_there = self.cached(repo.clone()).get(file).is_some_and(|path| download::is_sound(&path));
            if !is_there {
                download::fetch(self, &api, &remote, file, observer)?;
            }
        }
        // The name by which the snapshot is found again, given only now that it is whole.
        let cached = self.cached(self.main());
        let path = self.hub.cache.path().clone();
        cached.create_ref(commit).map_err(|source| HubError::Cache { path, source })?;
        Ok(cached.pointer_path(commit))
    }

    /// In words: "the dataset 'microsoft/ms_marco'".
    fn name(&self) -> String {
        let kind = if matches!(self.kind, RepoType::Dataset) { "dataset" } else { "model" };
        format!("the {kind} '{}'", self.id)
    }

    /// What a user can do without the Hub.
    fn ways_on(&self) -> &'static str {
        match self.kind {
            RepoType::Dataset => {
                "give a local file or folder with --dataset, or try the built-in data with --preset demo"
            }
            _ => "give a local folder as the model, or try the built-in one with --preset demo",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_whole_only_with_every_shard_of_both_splits() {
        let names = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>();
        let whole = names(&[
            "v2.1/validation-00000-of-00001.parquet",
            "v2.1/train-00001-of-00002.parquet",
            "v2.1/test-00000-of-00001.parquet",
            "v2.1/train-00000-of-00002.parquet",
        ]);
        let dataset = HubDataset::of(&whole, Path::new("")).unwrap();
        let train = ["v2.1/train-00000-of-00002.parquet", "v2.1/train-00001-of-00002.parquet"].map(PathBuf::from);
        assert_eq!(dataset.train, train);
        assert_eq!(dataset.validation, [PathBuf::from("v2.1/validation-00000-of-00001.parquet")]);
        for missing in [0, 1, 3] {
            let mut files = whole.clone();
            files.remove(missing);
            assert_eq!(HubDataset::of(&files, Path::new("")), None, "without {}", whole[missing]);
        }
    }

    #[test]
    fn a_path_is_no_name_on_the_hub() {
        for name in ["bert-base-uncased", "google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"] {
            assert!(is_id(name), "{name}");
        }
        for path in ["./model", "../model", "/models/bert", "a/b/c", "model/", "", "mein modell", ".hidden"] {
            assert!(!is_id(path), "{path}");
        }
    }
}
