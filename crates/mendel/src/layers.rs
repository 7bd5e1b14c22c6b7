//! What the model's modules share: the pass that they are part of, and the affine map.

use crate::attention::Probe;
use mendel_engine::ops::residual_norm::{End, Norm, ResidualDropout};
use mendel_engine::random::{Purpose, Site};
use mendel_engine::{Device, Ids, ParameterId, Parameters, Sequences, Tape, Var};

/// Whether a forward pass draws random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None: no dropout, infinite populations. A text's embedding depends on the text alone.
    Evaluation,
    /// Dropout and sampled populations, drawn for this step.
    Training {
        /// The run's seed.
        seed: u64,
        /// The training step.
        step: u32,
    },
}

/// One forward pass: what every module needs besides its input.
pub struct Pass<'a> {
    /// Where operations are recorded.
    pub tape: &'a Tape,
    /// The model's parameters.
    pub parameters: &'a Parameters,
    /// The sequences in the batch.
    pub sequences: &'a Sequences,
    /// Training or evaluation.
    pub mode: Mode,
    /// Looks at what genetic attention does, where that is asked for.
    pub probe: Option<&'a Probe>,
}

impl Pass<'_> {
    /// A parameter on the pass's tape.
    pub fn parameter(&self, id: ParameterId) -> Var {
        self.tape.parameter(self.parameters, id)
    }

    /// Where random numbers are drawn; `None` in evaluation.
    pub fn site(&self, purpose: Purpose, layer: u32) -> Option<Site> {
        match self.mode {
            Mode::Evaluation => None,
            Mode::Training { seed, step } => Some(Site { seed, step, layer, purpose }),
        }
    }

    /// Dropout before a residual sum, in training.
    pub fn residual_dropout(&self, probability: f32, purpose: Purpose, layer: u32) -> Option<ResidualDropout> {
        self.site(purpose, layer).map(|site| ResidualDropout { probability, site })
    }

    /// Dropout in training, nothing in evaluation.
    pub fn dropout(&self, x: Var, probability: f32, purpose: Purpose, layer: u32) -> mendel_engine::Result<Var> {
        match self.site(purpose, layer) {
            Some(site) => x.dropout(self.sequences, probability, site),
            None => Ok(x),
        }
    }
}

/// `x Wᵀ + b`
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: ParameterId,
    /// `[out]`
    pub bias: Option<ParameterId>,
}

impl Linear {
    /// `[N, in] → [N, out]`
    pub fn forward(&self, pass: &Pass<'_>, x: &Var) -> mendel_engine::Result<Var> {
        let (weight, bias) = self.parameters(pass);
        x.linear(&weight, bias.as_ref())
    }

    /// Several maps of one input.
    pub fn forward_all<const K: usize>(
        maps: [&Linear; K],
        pass: &Pass<'_>,
        x: &Var,
    ) -> mendel_engine::Result<[Var; K]> {
        let parameters = maps.map(|map| map.parameters(pass));
        let results = x.linears(&parameters.each_ref().map(|(weight, bias)| (weight, bias.as_ref())))?;
        Ok(results.try_into().unwrap_or_else(|_| unreachable!("as many results as maps")))
    }

    fn parameters(&self, pass: &Pass<'_>) -> (Var, Option<Var>) {
        (pass.parameter(self.weight), self.bias.map(|bias| pass.parameter(bias)))
    }
}

/// Layer norm with its gain and bias.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// `[H]`
    pub weight: ParameterId,
    /// `[H]`
    pub bias: ParameterId,
    /// Added to the variance.
    pub epsilon: f32,
}

impl LayerNorm {
    /// `[N, H] → [N, H]`
    pub fn forward(&self, pass: &Pass<'_>, x: &Var) -> mendel_engine::Result<Var> {
        x.layer_norm(&pass.parameter(self.weight), &pass.parameter(self.bias), self.epsilon)
    }

    /// The norm of `residual + dropout(map(x))`, all `[N, H]`.
    pub fn after_linear(
        &self,
        pass: &Pass<'_>,
        (map, x): (&Linear, &Var),
        (residual, dropout): (&Var, Option<ResidualDropout>),
    ) -> mendel_engine::Result<Var> {
        let (gain, bias) = self.parameters(pass);
        let (weight, of_map) = map.parameters(pass);
        let norm = Norm { gain: &gain, bias: &bias, epsilon: self.epsilon };
        x.linear_norm((&weight, of_map.as_ref()), End { residual, sequences: pass.sequences, dropout, norm })
    }

    /// The norm of `x + dropout(outer(gelu(inner(x))))`, all `[N, H]`.
    pub fn after_feed_forward(
        &self,
        pass: &Pass<'_>,
        maps: [&Linear; 2],
        x: &Var,
        dropout: Option<ResidualDropout>,
    ) -> mendel_engine::Result<Var> {
        let (gain, bias) = self.parameters(pass);
        let parameters = maps.map(|map| map.parameters(pass));
        let maps = parameters.each_ref().map(|(weight, bias)| (weight, bias.as_ref()));
        let norm = Norm { gain: &gain, bias: &bias, epsilon: self.epsilon };
        x.feed_forward_norm(maps, End { residual: x, sequences: pass.sequences, dropout, norm })
    }

    fn parameters(&self, pass: &Pass<'_>) -> (Var, Var) {
        (pass.parameter(self.weight), pass.parameter(self.bias))
    }
}

/// Texts as token ids, packed one after the other without padding.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The texts' boundaries.
    pub sequences: Sequences,
    /// `[N]`
    pub token_ids: Ids,
    /// `[N]`: each token's place in its text.
    pub position_ids: Ids,
}

impl Batch {
    /// Packs texts; `ids` are the numbers by which the random generator knows them.
    pub fn pack(device: &Device, texts: &[&[u32]], ids: &[u32]) -> mendel_engine::Result<Self> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let sequences = Sequences::new(device, &lengths, ids)?;
        let positions: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        let tokens = [sequences.tokens()];
        Ok(Batch {
            token_ids: Ids::known_from_slice(device, &tokens, &texts.concat())?,
            position_ids: Ids::known_from_slice(device, &tokens, &positions)?,
            sequences,
        })
    }
}
