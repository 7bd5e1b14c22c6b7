//! The command line: commands, what each takes, and what it gives for the settings.

mod data;
mod saved_model;
mod sweep;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use mendel::bench::Lengths;
use mendel::train::Resume;
use mendel::{Arm, Settings};
use serde::Serialize;
use toml::Table;

pub use data::{DataCommand, FetchArguments, InspectArguments, MineArguments};
pub use saved_model::{EmbedArguments, EmbeddingsFormat, EvalArguments, Side, Task};
pub use sweep::{SweepArguments, SweepPlan};

use crate::failure::WrongUsage;
use crate::nearest::nearest;
use crate::settings_flags::{self, AttentionFlags, GeneticFlags, MachineFlags, SettingsFlags, StepFlags};
use crate::settings_layers::Layers;

/// What the help ends with.
const EXAMPLES: &str = "\
Examples:
  mendel compare --preset demo                        Built-in data and model, about a minute
  mendel eval artefacts/models/genetic-seed42 --dataset demo";

/// Train BERT dual encoders for text retrieval, with standard and with genetic attention, and compare them.
#[derive(Parser, Debug)]
#[command(name = "mendel", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub talk: Talk,
    #[command(subcommand)]
    pub command: Command,
}

/// Puts the flags that every command has below its own in the help.
const LAST: usize = 900;

/// How much is told on the way.
#[derive(Args, Clone, Copy, Debug)]
pub struct Talk {
    /// Log what is done and show every cause of an error; twice for details
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = LAST)]
    pub verbose: u8,
    /// Tell nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = LAST)]
    pub quiet: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Train every arm on the same data in the same order, evaluate them, show the differences
    Compare(Box<TrainingArguments>),
    /// Train one arm
    Train(Box<TrainingArguments>),
    /// Evaluate a saved model: held-out pairs, sentence similarity, a collection as of BEIR
    Eval(EvalArguments),
    /// Turn texts into embeddings with a saved model
    Embed(EmbedArguments),
    /// Fetch, inspect and write datasets, and mine hard negatives
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure a training step: throughput, memory, share of the machine's arithmetic used
    Bench(BenchArguments),
    /// Check that the device computes what the CPU does: every operation, evolution, training
    Selftest(SelftestArguments),
    /// The same job with many values of some settings
    Sweep(SweepArguments),
    /// Make the report of a comparison again, from its output folder
    Report(ReportArguments),
    /// Show devices, CPU features, versions, and what `auto` would choose
    Info(InfoArguments),
}

/// What `compare` and `train` take. In `train` the arms are one, and the flag is `--attention`.
#[derive(Args, Debug)]
pub struct TrainingArguments {
    #[command(flatten)]
    layers: Layers,
    /// Go on from the newest complete checkpoint, or from the one named, with the settings that the output folder has
    /// where nothing names a preset, settings file, model or dataset
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    pub resume: Option<Option<PathBuf>>,
    /// Remove what a run of other settings has left in the output folder
    #[arg(long, conflicts_with_all = ["resume", "dry_run"])]
    pub overwrite: bool,
    /// Load everything, run one step and one evaluation batch of every arm, write nothing
    #[arg(long, conflicts_with_all = ["resume", "json"])]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the settings in force as TOML, for --config, and do nothing else
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    flags: SettingsFlags,
}

impl TrainingArguments {
    /// The settings in force for a comparison.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let settings = self.resolve(Table::new())?;
        settings.validate()?;
        Ok(settings)
    }

    fn resolve(&self, base: Table) -> anyhow::Result<Settings> {
        match self.resume {
            Some(_) => self.layers.resolve_resumed(base, &self.flags),
            None => self.layers.resolve(base, &self.flags),
        }
    }

    /// Where the run begins.
    pub fn resume(&self) -> Resume {
        match &self.resume {
            None if self.overwrite => Resume::Overwrite,
            None => Resume::No,
            Some(None) => Resume::Newest,
            Some(Some(path)) => Resume::From(path.clone()),
        }
    }

    /// The settings in force for training one arm.
    pub fn settings_of_one_arm(&self) -> anyhow::Result<Settings> {
        let settings = self.resolve(one_arm())?;
        settings.validate()?;
        if settings.arms.len() > 1 {
            let arms = settings.arms.iter().map(Arm::to_string).collect::<Vec<_>>().join(", ");
            let message = format!("train trains one arm and the settings name {arms}: choose one with --attention");
            return Err(WrongUsage::new(message).into());
        }
        Ok(settings)
    }
}

/// What `train` trains where nothing says otherwise.
fn one_arm() -> Table {
    Table::from_iter([("arms".to_owned(), vec!["standard"].into())])
}

/// What `bench` takes.
#[derive(Args, Debug)]
pub struct BenchArguments {
    /// The model whose layers are measured, with drawn weights
    #[arg(long, value_enum, default_value_t = Shape::Minilm)]
    pub shape: Shape,
    /// Pairs per step
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..))]
    pub pairs: u32,
    /// Lengths of the texts in tokens: msmarco, as long as its queries and passages, or one length of 3 to 512 for all
    #[arg(long, value_name = "LENGTHS", default_value = "msmarco")]
    pub lengths: Lengths,
    /// Steps measured, after those that warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Measure the machine instead: matrix peak and memory bandwidth
    #[arg(long)]
    pub limits: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    flags: BenchFlags,
}

#[derive(Args, Debug, Serialize)]
struct BenchFlags {
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

impl BenchArguments {
    /// The settings in force.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let settings = Layers::default().resolve(Table::new(), &self.flags)?;
        settings.validate_values()?;
        Ok(settings)
    }
}

/// The layers that `bench` measures.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 6 layers of 384, 12 heads
    Minilm,
    /// 12 layers of 768, 12 heads
    BertBase,
    /// The built-in model
    DemoTiny,
}

/// What `selftest` takes.
#[derive(Args, Debug)]
pub struct SelftestArguments {
    /// Steps that are trained of each arm
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub steps: u64,
    /// Make only the checks that have this in their names, such as attention; can be given several times
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    #[command(flatten)]
    flags: MachineFlags,
}

impl SelftestArguments {
    /// The settings in force.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let settings = Layers::default().resolve(Table::new(), &self.flags)?;
        settings.validate_values()?;
        Ok(settings)
    }
}

/// What `report` takes.
#[derive(Args, Debug)]
pub struct ReportArguments {
    /// The output folder of a comparison
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// What `info` takes.
#[derive(Args, Debug)]
pub struct InfoArguments {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// Also for `--help` and `--version`, whose text is the error's.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
        let line: Vec<OsString> = line.into_iter().collect();
        let matches = command_line().try_get_matches_from(&line).map_err(|error| with_what_was_meant(error, &line))?;
        Arguments::from_arg_matches(&matches)
    }
}

/// Flags that other programs, or other commands of this one, know a setting by.
const OTHER_NAMES: [(&str, &str); 4] =
    [("arms", "attention"), ("attention", "arms"), ("lr", "learning-rate"), ("steps", "max-steps")];

/// The error of an unknown flag with what was meant in the place of clap's suggestion, which may be far off.
fn with_what_was_meant(mut error: clap::Error, line: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let all = command_line();
    let words = line.iter().filter_map(|word| word.to_str());
    let command = words.fold(&all, |command, word| command.find_subcommand(word).unwrap_or(command));
    if error.kind() != ErrorKind::UnknownArgument || command.get_name() == all.get_name() {
        return error;
    }
    let name = flag.trim_start_matches('-');
    let known: Vec<&str> = command.get_arguments().chain(all.get_arguments()).filter_map(Arg::get_long).collect();
    let other = OTHER_NAMES.into_iter().find(|(other, flag)| *other == name && known.contains(flag));
    match other.map(|(_, flag)| flag).or_else(|| nearest(name, known.iter().copied())) {
        Some(meant) => error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{meant}"))),
        None => error.remove(ContextKind::SuggestedArg),
    };
    error
}

/// The derived command line with the defaults in the help, and `train`'s arms as `--attention`.
fn command_line() -> clap::Command {
    let defaults = Table::try_from(Settings::default()).unwrap_or_default();
    let mut defaults_of_one_arm = defaults.clone();
    defaults_of_one_arm.extend(one_arm());
    Arguments::command()
        .mut_subcommand("train", |train| {
            train.mut_arg("arms", |arms| {
                arms.long("attention")
                    .value_name("ARM")
                    .help("What is trained: standard or genetic, either with +qk-norm")
                    .action(ArgAction::Set)
                    .value_delimiter(None)
            })
        })
        .mut_subcommands(|command| {
            let one_arm = command.get_name() == "train";
            settings_flags::complete(command, if one_arm { &defaults_of_one_arm } else { &defaults })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::read(line.split(' ').map(OsString::from))
    }

    fn training(line: &str) -> Box<TrainingArguments> {
        match read(line).unwrap().command {
            Command::Compare(arguments) | Command::Train(arguments) => arguments,
            other => panic!("not a training command: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command_line().debug_assert();
    }

    #[test]
    fn compare_takes_a_list_of_arms() {
        let settings = training("mendel compare --arms genetic,standard+qk-norm").settings().unwrap();
        assert_eq!(settings.arms, [Arm::genetic(), "standard+qk-norm".parse().unwrap()]);
    }

    #[test]
    fn train_takes_one_arm_and_calls_it_attention() {
        let settings = training("mendel train --attention genetic").settings_of_one_arm().unwrap();
        assert_eq!(settings.arms, [Arm::genetic()]);
        assert!(read("mendel train --arms genetic").is_err());
        assert!(training("mendel train --attention standard,genetic").settings_of_one_arm().is_err());
        assert!(read("mendel compare --attention genetic").is_err());
    }

    #[test]
    fn train_without_an_arm_trains_the_standard_one() {
        assert_eq!(training("mendel train").settings_of_one_arm().unwrap().arms, [Arm::standard()]);
    }

    #[test]
    fn resume_has_a_value_or_none() {
        assert_eq!(training("mendel train").resume, None);
        assert_eq!(training("mendel train --resume").resume, Some(None));
        assert_eq!(training("mendel train --resume --json").resume, Some(None));
        assert_eq!(training("mendel train --resume step-000500").resume, Some(Some("step-000500".into())));
    }

    #[test]
    fn a_switch_can_be_turned_off_again() {
        assert!(training("mendel compare --qk-norm").settings().unwrap().qk_norm);
        assert!(!training("mendel compare --qk-norm=false").settings().unwrap().qk_norm);
    }

    #[test]
    fn a_saved_model_is_named_in_one_place() {
        // A folder that is there: any other would be looked for on the Hub.
        for line in ["mendel eval src", "mendel eval --model src"] {
            let Command::Eval(arguments) = read(line).unwrap().command else { panic!("not eval") };
            assert_eq!(arguments.settings(&mut mendel::progress::Silent).unwrap().model, "src");
        }
        assert!(read("mendel eval").is_err());
        assert!(read("mendel eval saved --model saved").is_err());
    }

    #[test]
    fn a_command_refuses_flags_that_would_do_nothing() {
        assert!(read("mendel eval saved --learning-rate 1").is_err());
        assert!(read("mendel embed - --model saved --output x.npy --epochs 2").is_err());
        assert!(read("mendel bench --dataset demo").is_err());
    }
}
