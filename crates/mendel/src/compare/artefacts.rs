//! The files that a run leaves (docs/guide.md, "Artefacts").

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, tensor::TensorView};
use serde::Serialize;

use super::comparison::{Comparison, Measured};
use super::results::ArmResults;
use crate::dual_encoder::Embeddings;
use crate::evaluate::Evaluation;
use crate::files::{FileError, write_atomically};
use crate::report::CURVES;
use crate::saved_model::SavedModel;
use crate::settings::Settings;
use crate::train::{Inputs, TrainError, TrainedArm, arm_name, settings_that_differ};

/// The file of the differences between arms.
const COMPARISON: &str = "comparison.json";
/// The file of the settings.
const CONFIG: &str = "config.toml";
/// How the names of the arms' results end.
const RESULTS: &str = "_attention_results.json";
/// What a comparison leaves when all its runs are done, beside its curves.
const OF_COMPARISON: [&str; 3] = [COMPARISON, "report.html", "report.md"];
/// The folders of what runs leave.
const FOLDERS: [&str; 6] = ["checkpoints", "embeddings", "history", "models", "runs", "tensorboard"];

/// The folder of a run's artefacts.
pub struct Artefacts {
    folder: PathBuf,
}

impl Artefacts {
    /// Where the settings say.
    pub fn new(settings: &Settings) -> Self {
        Artefacts { folder: settings.output_dir.clone() }
    }

    /// Those of an earlier run.
    pub fn at(folder: &Path) -> Self {
        Artefacts { folder: folder.into() }
    }

    /// The settings of an earlier run, its output folder where it is now.
    pub fn settings(&self) -> Result<Settings, TrainError> {
        let path = self.folder.join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(FileError::when("read", &path))?;
        let settings = toml::from_str::<Settings>(&text);
        let unfit = |reason: String| TrainError::Artefact { path: path.clone(), reason };
        let settings = settings.map_err(|error| unfit(error.message().into()))?;
        settings.validate_values().map_err(|error| unfit(error.to_string()))?;
        Ok(Settings { output_dir: self.folder.clone(), ..settings })
    }

    /// What an earlier comparison measured or looked up at its end.
    pub fn measured(&self) -> Result<Measured, TrainError> {
        let path = self.folder.join(COMPARISON);
        let text = std::fs::read(&path).map_err(FileError::when("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| TrainError::Artefact { path, reason: error.to_string() })
    }

    /// Refuses a folder in which a run of other settings has left something: it would be lost, or stand beside what it does
    /// not belong to.
    pub fn ensure_own(&self, settings: &Settings) -> Result<(), TrainError> {
        if !["checkpoints", "models", "runs"].iter().any(|name| self.folder.join(name).exists()) {
            return Ok(());
        }
        let Ok(earlier) = self.settings() else { return Ok(()) };
        let differences = settings_that_differ(&earlier, settings);
        let folder = self.folder.clone();
        if differences.is_empty() { Ok(()) } else { Err(TrainError::OtherResults { folder, differences }) }
    }

    /// Removes everything that a run leaves.
    pub fn clear(&self) -> Result<(), TrainError> {
        let of_arms = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let of_arms = of_arms.filter_map(|entry| entry.file_name().into_string().ok());
        let of_arms = of_arms.filter(|name| name.ends_with(RESULTS)).collect::<Vec<_>>();
        let files = OF_COMPARISON.iter().chain([&CONFIG]).copied().chain(of_arms.iter().map(String::as_str));
        files.map(|name| self.folder.join(name)).try_for_each(|path| removed(&path, std::fs::remove_file(&path)))?;
        let folders = FOLDERS.iter().chain([&CURVES]).map(|name| self.folder.join(name));
        folders.into_iter().try_for_each(|path| removed(&path, std::fs::remove_dir_all(&path)))
    }

    /// `config.toml`: the settings in force; `--config` on it repeats the run. The comparison and report of an
    /// earlier run are removed, so that they never stand beside the settings of this one.
    pub fn begin(&self, settings: &Settings) -> Result<(), TrainError> {
        let text = settings.to_toml().map_err(|error| TrainError::Config(error.to_string()))?;
        for name in OF_COMPARISON {
            let path = self.folder.join(name);
            removed(&path, std::fs::remove_file(&path))?;
        }
        let curves = self.folder.join(CURVES);
        removed(&curves, std::fs::remove_dir_all(&curves))?;
        Ok(write_atomically(&self.folder.join(CONFIG), text.as_bytes())?)
    }

    /// A run's model and embeddings.
    pub fn run(&self, trained: &TrainedArm, settings: &Settings, inputs: &Inputs) -> Result<(), TrainError> {
        let name = arm_name(&trained.arm, settings);
        let model = SavedModel { encoder: trained.encoder.clone(), texts: inputs.texts.clone() };
        model.save(&self.folder.join("models").join(&name))?;
        let bytes = embeddings(&trained.evaluation, inputs);
        Ok(write_atomically(&self.folder.join("embeddings").join(format!("{name}.safetensors")), &bytes)?)
    }

    /// An arm's results.
    pub fn arm(&self, results: &ArmResults) -> Result<(), TrainError> {
        Ok(write_json(&self.folder.join(format!("{}{RESULTS}", results.arm)), results)?)
    }

    /// `comparison.json`, where there is more than one arm.
    pub fn comparison(&self, comparison: &Comparison) -> Result<(), TrainError> {
        if comparison.differences.is_empty() {
            return Ok(());
        }
        Ok(write_json(&self.folder.join(COMPARISON), comparison)?)
    }
}

/// What is not there need not be removed.
fn removed(path: &Path, removed: io::Result<()>) -> Result<(), TrainError> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::when("remove", path)(error).into()),
        _ => Ok(()),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FileError> {
    let mut text = serde_json::to_vec_pretty(value).expect("results are plain data");
    text.push(b'\n');
    write_atomically(path, &text)
}

/// A safetensors file of `queries` `[Q, H]` and `passages` `[P, H]`; the metadata's `ids` is a JSON object of their ids.
fn embeddings(evaluation: &Evaluation, inputs: &Inputs) -> Vec<u8> {
    let set = &inputs.evaluator.set;
    let encode = |embeddings: &Embeddings| -> (Vec<usize>, Vec<u8>) {
        let bytes = embeddings.vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
        (vec![embeddings.norms.len(), embeddings.width], bytes)
    };
    let matrices = [("queries", encode(&evaluation.queries)), ("passages", encode(&evaluation.passages))];
    let views = matrices.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (*name, view.expect("four bytes for each element of the shape"))
    });
    // One entry: safetensors writes several in an order that no two runs share.
    let ids = serde_json::json!({"queries": set.query_ids, "passages": set.passage_ids}).to_string();
    safetensors::serialize(views, Some([("ids".to_owned(), ids)].into())).expect("serialising to memory cannot fail")
}
