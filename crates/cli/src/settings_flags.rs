//! The flags that are settings: one optional field per setting, named as in [`mendel::Settings`].
//!
//! A flag that was not given is absent from the serialised form, so that what lies below it shows through.
//! A command takes the groups that it uses and no others: a flag that would do nothing is an unknown flag.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::RangedU64ValueParser;
use clap::{Arg, Args, Command};
use mendel::attention::{Evolution, FitnessScale};
use mendel::settings::{Loss, LrSchedule, Pooling};
use serde::Serialize;
use serde::de::value::Error as NotOneOf;
use serde::de::{DeserializeOwned, IntoDeserializer};
use toml::{Table, Value};

/// Every setting as a flag.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct SettingsFlags {
    #[command(flatten)]
    #[serde(flatten)]
    data: DataFlags,
    #[command(flatten)]
    #[serde(flatten)]
    text: TextFlags,
    #[command(flatten)]
    #[serde(flatten)]
    training: TrainingFlags,
    #[command(flatten)]
    #[serde(flatten)]
    step: StepFlags,
    #[command(flatten)]
    #[serde(flatten)]
    attention: AttentionFlags,
    #[command(flatten)]
    #[serde(flatten)]
    genetic: GeneticFlags,
    #[command(flatten)]
    #[serde(flatten)]
    machine: MachineFlags,
}

impl SettingsFlags {
    /// The name of every setting, as a flag without its dashes and as a key in a settings file.
    pub fn keys() -> Vec<String> {
        let command = Self::augment_args(Command::new("settings"));
        command.get_arguments().filter_map(Arg::get_long).map(String::from).collect()
    }

    /// The output folder, where a flag names one.
    pub fn output_dir(&self) -> Option<&Path> {
        self.training.output_dir.as_deref()
    }

    /// Whether a flag names the model or the data.
    pub fn name_what_is_trained(&self) -> bool {
        self.training.model.is_some() || self.data.dataset.is_some()
    }
}

/// Which texts are read.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Data")]
#[serde(rename_all = "kebab-case")]
pub struct DataFlags {
    /// `msmarco-v2.1`, `demo`, or a file or folder
    #[arg(long, value_name = "NAME|PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    /// Evaluate at most so many held-out queries, the same ones every time; 0 is all
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_queries: Option<usize>,
    /// Where tokenised datasets are kept; without it `mendel` in the user's folder for caches
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dir: Option<PathBuf>,
    /// The share of malformed rows above which nothing is started
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bad_rows: Option<f64>,
    /// Text put before each query
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    query_prefix: Option<String>,
    /// Text put before each passage
    #[arg(long, value_name = "TEXT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    passage_prefix: Option<String>,
    /// Pairs per optimizer step, and to a batch of the in-batch measures
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
}

/// How a text becomes a vector.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Texts")]
#[serde(rename_all = "kebab-case")]
pub struct TextFlags {
    /// Longest text in tokens, [CLS] and [SEP] included
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_seq_len: Option<usize>,
    /// How token vectors become one: mean, cls or max
    #[arg(long, value_parser = one_of::<Pooling>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pooling: Option<Pooling>,
}

/// What is trained, for how long, and what is written on the way.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Training")]
#[serde(rename_all = "kebab-case")]
pub struct TrainingFlags {
    /// A name on the Hub, a folder in the Transformers layout, or `demo-tiny`
    #[arg(long, value_name = "NAME|PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Keep the model's architecture and tokenizer, draw its weights
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    from_scratch: Option<bool>,
    /// Held-out pairs; without it every tenth query of the dataset is held out
    #[arg(long, value_name = "NAME|PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_dataset: Option<String>,
    /// Peak learning rate of AdamW
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    learning_rate: Option<f64>,
    /// Steps over which the learning rate rises from 0
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup_steps: Option<u64>,
    /// The learning rate after the warm-up: linear, constant or cosine
    #[arg(long, value_name = "SCHEDULE", value_parser = one_of::<LrSchedule>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    lr_schedule: Option<LrSchedule>,
    /// Passes over the training pairs
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u64>,
    /// End after so many steps, even within an epoch
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_steps: Option<u64>,
    /// Decoupled weight decay; biases and norms have none
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    /// Gradients whose global norm is larger are scaled down to it
    #[arg(long, value_name = "NORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_grad_norm: Option<f64>,
    /// Probability of dropping an activation or attention weight; without it, as the model's configuration says
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dropout: Option<f64>,
    /// Similarities are divided by it
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    /// The objective: info-nce, or symmetric (query to passage and back)
    #[arg(long, value_parser = one_of::<Loss>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<Loss>,
    /// Extra passages per query from the dataset's own non-selected ones
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_negatives: Option<usize>,
    /// Decides initial weights, order of the data and every random draw
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Train every arm once with each, with commas between; without them once with --seed
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = of_list::<u64>)]
    #[arg(conflicts_with = "seed")]
    #[serde(skip_serializing_if = "Option::is_none")]
    seeds: Option<Vec<u64>>,
    /// Write a checkpoint every so many steps, and at the end
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    save_steps: Option<u64>,
    /// Evaluate every so many steps, and at the end
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_steps: Option<u64>,
    /// Log every so many steps
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_steps: Option<u64>,
    /// Remove older checkpoints than these
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_checkpoints: Option<usize>,
    /// Where the artefacts go
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dir: Option<PathBuf>,
}

/// How a training step is made.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Training")]
#[serde(rename_all = "kebab-case")]
pub struct StepFlags {
    /// Gradient cache: memory of so many pairs, loss of the whole batch, one more forward pass; 0 is off
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_micro_batch: Option<usize>,
}

/// The attention module, but for its genetic part.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Attention")]
#[serde(rename_all = "kebab-case")]
pub struct AttentionFlags {
    /// What is compared: standard and genetic, either with +qk-norm, or arms that the settings define
    #[arg(long, value_name = "ARM,…", value_delimiter = ',', value_parser = of_list::<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    arms: Option<Vec<String>>,
    /// Query heads; without it as many as the model's configuration says
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    n_heads: Option<usize>,
    /// Grouped-query attention: key and value heads; without it as many as query heads
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    n_kv_heads: Option<usize>,
    /// Latent attention: width the input is projected to before queries, keys and values
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    in_proj_dim: Option<usize>,
    /// RMS norm with a learned gain on each head's queries and keys, in every arm
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    qk_norm: Option<bool>,
    /// Biases in the attention's projections, in every arm
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    attention_bias: Option<bool>,
    /// Each position sees itself and those before it, in every arm
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    causal: Option<bool>,
}

/// The genetic part of the genetic arms.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Genetic attention")]
#[serde(rename_all = "kebab-case")]
pub struct GeneticFlags {
    /// Organisms per sequence and head
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    population_size: Option<usize>,
    /// Generations; 0 is the fixed point
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    num_generations: Option<usize>,
    /// Probability that a gene is replaced by a random token's
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    mutation_rate: Option<f64>,
    /// Probability that a child mixes two parents
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    crossover_rate: Option<f64>,
    /// Exponent of the organism fitness in selection
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    selection_pressure: Option<f64>,
    /// What the modulation averages (unit-mean: 1) or sums to (unit-sum: 1, the published form)
    #[arg(long, value_name = "SCALE", value_parser = one_of::<FitnessScale>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    fitness_scale: Option<FitnessScale>,
    /// The population in training: sampled, or mean-field (infinite)
    #[arg(long, value_parser = one_of::<Evolution>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    evolution: Option<Evolution>,
}

/// Where the work runs.
#[derive(Args, Clone, Debug, Default, Serialize)]
#[command(next_help_heading = "Machine")]
#[serde(rename_all = "kebab-case")]
pub struct MachineFlags {
    /// cpu, cuda, cuda:N, or auto, which is the first GPU that can be used
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// f32, bf16 (mixed), or auto, which is f32 on the CPU and bf16 on a GPU
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<String>,
    /// CPU threads; 0 is all
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>())]
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
}

/// What the flags of `command` that are settings need beyond their definition: the default in the help,
/// taken from `defaults`, and negative numbers read as values, for the settings to refuse by name.
pub fn complete(command: Command, defaults: &Table) -> Command {
    command.mut_args(|arg| match defaults.get(&arg.get_id().as_str().replace('_', "-")) {
        Some(default) => show_default(arg, default).allow_negative_numbers(true),
        None => arg,
    })
}

fn show_default(arg: Arg, default: &Value) -> Arg {
    let shown = match default {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Value::Boolean(_) => return arg,
        other => other.to_string(),
    };
    let Some(help) = arg.get_help().filter(|_| !shown.is_empty()).map(ToString::to_string) else {
        return arg;
    };
    arg.help(format!("{help} [default: {shown}]"))
}

/// The whole numbers that a settings file can hold.
fn whole_number<T: TryFrom<u64> + Clone + Send + Sync + 'static>() -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(0..=i64::MAX as u64)
}

/// A value of a list, whose commas may have spaces after them.
fn of_list<T: FromStr>(value: &str) -> Result<T, T::Err> {
    value.trim().parse()
}

/// The names are serde's, so that a flag and a settings file take the same.
fn one_of<T: DeserializeOwned>(name: &str) -> Result<T, NotOneOf> {
    T::deserialize(name.into_deserializer())
}

#[cfg(test)]
mod tests {
    use mendel::Settings;

    use super::*;

    #[test]
    fn every_setting_is_a_flag_and_every_flag_here_is_a_setting() {
        let full = Settings {
            eval_dataset: Some("held-out.jsonl".into()),
            cache_dir: Some("cache".into()),
            max_steps: Some(1),
            dropout: Some(0.1),
            n_heads: Some(4),
            n_kv_heads: Some(2),
            in_proj_dim: Some(64),
            seeds: vec![1],
            ..Settings::default()
        };
        let mut settings: Vec<String> = Table::try_from(full).unwrap().keys().cloned().collect();
        let mut flags = SettingsFlags::keys();
        settings.sort();
        flags.sort();
        assert_eq!(flags, settings);
    }

    #[test]
    fn flags_that_were_not_given_are_absent() {
        assert!(Table::try_from(SettingsFlags::default()).unwrap().is_empty());
    }

    #[test]
    fn the_help_names_every_choice() {
        fn check<T: DeserializeOwned>(flag: &str) {
            let message = one_of::<T>("").err().map(|error| error.to_string()).unwrap();
            let names: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            assert!(!names.is_empty(), "{message}");
            let command = SettingsFlags::augment_args(Command::new("settings"));
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
            let help = arg.get_help().unwrap().to_string();
            for name in names {
                assert!(help.contains(name), "the help of --{flag} does not name {name}: {help}");
            }
        }
        check::<Pooling>("pooling");
        check::<Loss>("loss");
        check::<LrSchedule>("lr-schedule");
        check::<FitnessScale>("fitness-scale");
        check::<Evolution>("evolution");
    }
}
