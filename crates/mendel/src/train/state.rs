//! What a checkpoint holds, and whether it is of the run that resumes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mendel_engine::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{Checkpoint, CheckpointStore, Content, Saved};
use super::error::TrainError;
use super::trainer::Trainer;
use crate::arm::Arm;
use crate::bert::{tensors_from_bytes, tensors_to_bytes};
use crate::settings::Settings;

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const FIRST: &str = "first.";
const SECOND: &str = "second.";

/// Settings that do not change what a run computes, and may differ when it resumes.
const FREE: [&str; 10] = [
    "arms",
    "cache-dir",
    "device",
    "keep-checkpoints",
    "log-steps",
    "max-bad-rows",
    "output-dir",
    "save-steps",
    "seeds",
    "threads",
];

/// Those of them that say which runs there are.
const WHICH_RUNS: [&str; 2] = ["arms", "seeds"];

/// The name of the arm among the settings that a checkpoint is of.
const ARM: &str = "arm";
/// Whether that arm has the genetic part.
const GENETIC: &str = "genetic";
const SEED: &str = "seed";

/// The settings by name, but for paths, which need not be text.
fn fields(settings: &Settings) -> Map<String, Value> {
    let plain = Settings { output_dir: Default::default(), cache_dir: None, ..settings.clone() };
    match serde_json::to_value(plain) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("settings without a path are plain data"),
    }
}

/// How the settings of two runs differ in what decides their results.
pub fn settings_that_differ(then: &Settings, now: &Settings) -> Vec<String> {
    let [then, now] = [then, now].map(|settings| {
        let mut fields = fields(settings);
        fields.retain(|name, _| WHICH_RUNS.contains(&name.as_str()) || !FREE.contains(&name.as_str()));
        fields
    });
    differences(&then, &now)
}

/// The settings that a resumed run must share.
fn binding(settings: &Settings, arm: &Arm) -> Map<String, Value> {
    let mut fields = fields(&arm.applied_to(settings));
    fields.retain(|name, _| !FREE.contains(&name.as_str()));
    fields.insert(ARM.into(), arm.name.clone().into());
    fields.insert(GENETIC.into(), arm.genetic.into());
    fields
}

/// The part of a run that is neither weights nor optimizer moments. The position in the data and the random numbers
/// follow from the step and the seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Training time so far, in seconds.
    pub seconds: f64,
    /// Training time of each epoch, the current one included.
    pub epoch_seconds: Vec<f64>,
    /// Tokens seen.
    pub tokens: u64,
    /// Losses of the steps that the final loss is the mean of, as far as they are done.
    pub final_losses: Vec<f64>,
    /// The best MRR@10 of an evaluation so far, and its step.
    pub best: Option<(f64, u64)>,
    /// Largest memory of the process so far, in bytes.
    pub peak_memory: u64,
}

/// What the data of a run is recognised by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// SHA-256 of the training pairs.
    pub training: String,
    /// SHA-256 of what is evaluated.
    pub evaluation: String,
}

/// What decides a run's numbers: two runs of the same identity compute the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    settings: Map<String, Value>,
    data: Fingerprints,
}

/// What a checkpoint says of itself.
#[derive(Serialize, Deserialize)]
pub struct State {
    progress: Progress,
    optimizer_step: u64,
    #[serde(flatten)]
    identity: Identity,
}

/// Writes a checkpoint.
pub fn save(
    store: &CheckpointStore,
    trainer: &Trainer,
    progress: &Progress,
    settings: &Settings,
    arm: &Arm,
    data: &Fingerprints,
) -> Result<Saved, TrainError> {
    let parameters = trainer.encoder.bert.parameters();
    let weights = || parameters.iter().map(|(_, name, tensor)| (name.to_owned(), tensor));
    let moments = || {
        let both = [(FIRST, &trainer.moments.first), (SECOND, &trainer.moments.second)];
        both.into_iter().flat_map(|(prefix, tensors)| {
            parameters.iter().zip(tensors).map(move |((_, name, _), tensor)| (format!("{prefix}{name}"), tensor))
        })
    };
    let state = State {
        progress: progress.clone(),
        optimizer_step: trainer.moments.step,
        identity: Identity::new(settings, arm, data),
    };
    let state = serde_json::to_vec_pretty(&state).expect("a state is plain data");
    // Encoded one file after the other, so that no two copies are held.
    let contents = [
        (WEIGHTS, Content::Writer(&|file| file.write_all(&tensors_to_bytes(weights())))),
        (OPTIMIZER, Content::Writer(&|file| file.write_all(&tensors_to_bytes(moments())))),
        (STATE, Content::Bytes(&state)),
    ];
    Ok(store.save(progress.step, &contents)?)
}

impl State {
    /// Of a checkpoint.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let unreadable = |error: serde_json::Error| unreadable(checkpoint, error.to_string());
        serde_json::from_slice(&checkpoint.read(STATE)?).map_err(unreadable)
    }

    /// Whether it is of this arm and the settings' seed.
    pub fn is_of(&self, arm: &Arm, settings: &Settings) -> bool {
        let own = &self.identity.settings;
        own.get(ARM) == Some(&arm.name.clone().into()) && own.get(SEED) == Some(&settings.seed.into())
    }

    /// Refuses a checkpoint whose arm, settings or data are not those of the run that resumes.
    pub fn check(&self, checkpoint: &Checkpoint, now: &Identity) -> Result<(), TrainError> {
        self.identity.check(checkpoint.path(), now)
    }
}

impl Identity {
    /// Of an arm's run with the settings' seed.
    pub fn new(settings: &Settings, arm: &Arm, data: &Fingerprints) -> Self {
        Identity { settings: binding(settings, arm), data: data.clone() }
    }

    /// Whether both are of the same data.
    pub fn same_data(&self, other: &Identity) -> bool {
        self.data == other.data
    }

    /// Refuses what another run has left at `path`.
    pub fn check(&self, path: &Path, now: &Identity) -> Result<(), TrainError> {
        let other = |what, differences| Err(TrainError::OtherRun { path: path.into(), what, differences });
        let differences = differences(&self.settings, &now.settings);
        if !differences.is_empty() {
            return other("settings", differences);
        }
        let parts = [
            ("training", &self.data.training, &now.data.training),
            ("evaluation", &self.data.evaluation, &now.data.evaluation),
        ];
        let differ = parts.into_iter().filter(|(_, then, now)| then != now);
        let differences: Vec<String> =
            differ.map(|(what, then, now)| format!("SHA-256 of the {what} data was {then} and is {now}")).collect();
        if differences.is_empty() { Ok(()) } else { other("data", differences) }
    }
}

fn unreadable(checkpoint: &Checkpoint, reason: String) -> TrainError {
    TrainError::State { path: checkpoint.path().into(), reason }
}

/// Brings a trainer to where a checkpoint was written.
pub fn restore(checkpoint: &Checkpoint, trainer: &mut Trainer) -> Result<Progress, TrainError> {
    let state = State::read(checkpoint)?;
    let device = trainer.encoder.bert.device().clone();
    let read = |name: &str| tensors(checkpoint, name, &device);
    let (mut weights, mut moments) = (read(WEIGHTS)?, read(OPTIMIZER)?);
    let parameters = trainer.encoder.bert.parameters_mut();
    let ids: Vec<_> = parameters.iter().map(|(id, name, _)| (id, name.to_owned())).collect();
    for (place, (id, name)) in ids.into_iter().enumerate() {
        let shape = parameters.get(id).shape().to_vec();
        let take = |from: &mut BTreeMap<String, Tensor>, name: &str| match from.remove(name) {
            Some(tensor) if tensor.shape() == shape => Ok(tensor),
            _ => Err(unreadable(checkpoint, format!("it has no tensor {name} {shape:?}"))),
        };
        *parameters.get_mut(id) = take(&mut weights, &name)?;
        trainer.moments.first[place] = take(&mut moments, &format!("{FIRST}{name}"))?;
        trainer.moments.second[place] = take(&mut moments, &format!("{SECOND}{name}"))?;
    }
    trainer.moments.step = state.optimizer_step;
    Ok(state.progress)
}

fn tensors(checkpoint: &Checkpoint, name: &str, device: &Device) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let file = checkpoint.path().join(name).display().to_string();
    Ok(tensors_from_bytes(&file, &checkpoint.read(name)?, device, |_| true)?)
}

/// The settings that differ.
fn differences(then: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let shown = |fields: &Map<String, Value>, name: &str| fields.get(name).map_or("unset".to_owned(), Value::to_string);
    let differ = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    differ.map(|name| format!("{name} was {} and is {}", shown(then, name), shown(now, name))).collect()
}
