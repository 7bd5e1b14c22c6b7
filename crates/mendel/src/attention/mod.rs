//! The attention module: standard, and the genetic part (docs/genetic-attention.md).

mod genetic;
mod view;

use mendel_engine::ops::attention::{self, Attention as Core, AttentionDropout};
use mendel_engine::ops::evolve::{Evolve, Evolved, Population, evolve};
use mendel_engine::ops::gene_fitness::GeneFitness;
use mendel_engine::ops::modulate::Modulate;
use mendel_engine::random::Purpose;
use mendel_engine::{Device, ParameterId, Tensor, Var};

use crate::layers::{Linear, Mode, Pass};
use view::Seen;

pub use genetic::{Evolution, FitnessScale, Genetic};
pub use view::{GeneticView, Probe};

/// Epsilon of the RMS norm on queries and keys.
const QK_NORM_EPSILON: f32 = 1e-6;

/// The shape of an attention module. Both kinds are this; the genetic kind has `genetic` as well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Width `H` of input and output.
    pub hidden_size: usize,
    /// Query heads; divides `hidden_size`.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads` (grouped-query attention).
    pub n_kv_heads: usize,
    /// Width that the input is projected to before queries, keys and values (latent attention).
    pub in_proj_dim: Option<usize>,
    /// RMS norm with a learned gain on each head's queries and keys.
    pub qk_norm: bool,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Dropout on attention probabilities.
    pub dropout: f32,
    /// Whether each position sees only itself and those before it.
    pub causal: bool,
    /// The genetic part; without it this is standard attention.
    pub genetic: Option<Genetic>,
}

/// A configuration that no attention module can have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidAttention {
    /// A number outside its range.
    #[error("{name} is {value}: it must be {allowed}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// Numbers that do not fit each other.
    #[error("{0}")]
    Mismatch(String),
}

impl AttentionConfig {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.n_heads
    }

    /// Refuses what cannot be, by name.
    pub fn validate(&self) -> Result<(), InvalidAttention> {
        let AttentionConfig { hidden_size, n_heads, n_kv_heads, .. } = *self;
        let out_of_range = |name, value: String, allowed| Err(InvalidAttention::OutOfRange { name, value, allowed });
        if n_heads == 0 || n_heads > 256 || !hidden_size.is_multiple_of(n_heads) {
            let allowed = format!("a divisor of the model's width {hidden_size}, and at most 256");
            return out_of_range("n_heads", n_heads.to_string(), allowed);
        }
        if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            let allowed = format!("a divisor of the number of query heads, {n_heads}");
            return out_of_range("n_kv_heads", n_kv_heads.to_string(), allowed);
        }
        if self.in_proj_dim == Some(0) {
            return out_of_range("in_proj_dim", "0".into(), "at least 1".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return out_of_range("dropout", self.dropout.to_string(), "at least 0 and below 1".into());
        }
        let Some(genetic) = &self.genetic else { return Ok(()) };
        genetic.validate()?;
        if self.causal && genetic.num_generations > 0 {
            let what =
                "the causal form of genetic attention uses the fixed point: with causal set num_generations to 0";
            return Err(InvalidAttention::Mismatch(format!("{what} (it is {})", genetic.num_generations)));
        }
        Ok(())
    }
}

/// Multi-head self-attention with its projections; its parameters live in the model's [`mendel_engine::Parameters`].
#[derive(Clone, Debug)]
pub struct Attention {
    /// The module's shape.
    pub config: AttentionConfig,
    /// The module's layer, which names its random draws.
    pub layer: u32,
    /// `[in_proj_dim, H]`, before the three projections.
    pub in_proj: Option<Linear>,
    /// `[H, H or in_proj_dim]`
    pub query: Linear,
    /// `[n_kv_heads·d, H or in_proj_dim]`
    pub key: Linear,
    /// `[n_kv_heads·d, H or in_proj_dim]`
    pub value: Linear,
    /// `[H, H]`
    pub output: Linear,
    /// Gains `[d]` of the norms on queries and keys.
    pub qk_norm: Option<[ParameterId; 2]>,
}

impl Attention {
    /// `[N, H] → [N, h·d]`, within each sequence: the heads side by side, which the output map follows.
    pub fn mix(&self, pass: &Pass<'_>, x: &Var) -> mendel_engine::Result<Var> {
        let latent = match &self.in_proj {
            Some(in_proj) => &in_proj.forward(pass, x)?,
            None => x,
        };
        let [mut query, mut key, value] = Linear::forward_all([&self.query, &self.key, &self.value], pass, latent)?;
        if let Some([query_gain, key_gain]) = self.qk_norm {
            query = query.rms_norm(&pass.parameter(query_gain), QK_NORM_EPSILON)?;
            key = key.rms_norm(&pass.parameter(key_gain), QK_NORM_EPSILON)?;
        }
        let (core, sequences) = (self.core(pass), pass.sequences);
        match &self.config.genetic {
            None => Var::attention(&query, &key, &value, sequences, core),
            Some(genetic) => {
                let part = self.genetic_part(genetic, pass, &value)?;
                Var::genetic_attention(&query, &key, &value, sequences, core, part)
            }
        }
    }

    fn core(&self, pass: &Pass<'_>) -> Core {
        let dropout = pass
            .site(Purpose::AttentionDropout, self.layer)
            .filter(|_| self.config.dropout > 0.0)
            .map(|site| AttentionDropout { probability: self.config.dropout, site });
        let AttentionConfig { n_heads, n_kv_heads, causal, .. } = self.config;
        Core { n_heads, n_kv_heads, causal, dropout }
    }

    /// How gene fitness `γ` is made from the values, and how attention's output is modulated by it: `s·γ ⊙` (section 2),
    /// by the identity there the same as attention over `V ⊙ s·γ`.
    fn genetic_part(
        &self,
        genetic: &Genetic,
        pass: &Pass<'_>,
        value: &Var,
    ) -> mendel_engine::Result<attention::Genetic> {
        let (head_dim, causal) = (self.config.head_dim(), self.config.causal);
        let (ancestry, known) = match self.evolved(genetic, pass, value.value())? {
            Some(Evolved { ancestry, fitness }) => (Some(ancestry), Some(fitness)),
            None => (None, None),
        };
        let fitness = GeneFitness { head_dim, causal, ancestry };
        if let Some(probe) = pass.probe {
            let host = |tensor: &Tensor| tensor.to_device(&Device::cpu());
            let seen = pass.tape.constant(value.value().clone()).gene_fitness(pass.sequences, fitness.clone())?;
            let (values, gamma) = (&host(value.value())?, &host(seen.value())?);
            let ancestry = fitness.ancestry.as_ref().map(|ancestry| host(&ancestry.shares())).transpose()?;
            let (ancestry, sequences) = (ancestry.as_ref(), pass.sequences);
            probe.layer(&Seen { values, fitness: gamma, ancestry, sequences, head_dim, causal }, genetic);
        }
        let scale = match genetic.fitness_scale {
            FitnessScale::UnitMean => head_dim as f32,
            FitnessScale::UnitSum => 1.0,
        };
        Ok(attention::Genetic { fitness, known, modulate: Modulate { head_dim, scale } })
    }

    /// What evolution leaves (section 3); nothing at the fixed point. Evaluation takes the infinite population, so that
    /// an embedding depends on its text alone.
    fn evolved(&self, genetic: &Genetic, pass: &Pass<'_>, values: &Tensor) -> mendel_engine::Result<Option<Evolved>> {
        if genetic.num_generations == 0 {
            return Ok(None);
        }
        let population = match (pass.mode, genetic.evolution) {
            (Mode::Training { seed, step }, Evolution::Sampled) => {
                Population::Sampled { size: genetic.population_size, seed, step, layer: self.layer }
            }
            _ => Population::Infinite,
        };
        let options = Evolve {
            head_dim: self.config.head_dim(),
            num_generations: genetic.num_generations,
            mutation_rate: genetic.mutation_rate as f32,
            crossover_rate: genetic.crossover_rate as f32,
            selection_pressure: genetic.selection_pressure as f32,
            population,
        };
        evolve(values, pass.sequences, options).map(Some)
    }
}

#[cfg(test)]
mod tests;
