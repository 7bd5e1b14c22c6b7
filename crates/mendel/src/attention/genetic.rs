//! The parameters of genetic attention (docs/genetic-attention.md, section 3).

use serde::{Deserialize, Serialize};

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
