//! Named sets of settings, laid over the defaults and under a settings file and the flags.

use toml::Table;

/// Every preset's name, in the order in which to show them.
pub const NAMES: [&str; 3] = ["demo", "msmarco", "pikaia"];

/// The settings that a preset changes, or nothing where no preset has that name.
pub fn preset(name: &str) -> Option<Table> {
    match name {
        "demo" => Some(demo()),
        "msmarco" => Some(Table::new()),
        "pikaia" => Some(pikaia()),
        _ => None,
    }
}

/// The built-in data and a model small enough to train on two CPU cores in about a minute.
fn demo() -> Table {
    toml::toml! {
        model = "demo-tiny"
        dataset = "demo"
        max-seq-len = 64
        batch-size = 64
        learning-rate = 0.001
        warmup-steps = 40
        max-steps = 400
        epochs = 1000 // so that max-steps is what ends the run
        eval-steps = 100
        save-steps = 200
        log-steps = 10
    }
}

/// The published ablation (pikaia, BERT dual encoder on MS MARCO), with the arms that it lacks: two that separate the
/// genetic part from the norm on queries and keys, and one that separates it from the 32-fold smaller values.
fn pikaia() -> Table {
    toml::toml! {
        model = "nreimers/MiniLM-L6-H384-uncased" // 6 layers of 384, 12 heads, intermediate 1536
        from-scratch = true
        max-seq-len = 128
        batch-size = 512
        temperature = 0.1
        max-steps = 2048
        epochs = 1000 // so that max-steps is what ends the run
        seed = 8080
        lr-schedule = "constant"
        num-generations = 0
        fitness-scale = "unit-sum"
        arms = [
            "standard",
            "genetic+qk-norm",
            "standard+qk-norm",
            "genetic",
            { name = "genetic-unit-mean", genetic = true, fitness-scale = "unit-mean" },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[test]
    fn every_preset_holds_valid_settings_and_nothing_else() {
        for name in NAMES {
            let table = preset(name).unwrap();
            let settings: Settings = table.clone().try_into().unwrap();
            settings.validate().unwrap();
            let known = Table::try_from(&settings).unwrap();
            for key in table.keys() {
                assert!(known.contains_key(key), "{key} of preset {name} is no setting");
            }
        }
    }

    #[test]
    fn msmarco_is_the_defaults() {
        let settings: Settings = preset("msmarco").unwrap().try_into().unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_name_that_is_no_preset_gives_nothing() {
        assert!(preset("demos").is_none());
    }
}
