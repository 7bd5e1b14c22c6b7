//! Every setting that decides a run, with its default: one definition for library, file and command line.

mod validate;

use std::path::PathBuf;

use mendel_engine::{Device, Precision};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::arm::Arm;
use crate::attention::Genetic;
use crate::data::DataError;

pub use validate::InvalidSetting;

/// How token vectors become one vector for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean over the text's tokens.
    #[default]
    Mean,
    /// The first token's vector.
    Cls,
    /// The largest value of each feature over the text's tokens.
    Max,
}

/// The training objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Query to passage.
    #[default]
    InfoNce,
    /// The mean of query to passage and passage to query.
    Symmetric,
}

/// The course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Straight down to 0 at the last step.
    #[default]
    Linear,
    /// No decay.
    Constant,
    /// Half a cosine down to 0 at the last step.
    Cosine,
}

/// The settings in force for a run. `config.toml` in the artefacts is this, serialised.
///
/// Keys that are no setting are left to the reader of a file to refuse: serde does not support refusing
/// them beside a flattened part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// A name on the Hub, a folder in the Transformers layout, or `demo-tiny`.
    pub model: String,
    /// Keep the model's architecture and tokenizer, draw its weights.
    pub from_scratch: bool,
    /// `msmarco-v2.1`, `demo`, or a file or folder of training pairs.
    pub dataset: String,
    /// Held-out pairs; without it every tenth query of `dataset` is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_dataset: Option<String>,
    /// At most so many held-out queries are evaluated, those whose hashes are least; 0 is all.
    pub eval_queries: usize,
    /// The share of malformed rows above which the run refuses to start.
    pub max_bad_rows: f64,
    /// Longest text in tokens, `[CLS]` and `[SEP]` included.
    pub max_seq_len: usize,
    /// Pairs per optimizer step.
    pub batch_size: usize,
    /// The gradient cache: activations of so many pairs are held at once, while the loss stays that of the whole
    /// batch; 0 is all pairs at once.
    pub loss_micro_batch: usize,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: u64,
    /// The course after the warm-up.
    pub lr_schedule: LrSchedule,
    /// Passes over the training pairs.
    pub epochs: u64,
    /// Ends training early, and is then the schedule's last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Decoupled weight decay; biases and norms have none.
    pub weight_decay: f64,
    /// Gradients whose global norm is larger are scaled down to it.
    pub max_grad_norm: f64,
    /// Probability of dropping an activation or attention weight; without it, as the model's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Similarities are divided by it.
    pub temperature: f64,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// The objective.
    pub loss: Loss,
    /// Text put before each query.
    pub query_prefix: String,
    /// Text put before each passage.
    pub passage_prefix: String,
    /// Extra passages per query from the dataset's own non-selected ones.
    pub hard_negatives: usize,
    /// A checkpoint is written every so many steps, and at the end.
    pub save_steps: u64,
    /// An evaluation runs every so many steps, and at the end.
    pub eval_steps: u64,
    /// A line of history every so many steps.
    pub log_steps: u64,
    /// Older checkpoints are removed.
    pub keep_checkpoints: usize,
    /// What is trained: names, or tables of a name and what the arm changes.
    pub arms: Vec<Arm>,
    /// The genetic part of the genetic arms.
    #[serde(flatten)]
    pub genetic: Genetic,
    /// Query heads; without it as many as the model's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_heads: Option<usize>,
    /// Grouped-query attention: key and value heads; without it as many as query heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Latent attention: width the input is projected to before queries, keys and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_proj_dim: Option<usize>,
    /// RMS norm with a learned gain on each head's queries and keys, in every arm.
    pub qk_norm: bool,
    /// Biases in the attention's projections, in every arm.
    pub attention_bias: bool,
    /// Each position sees itself and those before it, in every arm.
    pub causal: bool,
    /// Decides initial weights, order of the data and every random draw.
    pub seed: u64,
    /// Every arm is trained once with each; without them once with `seed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
    /// `cpu`, `cuda`, `cuda:N`, or `auto`, which is the first GPU where there is one that can be used.
    pub device: String,
    /// `f32`, `bf16` (mixed: products of bf16 in linear maps and attention), or `auto`: `f32` on the CPU and `bf16` on
    /// a GPU.
    pub precision: String,
    /// CPU threads; 0 is all.
    pub threads: usize,
    /// Where the artefacts go.
    pub output_dir: PathBuf,
    /// Where tokenised datasets are kept; without it `mendel` in the user's folder for caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
}

/// The number in `cuda` or `cuda:N`.
fn gpu_number(device: &str) -> Option<usize> {
    match device.strip_prefix("cuda")? {
        "" => Some(0),
        number => number.strip_prefix(':')?.parse().ok(),
    }
}

impl Settings {
    /// The device that the work runs on, in the precision of its products: what `auto` stands for is decided here.
    ///
    /// # Errors
    /// Where a GPU is asked for that is not there, or a library that it needs.
    pub fn device(&self) -> mendel_engine::Result<Device> {
        let cpu = || Device::cpu_with(self.precision_or(Precision::F32));
        let gpu = |number| Device::cuda(number, self.precision_or(Precision::Bf16));
        match self.device.as_str() {
            "cpu" => Ok(cpu()),
            "auto" => Ok(gpu(0).unwrap_or_else(|error| {
                info!(%error, "no GPU is used");
                cpu()
            })),
            named => Ok(gpu(gpu_number(named).unwrap_or_default())?),
        }
    }

    fn precision_or(&self, auto: Precision) -> Precision {
        match self.precision.as_str() {
            "f32" => Precision::F32,
            "bf16" => Precision::Bf16,
            _ => auto,
        }
    }

    /// The settings of each seed's runs.
    pub fn of_each_seed(&self) -> Vec<Settings> {
        let seeds = if self.seeds.is_empty() { vec![self.seed] } else { self.seeds.clone() };
        seeds.into_iter().map(|seed| Settings { seed, ..self.clone() }).collect()
    }

    /// The folder that tokenised datasets are kept in.
    ///
    /// # Errors
    /// Where none is named and the user has no home.
    pub fn token_folder(&self) -> Result<PathBuf, DataError> {
        let own = || dirs::cache_dir().map(|caches| caches.join("mendel"));
        Ok(self.cache_dir.clone().or_else(own).ok_or(DataError::NoCache)?.join("tokens"))
    }

    /// The text of `config.toml`: reading it back gives these settings, bit for bit.
    ///
    /// # Errors
    /// A path that is not UTF-8 and a whole number above 2^63 - 1 cannot be written.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: "bert-base-uncased".into(),
            from_scratch: false,
            dataset: "msmarco-v2.1".into(),
            eval_dataset: None,
            eval_queries: 5000,
            max_bad_rows: 0.01,
            max_seq_len: 512,
            batch_size: 8,
            loss_micro_batch: 0,
            learning_rate: 2e-5,
            warmup_steps: 100,
            lr_schedule: LrSchedule::Linear,
            epochs: 1,
            max_steps: None,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            dropout: None,
            temperature: 0.05,
            pooling: Pooling::Mean,
            loss: Loss::InfoNce,
            query_prefix: String::new(),
            passage_prefix: String::new(),
            hard_negatives: 0,
            save_steps: 500,
            eval_steps: 500,
            log_steps: 10,
            keep_checkpoints: 3,
            arms: vec![Arm::standard(), Arm::genetic()],
            genetic: Genetic::default(),
            n_heads: None,
            n_kv_heads: None,
            in_proj_dim: None,
            qk_norm: false,
            attention_bias: true,
            causal: false,
            seed: 42,
            seeds: Vec::new(),
            device: "auto".into(),
            precision: "auto".into(),
            threads: 0,
            output_dir: "artefacts".into(),
            cache_dir: None,
        }
    }
}
