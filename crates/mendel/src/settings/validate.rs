//! Which values a setting may have, and which settings exclude each other.

use std::fmt::Display;

use super::{Settings, gpu_number};
use crate::arm::Arm;
use crate::attention::{Genetic, InvalidAttention};

/// `[CLS]`, one token of the text, `[SEP]`.
const MIN_SEQ_LEN: usize = 3;

/// What a settings file can hold: TOML has signed numbers only.
const MAX_SEED: u64 = i64::MAX as u64;

/// More than any machine has; a slip of the finger beyond it would keep the machine busy starting threads.
const MAX_THREADS: usize = 1024;

/// A setting that no run can work with. Settings are named as in a file; the flag is the same name after `--`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidSetting {
    /// A value that the setting never takes.
    #[error("{setting} = {value} is not possible: it must be {allowed}")]
    OutOfRange {
        /// Its name, as in a settings file.
        setting: String,
        /// The value that was given.
        value: String,
        /// The values that it takes.
        allowed: String,
    },
    /// A device or a precision that this version lacks.
    #[error("{setting} = {value} is not available in this version: it can be {available}")]
    Unavailable {
        /// Its name, as in a settings file.
        setting: &'static str,
        /// The value that was given.
        value: String,
        /// The values that this version knows.
        available: &'static str,
    },
    /// Nothing to train.
    #[error("arms is empty: name at least one, such as standard or genetic")]
    NoArms,
    /// Two arms that would train the same attention.
    #[error("arms has {first} and {second}, which are the same attention with these settings: name each arm once")]
    SameArm {
        /// The one named first.
        first: String,
        /// The one that repeats it.
        second: String,
    },
    /// Two arms whose files would be the same.
    #[error("arms has two that are called {0}: give each a name of its own")]
    SameName(String),
    /// A name that cannot name files.
    #[error(
        "arms has one called '{0}', which cannot name files: begin with a letter or digit, go on with those and + - _ ."
    )]
    ArmName(String),
    /// An arm with genetic settings or a genetic name, but without the genetic part.
    #[error("arm {0} has the name or the settings of genetic attention, but not the genetic part: add genetic = true")]
    NotGenetic(String),
    /// A change of an arm that is not possible.
    #[error("arm {0}: {1}")]
    InArm(String, Box<InvalidSetting>),
    /// A genetic arm that is causal and evolves.
    #[error(
        "causal with num-generations = {num_generations} is not possible: \
         the causal form of genetic attention uses the fixed point (set --num-generations 0)"
    )]
    CausalEvolution {
        /// The generations that were asked for.
        num_generations: usize,
    },
    /// Attention that cannot be.
    #[error(transparent)]
    Attention(InvalidAttention),
    /// One passage per query: the loss is 0 whatever the model does.
    #[error(
        "batch-size = 1 leaves a query's own passage with nothing to contrast: \
         set batch-size to 2 or more, or hard-negatives to 1 or more"
    )]
    NothingToContrast,
}

/// A parameter of the attention is a setting of the same name.
impl From<InvalidAttention> for InvalidSetting {
    fn from(invalid: InvalidAttention) -> Self {
        match invalid {
            InvalidAttention::OutOfRange { name, value, allowed } => {
                InvalidSetting::OutOfRange { setting: name.replace('_', "-"), value, allowed }
            }
            other => InvalidSetting::Attention(other),
        }
    }
}

impl Settings {
    /// Whether a training run can work with these settings: [`validate_values`](Self::validate_values),
    /// and every query has a passage to be told apart from its own.
    ///
    /// # Errors
    /// The first setting found that rules a run out.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        self.validate_values()?;
        if self.batch_size == 1 && self.hard_negatives == 0 {
            return Err(InvalidSetting::NothingToContrast);
        }
        Ok(())
    }

    /// Whether every value is in its range and the arms are sound. Enough for work that trains nothing,
    /// where a batch of one text is as good as any.
    ///
    /// # Errors
    /// The first setting found that is not possible.
    pub fn validate_values(&self) -> Result<(), InvalidSetting> {
        self.validate_data()?;
        self.validate_optimisation()?;
        self.validate_intervals()?;
        self.validate_attention()?;
        self.validate_arms()?;
        self.validate_seeds()?;
        self.validate_machine()
    }

    fn validate_data(&self) -> Result<(), InvalidSetting> {
        not_empty("model", &self.model)?;
        not_empty("dataset", &self.dataset)?;
        if let Some(eval_dataset) = &self.eval_dataset {
            not_empty("eval-dataset", eval_dataset)?;
        }
        if let Some(folder) = &self.cache_dir {
            not_empty("cache-dir", &folder.to_string_lossy())?;
        }
        share("max-bad-rows", self.max_bad_rows)?;
        at_least("max-seq-len", self.max_seq_len, MIN_SEQ_LEN)
    }

    fn validate_optimisation(&self) -> Result<(), InvalidSetting> {
        at_least("batch-size", self.batch_size, 1)?;
        positive("learning-rate", self.learning_rate)?;
        at_least("epochs", self.epochs, 1)?;
        if let Some(max_steps) = self.max_steps {
            at_least("max-steps", max_steps, 1)?;
        }
        not_negative("weight-decay", self.weight_decay)?;
        positive("max-grad-norm", self.max_grad_norm)?;
        positive("temperature", self.temperature)?;
        require(self.seed <= MAX_SEED, "seed", self.seed, || format!("at most {MAX_SEED}"))
    }

    fn validate_intervals(&self) -> Result<(), InvalidSetting> {
        at_least("save-steps", self.save_steps, 1)?;
        at_least("eval-steps", self.eval_steps, 1)?;
        at_least("log-steps", self.log_steps, 1)?;
        at_least("keep-checkpoints", self.keep_checkpoints, 1)
    }

    fn validate_attention(&self) -> Result<(), InvalidSetting> {
        if let Some(dropout) = self.dropout {
            let possible = (0.0..1.0).contains(&dropout);
            require(possible, "dropout", dropout, || "0 or more, and less than 1".into())?;
        }
        if let Some(heads) = self.n_heads {
            at_least("n-heads", heads, 1)?;
        }
        if let Some(heads) = self.n_kv_heads {
            at_least("n-kv-heads", heads, 1)?;
        }
        if let Some(width) = self.in_proj_dim {
            at_least("in-proj-dim", width, 1)?;
        }
        Ok(self.genetic.validate()?)
    }

    fn validate_arms(&self) -> Result<(), InvalidSetting> {
        if self.arms.is_empty() {
            return Err(InvalidSetting::NoArms);
        }
        for (place, second) in self.arms.iter().enumerate() {
            if !second.has_file_name() {
                return Err(InvalidSetting::ArmName(second.name.clone()));
            }
            if self.arms[..place].iter().any(|first| first.name == second.name) {
                return Err(InvalidSetting::SameName(second.name.clone()));
            }
            if second.changes_genetics_without_having_them() {
                return Err(InvalidSetting::NotGenetic(second.name.clone()));
            }
            let own = second.applied_to(self);
            own.validate_attention().map_err(|error| InvalidSetting::InArm(second.name.clone(), Box::new(error)))?;
            let same = |first: &&Arm| attention(&first.applied_to(self)) == attention(&own);
            if let Some(first) = self.arms[..place].iter().find(same) {
                let [first, second] = [first, second].map(Arm::to_string);
                return Err(InvalidSetting::SameArm { first, second });
            }
            let num_generations = own.genetic.num_generations;
            if own.causal && num_generations > 0 && second.genetic {
                return Err(InvalidSetting::CausalEvolution { num_generations });
            }
        }
        Ok(())
    }

    fn validate_seeds(&self) -> Result<(), InvalidSetting> {
        for (place, &seed) in self.seeds.iter().enumerate() {
            require(seed <= MAX_SEED, "seeds", seed, || format!("at most {MAX_SEED}"))?;
            let repeated = self.seeds[..place].contains(&seed);
            require(!repeated, "seeds", format!("{:?}", self.seeds), || "a list that names each seed once".into())?;
        }
        Ok(())
    }

    fn validate_machine(&self) -> Result<(), InvalidSetting> {
        let possible = self.threads <= MAX_THREADS;
        require(possible, "threads", self.threads, || format!("0 (all) to {MAX_THREADS}"))?;
        let known = matches!(self.device.as_str(), "auto" | "cpu") || gpu_number(&self.device).is_some();
        if !known {
            return unavailable("device", &self.device, "auto, cpu, cuda or cuda:N");
        }
        match self.precision.as_str() {
            "auto" | "f32" | "bf16" => Ok(()),
            _ => unavailable("precision", &self.precision, "auto, f32 or bf16"),
        }
    }
}

/// What decides an arm's attention, of settings with its changes: nothing that is without effect.
fn attention(settings: &Settings) -> impl PartialEq {
    let genetic = settings.arms[0].genetic.then_some(settings.genetic).map(|genetic| match genetic.num_generations {
        0 => Genetic { fitness_scale: genetic.fitness_scale, num_generations: 0, ..Genetic::default() },
        _ => genetic,
    });
    let Settings { n_heads, n_kv_heads, in_proj_dim, qk_norm, attention_bias, causal, .. } = *settings;
    (genetic, n_heads, n_kv_heads, in_proj_dim, qk_norm, attention_bias, causal)
}

fn unavailable(setting: &'static str, value: &str, available: &'static str) -> Result<(), InvalidSetting> {
    Err(InvalidSetting::Unavailable { setting, value: value.into(), available })
}

/// `allowed` completes "it must be …".
fn require(
    possible: bool,
    setting: &'static str,
    value: impl Display,
    allowed: impl FnOnce() -> String,
) -> Result<(), InvalidSetting> {
    if possible {
        return Ok(());
    }
    Err(InvalidSetting::OutOfRange { setting: setting.into(), value: value.to_string(), allowed: allowed() })
}

fn not_empty(setting: &'static str, value: &str) -> Result<(), InvalidSetting> {
    require(!value.trim().is_empty(), setting, format!("'{value}'"), || "a name or a path".into())
}

fn at_least<T: PartialOrd + Display>(setting: &'static str, value: T, least: T) -> Result<(), InvalidSetting> {
    require(value >= least, setting, value, || format!("at least {least}"))
}

// NaN is in none of the ranges below: every comparison with it is false.

fn share(setting: &'static str, value: f64) -> Result<(), InvalidSetting> {
    require((0.0..=1.0).contains(&value), setting, value, || "between 0 and 1".into())
}

fn positive(setting: &'static str, value: f64) -> Result<(), InvalidSetting> {
    require(value > 0.0 && value.is_finite(), setting, value, || "a finite number above 0".into())
}

fn not_negative(setting: &'static str, value: f64) -> Result<(), InvalidSetting> {
    require(value >= 0.0 && value.is_finite(), setting, value, || "a finite number of 0 or more".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(name: &str) -> Arm {
        name.parse().unwrap()
    }

    fn changed(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    }

    /// The error's line names the setting and the value, and ends in what it could be.
    #[track_caller]
    fn refused(setting: &str, value: &str, allowed: &str, change: impl FnOnce(&mut Settings)) {
        let message = changed(change).validate().unwrap_err().to_string();
        assert!(message.starts_with(&format!("{setting} = {value} ")), "{message}");
        assert!(message.ends_with(allowed), "{message}");
    }

    #[test]
    fn the_defaults_are_valid() {
        Settings::default().validate().unwrap();
    }

    #[test]
    fn rates_outside_0_to_1_are_refused_by_name() {
        for value in [-0.1, 2.0, f64::NAN, f64::INFINITY] {
            let text = value.to_string();
            refused("mutation-rate", &text, "between 0 and 1", |s| s.genetic.mutation_rate = value);
            refused("crossover-rate", &text, "between 0 and 1", |s| s.genetic.crossover_rate = value);
            refused("max-bad-rows", &text, "between 0 and 1", |s| s.max_bad_rows = value);
        }
    }

    #[test]
    fn rates_of_0_and_of_1_are_possible() {
        for value in [0.0, 1.0] {
            let settings = changed(|s| {
                s.genetic.mutation_rate = value;
                s.genetic.crossover_rate = value;
                s.max_bad_rows = value;
            });
            settings.validate().unwrap();
        }
    }

    #[test]
    fn numbers_that_must_be_above_0_are_refused_at_0_and_where_they_are_not_finite() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let text = value.to_string();
            refused("learning-rate", &text, "a finite number above 0", |s| s.learning_rate = value);
            refused("temperature", &text, "a finite number above 0", |s| s.temperature = value);
            refused("max-grad-norm", &text, "a finite number above 0", |s| s.max_grad_norm = value);
        }
    }

    #[test]
    fn numbers_that_may_be_0_are_refused_below_it_and_where_they_are_not_finite() {
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            let text = value.to_string();
            let allowed = "a finite number of 0 or more";
            refused("weight-decay", &text, allowed, |s| s.weight_decay = value);
            refused("selection-pressure", &text, allowed, |s| s.genetic.selection_pressure = value);
        }
        changed(|s| s.genetic.selection_pressure = 0.0).validate().unwrap();
    }

    #[test]
    fn dropout_of_1_drops_everything_and_is_refused() {
        for value in [1.0, -0.1, f64::NAN] {
            let text = value.to_string();
            refused("dropout", &text, "0 or more, and less than 1", |s| s.dropout = Some(value));
        }
        changed(|s| s.dropout = Some(0.0)).validate().unwrap();
    }

    #[test]
    fn counts_of_0_are_refused_where_a_run_needs_one() {
        refused("batch-size", "0", "at least 1", |s| s.batch_size = 0);
        refused("epochs", "0", "at least 1", |s| s.epochs = 0);
        refused("max-steps", "0", "at least 1", |s| s.max_steps = Some(0));
        refused("save-steps", "0", "at least 1", |s| s.save_steps = 0);
        refused("eval-steps", "0", "at least 1", |s| s.eval_steps = 0);
        refused("log-steps", "0", "at least 1", |s| s.log_steps = 0);
        refused("keep-checkpoints", "0", "at least 1", |s| s.keep_checkpoints = 0);
        refused("population-size", "0", "between 1 and 1048576", |s| s.genetic.population_size = 0);
        refused("n-kv-heads", "0", "at least 1", |s| s.n_kv_heads = Some(0));
        refused("in-proj-dim", "0", "at least 1", |s| s.in_proj_dim = Some(0));
    }

    #[test]
    fn a_text_needs_room_for_its_markers_and_one_token() {
        refused("max-seq-len", "2", "at least 3", |s| s.max_seq_len = 2);
        changed(|s| s.max_seq_len = 3).validate().unwrap();
    }

    #[test]
    fn generations_end_where_the_counter_does() {
        refused("num-generations", "4096", "between 0 and 4095", |s| s.genetic.num_generations = 4096);
        changed(|s| s.genetic.num_generations = 4095).validate().unwrap();
    }

    #[test]
    fn a_seed_that_no_settings_file_can_hold_is_refused() {
        let seed = i64::MAX as u64;
        changed(|s| s.seed = seed).validate().unwrap();
        refused("seed", "9223372036854775808", "at most 9223372036854775807", |s| s.seed = seed + 1);
    }

    #[test]
    fn a_micro_batch_may_be_larger_than_the_batch() {
        changed(|s| s.loss_micro_batch = s.batch_size + 1).validate().unwrap();
    }

    #[test]
    fn threads_beyond_any_machine_are_refused() {
        refused("threads", "1025", "0 (all) to 1024", |s| s.threads = 1025);
        changed(|s| s.threads = 1024).validate().unwrap();
    }

    #[test]
    fn empty_names_are_refused() {
        refused("model", "''", "a name or a path", |s| s.model.clear());
        refused("dataset", "' '", "a name or a path", |s| s.dataset = " ".into());
        refused("eval-dataset", "''", "a name or a path", |s| s.eval_dataset = Some(String::new()));
    }

    #[test]
    fn what_this_version_lacks_is_said_by_name() {
        for device in ["rocm", "cuda:", "cuda:x", "cuda1"] {
            refused("device", device, "auto, cpu, cuda or cuda:N", |s| s.device = device.into());
        }
        refused("precision", "f16", "auto, f32 or bf16", |s| s.precision = "f16".into());
        let message = changed(|s| s.device = "rocm".into()).validate().unwrap_err().to_string();
        assert!(message.contains("not available in this version"), "{message}");
        for device in ["cpu", "cuda", "cuda:1"] {
            changed(|s| s.device = device.into()).validate().unwrap();
        }
        changed(|s| s.precision = "f32".into()).validate().unwrap();
        changed(|s| s.precision = "bf16".into()).validate().unwrap();
    }

    #[test]
    fn a_run_has_at_least_one_arm() {
        assert_eq!(changed(|s| s.arms.clear()).validate(), Err(InvalidSetting::NoArms));
    }

    #[test]
    fn no_arm_is_named_twice() {
        let settings = changed(|s| s.arms = vec![Arm::standard(), Arm::genetic(), Arm::standard()]);
        let same = InvalidSetting::SameName("standard".into());
        assert_eq!(settings.validate(), Err(same));
    }

    #[test]
    fn arms_that_differ_only_in_a_norm_that_every_arm_has_are_the_same() {
        let mut settings = changed(|s| s.arms = vec![arm("standard"), arm("standard+qk-norm")]);
        settings.validate().unwrap();
        settings.qk_norm = true;
        let same = InvalidSetting::SameArm { first: "standard".into(), second: "standard+qk-norm".into() };
        assert_eq!(settings.validate(), Err(same));
    }

    #[test]
    fn a_causal_genetic_arm_asks_for_the_fixed_point() {
        let mut settings = changed(|s| s.causal = true);
        let message = settings.validate().unwrap_err().to_string();
        assert!(message.contains("fixed point (set --num-generations 0)"), "{message}");
        settings.arms = vec![Arm::standard()];
        settings.validate().unwrap();
        settings.arms = vec![Arm::genetic()];
        settings.genetic.num_generations = 0;
        settings.validate().unwrap();
    }

    #[test]
    fn arms_of_ones_own_are_checked_with_what_they_change() {
        let own = |change: fn(&mut Arm)| {
            let mut own = Arm { name: "own".into(), genetic: true, ..Arm::default() };
            change(&mut own);
            changed(|s| s.arms.push(own)).validate()
        };
        own(|arm| arm.population_size = Some(8)).unwrap();
        let message = own(|arm| arm.mutation_rate = Some(2.0)).unwrap_err().to_string();
        assert!(message.starts_with("arm own: mutation-rate = 2 "), "{message}");
        assert!(matches!(
            own(|arm| (arm.genetic, arm.population_size) = (false, Some(8))),
            Err(InvalidSetting::NotGenetic(_))
        ));
        let message = own(|arm| arm.name = "../own".into()).unwrap_err().to_string();
        assert!(message.contains("'../own'"), "{message}");
        assert!(matches!(own(|_| ()), Err(InvalidSetting::SameArm { .. })));
        assert!(matches!(own(|arm| arm.population_size = Some(32)), Err(InvalidSetting::SameArm { .. })));
    }

    #[test]
    fn at_the_fixed_point_arms_do_not_differ_by_how_they_would_evolve() {
        let mut settings = changed(|s| s.genetic.num_generations = 0);
        settings.arms.push(Arm { name: "small".into(), genetic: true, population_size: Some(8), ..Arm::default() });
        assert!(matches!(settings.validate(), Err(InvalidSetting::SameArm { .. })));
    }

    #[test]
    fn no_seed_is_named_twice() {
        changed(|s| s.seeds = vec![1, 2]).validate().unwrap();
        refused("seeds", "[1, 2, 1]", "a list that names each seed once", |s| s.seeds = vec![1, 2, 1]);
    }

    #[test]
    fn a_batch_of_one_pair_has_nothing_to_contrast_but_hard_negatives() {
        let mut settings = changed(|s| s.batch_size = 1);
        assert_eq!(settings.validate(), Err(InvalidSetting::NothingToContrast));
        settings.validate_values().unwrap();
        settings.hard_negatives = 1;
        settings.validate().unwrap();
    }
}
