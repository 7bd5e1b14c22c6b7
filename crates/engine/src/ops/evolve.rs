//! Evolution of a population of value rows (docs/genetic-attention.md, section 3).

mod ancestry;

pub(crate) use ancestry::share_of_one;
pub use ancestry::{Ancestry, Descendants};

use crate::error::{Result, ensure_shape};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// The most tokens of a sequence among which a sampled population's genes can name their ancestor, in 16 bits.
pub const MOST_TOKENS: usize = 1 << 16;

/// How a population evolves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evolve {
    /// Genes per organism: the head dimension `d`.
    pub head_dim: usize,
    /// Generations `G`, below 4096.
    pub num_generations: usize,
    /// Mutation rate `μ` in [0, 1].
    pub mutation_rate: f32,
    /// Crossover rate `c` in [0, 1].
    pub crossover_rate: f32,
    /// Selection pressure `β ≥ 0`.
    pub selection_pressure: f32,
    /// How many organisms.
    pub population: Population,
}

/// How many organisms a population has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Population {
    /// The deterministic limit (section 3b).
    Infinite,
    /// Drawn by lot (section 3a).
    Sampled {
        /// Organisms `N ≥ 1`.
        size: usize,
        /// The run's seed.
        seed: u64,
        /// The training step.
        step: u32,
        /// The layer.
        layer: u32,
    },
}

/// What evolution leaves.
#[derive(Clone, Debug)]
pub struct Evolved {
    /// From which tokens it descends.
    pub ancestry: Ancestry,
    /// The fitness `γ` `[S, v·d]` of the final population's genes, and `u = 1 / (M + ½)`: to rounding what
    /// [`gene_fitness`](crate::Var::gene_fitness) makes of the values with that ancestry.
    pub fitness: [Tensor; 2],
}

/// Evolves values `V` `[N, v·d]`. What is left is a constant: selection has no gradient.
pub fn evolve(values: &Tensor, sequences: &Sequences, options: Evolve) -> Result<Evolved> {
    ensure_shape!(
        values.rows() == sequences.tokens()
            && options.head_dim > 0
            && values.columns().is_multiple_of(options.head_dim),
        "evolve",
        "values {:?} do not fit {} tokens and head dimension {}",
        values.shape(),
        sequences.tokens(),
        options.head_dim
    );
    ensure_shape!(
        !matches!(options.population, Population::Sampled { size: 0, .. }),
        "evolve",
        "a population of no organisms"
    );
    let longest = sequences.ranges().map(|range| range.len()).max().unwrap_or(0);
    ensure_shape!(
        options.population == Population::Infinite || longest <= MOST_TOKENS,
        "evolve",
        "a sequence of {longest} tokens, of which a population can name {MOST_TOKENS}"
    );
    let mut fitness = [0, 1].map(|_| Tensor::empty(values.device(), &[sequences.len(), values.columns()]));
    let ancestry = values.device().kernels().evolve(values, sequences, &options, fitness.each_mut());
    Ok(Evolved { ancestry, fitness })
}

#[cfg(test)]
mod tests;
