//! The parameters of genetic attention (docs/genetic-attention.md, section 3).

use serde::{Deserialize, Serialize};

use super::InvalidAttention;

/// The random generator names a generation by 12 bits.
const MOST_GENERATIONS: usize = 4095;
/// More organisms than any use has, few enough for the random generator to name every gene.
const MOST_ORGANISMS: usize = 1 << 20;

/// What the modulation is multiplied by (section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum FitnessScale {
    /// The head dimension: the modulation averages 1, pretrained weights keep their magnitude.
    #[default]
    UnitMean,
    /// 1, the published form.
    UnitSum,
}

/// How the ancestry is found in training (sections 3a and 3b). Evaluation always takes the mean field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Evolution {
    /// A finite population, drawn.
    #[default]
    Sampled,
    /// The infinite population.
    MeanField,
}

/// The genetic part of the attention module.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Genetic {
    /// Organisms `N` per sequence and head, at least 1.
    pub population_size: usize,
    /// Generations `G`; 0 is the fixed point, at most 4095.
    pub num_generations: usize,
    /// Probability `μ` in [0, 1] that a gene is replaced by a random token's.
    pub mutation_rate: f64,
    /// Probability `c` in [0, 1] that a child mixes two parents.
    pub crossover_rate: f64,
    /// Exponent `β ≥ 0` of the organism fitness in selection.
    pub selection_pressure: f64,
    /// What the modulation is multiplied by.
    pub fitness_scale: FitnessScale,
    /// How the ancestry is found in training.
    pub evolution: Evolution,
}

impl Default for Genetic {
    fn default() -> Self {
        Genetic {
            population_size: 32,
            num_generations: 5,
            mutation_rate: 0.1,
            crossover_rate: 0.8,
            selection_pressure: 1.0,
            fitness_scale: FitnessScale::UnitMean,
            evolution: Evolution::Sampled,
        }
    }
}

impl Genetic {
    /// Refuses what cannot be, by name.
    pub fn validate(&self) -> Result<(), InvalidAttention> {
        let out_of_range = |name, value: String, allowed: &str| {
            Err(InvalidAttention::OutOfRange { name, value, allowed: allowed.into() })
        };
        for (name, rate) in [("mutation_rate", self.mutation_rate), ("crossover_rate", self.crossover_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return out_of_range(name, rate.to_string(), "between 0 and 1");
            }
        }
        if self.population_size == 0 || self.population_size > MOST_ORGANISMS {
            return out_of_range("population_size", self.population_size.to_string(), "between 1 and 1048576");
        }
        if self.num_generations > MOST_GENERATIONS {
            return out_of_range("num_generations", self.num_generations.to_string(), "between 0 and 4095");
        }
        if !(self.selection_pressure >= 0.0 && self.selection_pressure.is_finite()) {
            return out_of_range(
                "selection_pressure",
                self.selection_pressure.to_string(),
                "a finite number of 0 or more",
            );
        }
        Ok(())
    }
}
