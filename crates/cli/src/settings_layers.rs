//! Defaults < preset < settings file < flags.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use mendel::{Arm, Settings, presets};
use serde::Serialize;
use toml::{Table, Value};

use crate::failure::WrongUsage;
use crate::nearest::nearest;
use crate::settings_flags::SettingsFlags;

/// What a run leaves of its settings in its output folder.
const LEFT_BY_A_RUN: &str = "config.toml";

/// What a sweep's file has beside settings.
const SWEPT: [&str; 2] = ["grid", "random"];

/// The layers between the defaults and the flags.
#[derive(Args, Clone, Debug, Default)]
pub struct Layers {
    /// A named set of settings: demo or msmarco or pikaia
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// A file of settings, such as the config.toml of an earlier run
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

impl Layers {
    /// The settings in force: `flags` over the file over the preset over `base` over the defaults. `base` is
    /// what a command does differently.
    ///
    /// # Errors
    /// [`WrongUsage`], for a preset that does not exist and a file that is not one of settings. Whether the
    /// values are possible is not looked at.
    pub fn resolve(&self, base: Table, flags: &impl Serialize) -> anyhow::Result<Settings> {
        let mut settings = base;
        if let Some(name) = &self.preset {
            settings.extend(preset(name)?);
        }
        if let Some(path) = &self.config {
            settings.extend(read(path)?);
        }
        let mut flags = Table::try_from(flags)
            .map_err(|error| WrongUsage::new(format!("a flag's value cannot be kept as a setting: {error}")))?;
        if let Some(Value::Array(arms)) = flags.get_mut("arms") {
            choose_arms(arms, settings.get("arms"))?;
        }
        settings.extend(flags);
        settings.try_into().context("the settings do not fit together")
    }

    /// The settings in force for a run that goes on: where neither layers nor flags say what is trained, those that the
    /// earlier run left in its output folder are the file, so that `--resume --output-dir FOLDER` is enough.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_resumed(&self, base: Table, flags: &SettingsFlags) -> anyhow::Result<Settings> {
        let folder = flags.output_dir().map_or_else(|| Settings::default().output_dir, Path::to_path_buf);
        let file = folder.join(LEFT_BY_A_RUN);
        if self.preset.is_some() || self.config.is_some() || flags.name_what_is_trained() || !file.is_file() {
            return self.resolve(base, flags);
        }
        let settings = Layers { preset: None, config: Some(file) }.resolve(base, flags)?;
        // The folder may have been moved since.
        Ok(Settings { output_dir: folder, ..settings })
    }
}

/// The arms that flags name: those that the layers below define under these names, else the built-in ones.
fn choose_arms(chosen: &mut [Value], defined: Option<&Value>) -> Result<(), WrongUsage> {
    let defined = defined.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for arm in chosen {
        let of_that_name = |table: &&Value| table.get("name") == Some(&*arm);
        if let Some(table) = defined.iter().find(of_that_name) {
            *arm = table.clone();
        } else if let Err(unknown) = arm.as_str().unwrap_or_default().parse::<Arm>() {
            return Err(WrongUsage::new(unknown.to_string()));
        }
    }
    Ok(())
}

fn preset(name: &str) -> Result<Table, WrongUsage> {
    presets::preset(name).ok_or_else(|| {
        let names = presets::NAMES.join(", ");
        WrongUsage::new(format!("no preset '{name}'{}; there are {names}", suggestion(name, presets::NAMES)))
    })
}

/// A sweep's file: its settings over those of its preset, and what is swept.
pub fn sweep_file(path: &Path) -> Result<(Table, Table), WrongUsage> {
    let mut table = parse(path)?;
    let mut space = Table::new();
    for part in SWEPT {
        space.extend(table.remove(part).map(|values| (part.to_owned(), values)));
    }
    let mut base = match table.remove("preset") {
        Some(name) => preset(name.as_str().unwrap_or_default())?,
        None => Table::new(),
    };
    check(path, &table)?;
    base.extend(table);
    base.entry("arms").or_insert_with(|| vec!["genetic"].into());
    Ok((base, space))
}

/// Refuses a point's values that are no settings or of another type, with the file's name.
pub fn check_point(path: &Path, point: &Table) -> Result<(), WrongUsage> {
    check(path, point)
}

fn read(path: &Path) -> Result<Table, WrongUsage> {
    let table = parse(path)?;
    if let Some(part) = SWEPT.into_iter().find(|part| table.contains_key(*part)) {
        let file = path.display();
        return Err(WrongUsage::new(format!(
            "{file} has a [{part}], as a sweep's file has: mendel sweep --config {file}"
        )));
    }
    check(path, &table)?;
    Ok(table)
}

fn parse(path: &Path) -> Result<Table, WrongUsage> {
    let file = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| WrongUsage::new(format!("cannot read the settings file {file}: {error}")))?;
    toml::from_str(&text).map_err(|error| {
        let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
        WrongUsage::new(format!("{file}:{line}:{column}: {}", error.message()))
    })
}

fn check(path: &Path, table: &Table) -> Result<(), WrongUsage> {
    let file = path.display();
    let known = SettingsFlags::keys();
    for (key, value) in table {
        if !known.contains(key) {
            let suggestion = suggestion(key, known.iter().map(String::as_str));
            return Err(WrongUsage::new(format!("{file}: no setting is called '{key}'{suggestion}")));
        }
        check_type(key, value).map_err(|reason| WrongUsage::new(format!("{file}: {key}: {reason}")))?;
    }
    Ok(())
}

/// Each key is read alone, because serde forgets the key's name on the way through a flattened part.
fn check_type(key: &str, value: &Value) -> Result<(), String> {
    let alone = Table::from_iter([(key.to_owned(), value.clone())]);
    match alone.try_into::<Settings>() {
        Ok(_) => Ok(()),
        Err(error) => Err(in_words(error.message())),
    }
}

/// serde's message with the types of Rust named as a reader of TOML would.
fn in_words(message: &str) -> String {
    let whole = "a whole number of 0 or more";
    [("usize", whole), ("u64", whole), ("f64", "a number"), ("a sequence", "a list")]
        .into_iter()
        .find_map(|(rust, words)| message.strip_suffix(rust).map(|start| format!("{start}{words}")))
        .unwrap_or_else(|| message.into())
}

/// Line and column of a byte, both from 1.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
    (line, column)
}

/// " (the nearest is '…')", where a known name is near.
fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |nearest| format!(" (the nearest is '{nearest}')"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::FromArgMatches;
    use mendel::attention::{Evolution, FitnessScale};
    use mendel::settings::{Loss, LrSchedule, Pooling};
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn from_file(text: &str) -> anyhow::Result<Settings> {
        let file = file(text);
        let layers = Layers { preset: None, config: Some(file.path().into()) };
        layers.resolve(Table::new(), &SettingsFlags::default())
    }

    #[test]
    fn each_layer_covers_the_one_below() {
        let file = file("batch-size = 16\nepochs = 3\n");
        let layers = Layers { preset: Some("demo".into()), config: Some(file.path().into()) };
        let base = toml::toml! { model = "base" temperature = 0.5 };
        let settings = layers.resolve(base, &toml::toml! { epochs = 4 }).unwrap();
        assert_eq!(settings.temperature, 0.5);
        assert_eq!(settings.model, "demo-tiny");
        assert_eq!(settings.batch_size, 16);
        assert_eq!(settings.epochs, 4);
        assert_eq!(settings.weight_decay, Settings::default().weight_decay);
    }

    #[test]
    fn a_run_that_goes_on_has_the_settings_that_it_left_unless_something_says_what_is_trained() {
        let folder = tempfile::tempdir().unwrap();
        let left = Settings { batch_size: 16, epochs: 3, output_dir: "moved".into(), ..Settings::default() };
        std::fs::write(folder.path().join(LEFT_BY_A_RUN), left.to_toml().unwrap()).unwrap();
        let resumed = |layers: Layers, more: &[&str]| {
            let command = SettingsFlags::augment_args(clap::Command::new("mendel"));
            let line = ["mendel", "--output-dir", folder.path().to_str().unwrap(), "--epochs", "4"];
            let matches = command.get_matches_from([line.as_slice(), more].concat());
            layers.resolve_resumed(Table::new(), &SettingsFlags::from_arg_matches(&matches).unwrap()).unwrap()
        };
        let expected = Settings { epochs: 4, output_dir: folder.path().into(), ..left };
        assert_eq!(resumed(Layers::default(), &[]), expected);
        let preset = Layers { preset: Some("msmarco".into()), config: None };
        let own = Settings { batch_size: Settings::default().batch_size, ..expected };
        assert_eq!(resumed(preset, &[]), own);
        assert_eq!(resumed(Layers::default(), &["--dataset", "msmarco-v2.1"]), own);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_what_it_could_be() {
        for (text, expected) in [
            ("batch-size = \"8\"", "batch-size: invalid type: string \"8\", expected a whole number of 0 or more"),
            ("batch-size = -1", "batch-size: invalid value: integer `-1`, expected a whole number of 0 or more"),
            ("mutation-rate = true", "mutation-rate: invalid type: boolean `true`, expected a number"),
            ("population-size = 1.5", "expected a whole number of 0 or more"),
            ("pooling = \"men\"", "pooling: unknown variant `men`, expected one of `mean`, `cls`, `max`"),
            ("arms = \"standard\"", "arms: invalid type: string \"standard\", expected a list"),
            ("arms = [\"genetics\"]", "arms: unknown arm 'genetics'"),
            ("qk-norm = \"yes\"", "qk-norm: invalid type: string \"yes\", expected a boolean"),
        ] {
            let error = from_file(text).unwrap_err();
            assert!(error.is::<WrongUsage>());
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_whole_number_is_a_number() {
        assert_eq!(from_file("mutation-rate = 1\ndropout = 0").unwrap().genetic.mutation_rate, 1.0);
    }

    #[test]
    fn text_that_is_not_toml_is_named_with_its_place() {
        let error = from_file("epochs = 1\nbatch-size 8\n").unwrap_err().to_string();
        assert!(error.contains(":2:"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    fn names() -> impl Strategy<Value = String> {
        // Quotes, escapes and other scripts are what could be lost on the way through a file.
        "[a-zA-Z0-9 \"'\\\\\n\t#=äß日-]{0,12}"
    }

    fn rates() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64, 1e-12..1e-3f64]
    }

    fn counts() -> impl Strategy<Value = u64> {
        prop_oneof![0..100u64, 0..=i64::MAX as u64]
    }

    prop_compose! {
        fn trainings()(
            numbers in prop::array::uniform6(rates()),
            counts in prop::array::uniform6(counts()),
            max_steps in prop::option::of(counts()),
            dropout in prop::option::of(rates()),
            names in prop::array::uniform5(names()),
            eval_dataset in prop::option::of(names()),
            pooling in prop::sample::select(vec![Pooling::Mean, Pooling::Cls, Pooling::Max]),
            loss in prop::sample::select(vec![Loss::InfoNce, Loss::Symmetric]),
            lr_schedule in prop::sample::select(vec![LrSchedule::Linear, LrSchedule::Constant, LrSchedule::Cosine]),
        ) -> Settings {
            let [learning_rate, weight_decay, max_grad_norm, temperature, max_bad_rows, _] = numbers;
            let [warmup_steps, epochs, save_steps, eval_steps, log_steps, seed] = counts;
            let [model, dataset, query_prefix, passage_prefix, output_dir] = names;
            Settings {
                learning_rate, weight_decay, max_grad_norm, temperature, max_bad_rows,
                warmup_steps, epochs, save_steps, eval_steps, log_steps, seed,
                model, dataset, query_prefix, passage_prefix, output_dir: output_dir.into(),
                max_steps, dropout, eval_dataset, pooling, loss, lr_schedule,
                ..Settings::default()
            }
        }
    }

    prop_compose! {
        fn settings()(
            training in trainings(),
            switches in prop::array::uniform3(any::<bool>()),
            sizes in prop::array::uniform5(0..10_000usize),
            options in prop::array::uniform2(prop::option::of(0..1000usize)),
            numbers in prop::array::uniform3(rates()),
            arms in prop::collection::vec(
                (any::<bool>(), prop::option::of(any::<bool>()), prop::option::of(1..100usize)).prop_map(
                    |(genetic, qk_norm, population_size)| {
                        let name = if genetic { "genetic" } else { "own" }.into();
                        Arm { name, genetic, qk_norm, population_size, ..Arm::default() }
                    }), 0..4),
            fitness_scale in prop::sample::select(vec![FitnessScale::UnitMean, FitnessScale::UnitSum]),
            evolution in prop::sample::select(vec![Evolution::Sampled, Evolution::MeanField]),
        ) -> Settings {
            let [from_scratch, qk_norm, causal] = switches;
            let [max_seq_len, batch_size, hard_negatives, keep_checkpoints, threads] = sizes;
            let [mutation_rate, crossover_rate, selection_pressure] = numbers;
            let genetic = mendel::attention::Genetic {
                mutation_rate, crossover_rate, selection_pressure, fitness_scale, evolution,
                population_size: batch_size, num_generations: threads,
            };
            Settings {
                from_scratch, qk_norm, causal, arms, genetic,
                max_seq_len, batch_size, hard_negatives, keep_checkpoints, threads,
                n_kv_heads: options[0], in_proj_dim: options[1],
                ..training
            }
        }
    }

    proptest! {
        #[test]
        fn settings_written_to_a_file_come_back_as_they_were(settings in settings()) {
            prop_assert_eq!(from_file(&settings.to_toml().unwrap()).unwrap(), settings);
        }
    }
}
