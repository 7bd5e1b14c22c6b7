//! An arm of a comparison: a name, and the attention settings that it changes.

use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::attention::{Evolution, FitnessScale};
use crate::settings::Settings;

/// What distinguishes one arm from another; everything else comes from the settings they share. An attention setting
/// that is absent here is as in those.
///
/// Written as a name alone, `standard` or `genetic`, either with `+qk-norm`; or as a table of a name of one's own and
/// what the arm changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the settings of the same names say what they are")]
pub struct Arm {
    /// Names the arm's files.
    pub name: String,
    /// Whether the attention has the genetic part.
    #[serde(default)]
    pub genetic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub population_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_generations: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutation_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crossover_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection_pressure: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fitness_scale: Option<FitnessScale>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evolution: Option<Evolution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_proj_dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qk_norm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causal: Option<bool>,
}

/// A name that is no arm.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown arm '{0}': arms are standard, genetic, standard+qk-norm and genetic+qk-norm, and those that the settings define"
)]
pub struct UnknownArm(String);

impl Arm {
    /// Multi-head attention as in BERT.
    pub fn standard() -> Arm {
        Arm { name: "standard".into(), ..Arm::default() }
    }

    /// The same with the genetic part.
    pub fn genetic() -> Arm {
        Arm { name: "genetic".into(), genetic: true, ..Arm::default() }
    }

    /// The settings of this arm: the shared ones with its changes, and itself as the only arm.
    pub fn applied_to(&self, shared: &Settings) -> Settings {
        let mut settings = Settings { arms: vec![self.clone()], ..shared.clone() };
        let genetic = &mut settings.genetic;
        replace(&mut genetic.population_size, self.population_size);
        replace(&mut genetic.num_generations, self.num_generations);
        replace(&mut genetic.mutation_rate, self.mutation_rate);
        replace(&mut genetic.crossover_rate, self.crossover_rate);
        replace(&mut genetic.selection_pressure, self.selection_pressure);
        replace(&mut genetic.fitness_scale, self.fitness_scale);
        replace(&mut genetic.evolution, self.evolution);
        replace(&mut settings.qk_norm, self.qk_norm);
        replace(&mut settings.attention_bias, self.attention_bias);
        replace(&mut settings.causal, self.causal);
        settings.n_heads = self.n_heads.or(settings.n_heads);
        settings.n_kv_heads = self.n_kv_heads.or(settings.n_kv_heads);
        settings.in_proj_dim = self.in_proj_dim.or(settings.in_proj_dim);
        settings
    }

    /// Whether it has settings, or the name, of a genetic part that it has not.
    pub fn changes_genetics_without_having_them(&self) -> bool {
        let named = self.name.parse::<Arm>().is_ok_and(|named| named.genetic);
        let Arm { population_size, num_generations, mutation_rate, crossover_rate, .. } = self;
        let changes = population_size.is_some()
            || num_generations.is_some()
            || mutation_rate.is_some()
            || crossover_rate.is_some()
            || self.selection_pressure.is_some()
            || self.fitness_scale.is_some()
            || self.evolution.is_some();
        !self.genetic && (named || changes)
    }

    /// Whether its name can name files: letters, digits, `+`, `-`, `_` and `.` after a letter or digit.
    pub fn has_file_name(&self) -> bool {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+-_.".contains(c);
        self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.len() <= 64
            && self.name.chars().all(allowed)
    }
}

fn replace<T>(value: &mut T, by: Option<T>) {
    if let Some(other) = by {
        *value = other;
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Arm {
    type Err = UnknownArm;

    fn from_str(name: &str) -> Result<Self, UnknownArm> {
        let (base, qk_norm) = match name.strip_suffix("+qk-norm") {
            Some(base) => (base, Some(true)),
            None => (name, None),
        };
        let genetic = match base {
            "standard" => false,
            "genetic" => true,
            _ => return Err(UnknownArm(name.into())),
        };
        Ok(Arm { name: name.into(), genetic, qk_norm, ..Arm::default() })
    }
}

impl Serialize for Arm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name.parse::<Arm>() {
            Ok(named) if named == *self => serializer.serialize_str(&self.name),
            _ => Arm::serialize(self, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Arm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrTable)
    }
}

struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = Arm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an arm, or a table with a name and what the arm changes")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Arm, E> {
        name.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Arm, A::Error> {
        Arm::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_arm_are_one() {
        for name in ["standard", "genetic", "standard+qk-norm", "genetic+qk-norm"] {
            assert_eq!(name.parse::<Arm>().unwrap().to_string(), name);
        }
        assert!("genetics".parse::<Arm>().unwrap_err().to_string().contains("'genetics'"));
    }

    #[test]
    fn an_arm_of_ones_own_changes_what_it_names_and_reads_back_as_it_was_written() {
        let text = "arms = [\"standard\", { name = \"small\", genetic = true, population-size = 8, qk-norm = true }]\n";
        let settings: Settings = toml::from_str(text).unwrap();
        assert_eq!(settings.arms[0], Arm::standard());
        let small = settings.arms[1].applied_to(&settings);
        assert_eq!((small.genetic.population_size, small.genetic.num_generations, small.qk_norm), (8, 5, true));
        let written: Settings = toml::from_str(&settings.to_toml().unwrap()).unwrap();
        assert_eq!(written, settings);
    }

    #[test]
    fn what_no_attention_has_no_arm_changes() {
        let text = "arms = [{ name = \"fast\", learning-rate = 1.0 }]";
        let message = toml::from_str::<Settings>(text).unwrap_err().to_string();
        assert!(message.contains("learning-rate") && message.contains("population-size"), "{message}");
    }
}
