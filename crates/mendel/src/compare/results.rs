//! What is written about an arm: means over its seeds, and the numbers of each.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bert::BertConfig;
use crate::settings::Settings;
use crate::train::{RunNumbers, RunRecord};

/// `<arm>_attention_results.json`.
#[derive(Clone, Debug, Serialize)]
pub struct ArmResults {
    /// The arm's name.
    pub arm: String,
    /// The settings in force.
    pub config: Settings,
    /// The model as it was trained.
    pub model: BertConfig,
    /// [`RunNumbers`]: of one seed its own, of several the means, with the deviation of `x` as `x_std` beside it.
    #[serde(flatten)]
    pub numbers: Map<String, Value>,
    /// The numbers of each seed.
    pub seeds: Vec<SeedNumbers>,
}

/// The numbers of one seed.
#[derive(Clone, Debug, Serialize)]
pub struct SeedNumbers {
    /// Which seed.
    pub seed: u64,
    /// Its numbers.
    #[serde(flatten)]
    pub numbers: RunNumbers,
}

impl ArmResults {
    /// Of an arm's runs, at least one.
    pub fn new(runs: &[&RunRecord], settings: &Settings) -> Self {
        let plain = |run: &&RunRecord| serde_json::to_value(&run.numbers).expect("numbers are plain data");
        let values: Vec<Value> = runs.iter().map(plain).collect();
        let Value::Object(numbers) = mean(&values.iter().collect::<Vec<_>>()) else {
            unreachable!("the numbers of a run are an object")
        };
        let seeds = runs.iter().map(|run| SeedNumbers { seed: run.seed, numbers: run.numbers.clone() }).collect();
        ArmResults { arm: runs[0].arm.clone(), config: settings.clone(), model: runs[0].model.clone(), numbers, seeds }
    }

    /// The mean over the seeds of one of their numbers.
    pub fn mean(&self, number: impl Fn(&RunNumbers) -> f64) -> f64 {
        self.seeds.iter().map(|seed| number(&seed.numbers)).sum::<f64>() / self.seeds.len() as f64
    }

    /// The deviation over the seeds of one of their numbers, where there are several.
    pub fn deviation(&self, number: impl Fn(&RunNumbers) -> f64) -> Option<f64> {
        let numbers: Vec<f64> = self.seeds.iter().map(|seed| number(&seed.numbers)).collect();
        (numbers.len() > 1).then(|| deviation(&numbers))
    }
}

/// The mean of values of the same form, number by number, with the deviations of an object's numbers beside them. What
/// is no number, or has another form in another seed, is the first seed's where all agree, else absent.
fn mean(values: &[&Value]) -> Value {
    match values {
        [only] => (*only).clone(),
        [Value::Object(first), ..] => {
            let mut means = Map::new();
            for name in first.keys() {
                let inner: Vec<&Value> = values.iter().map(|value| &value[name]).collect();
                let deviation = numbers(&inner).map(|numbers| deviation(&numbers));
                means.insert(name.clone(), mean(&inner));
                means.extend(deviation.map(|deviation| (format!("{name}_std"), deviation.into())));
            }
            Value::Object(means)
        }
        [Value::Array(first), ..] if values.iter().all(|v| v.as_array().is_some_and(|v| v.len() == first.len())) => {
            let inner = |place: usize| values.iter().map(|value| &value[place]).collect::<Vec<_>>();
            (0..first.len()).map(|place| mean(&inner(place))).collect()
        }
        _ => match numbers(values) {
            Some(numbers) => (numbers.iter().sum::<f64>() / numbers.len() as f64).into(),
            None if values.iter().all(|value| value == &values[0]) => values[0].clone(),
            None => Value::Null,
        },
    }
}

fn numbers(values: &[&Value]) -> Option<Vec<f64>> {
    values.iter().map(|value| value.as_f64()).collect()
}

/// The standard deviation of a sample (divisor: its size less one).
fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn several_seeds_give_means_with_deviations_beside_them() {
        let [one, two] = [
            json!({"loss": 1.0, "times": [1.0, 3.0], "kind": "process", "eval": {"mrr@10": 0.5}, "best": null}),
            json!({"loss": 3.0, "times": [2.0, 5.0], "kind": "process", "eval": {"mrr@10": 0.5}, "best": {"step": 2}}),
        ];
        let expected = json!({
            "loss": 2.0, "loss_std": 2f64.sqrt(), "times": [1.5, 4.0], "kind": "process",
            "eval": {"mrr@10": 0.5, "mrr@10_std": 0.0}, "best": null,
        });
        assert_eq!(mean(&[&one, &two]), expected);
        assert_eq!(mean(&[&one]), one);
    }
}
