//! The encoder (Devlin et al. 2019, arXiv 1810.04805): embeddings, then layers of attention and feed-forward block.

use mendel_engine::random::Purpose;
use mendel_engine::{Device, Ids, ParameterId, Parameters, Tape, Var};

use super::{BertConfig, ModelError};
use crate::attention::{Attention, GeneticView, Probe};
use crate::layers::{Batch, LayerNorm, Linear, Mode, Pass};

/// A BERT encoder: configuration, parameters, and where each module finds its own.
#[derive(Clone, Debug)]
pub struct BertModel {
    config: BertConfig,
    parameters: Parameters,
    device: Device,
    /// Word, position and token-type tables.
    tables: [ParameterId; 3],
    norm: LayerNorm,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

/// Finds parameters by name.
struct Finder<'a> {
    config: &'a BertConfig,
    parameters: &'a Parameters,
}

impl Finder<'_> {
    fn tensor(&self, name: &str) -> Result<ParameterId, ModelError> {
        self.parameters.id(name).ok_or_else(|| ModelError::Missing { name: name.into(), file: "the parameters".into() })
    }

    fn linear(&self, name: &str, bias: bool) -> Result<Linear, ModelError> {
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"))).transpose()?;
        Ok(Linear { weight: self.tensor(&format!("{name}.weight"))?, bias })
    }

    fn layer_norm(&self, name: &str) -> Result<LayerNorm, ModelError> {
        Ok(LayerNorm {
            weight: self.tensor(&format!("{name}.weight"))?,
            bias: self.tensor(&format!("{name}.bias"))?,
            epsilon: self.config.layer_norm_eps,
        })
    }

    fn attention(&self, layer: usize) -> Result<Attention, ModelError> {
        let config = self.config.attention();
        let at = |name: &str| format!("encoder.layer.{layer}.attention.{name}");
        let norm = |name: &str| self.tensor(&at(&format!("self.{name}_norm.weight")));
        Ok(Attention {
            config,
            layer: layer as u32,
            in_proj: config.in_proj_dim.map(|_| self.linear(&at("self.in_proj"), config.bias)).transpose()?,
            query: self.linear(&at("self.query"), config.bias)?,
            key: self.linear(&at("self.key"), config.bias)?,
            value: self.linear(&at("self.value"), config.bias)?,
            output: self.linear(&at("output.dense"), config.bias)?,
            qk_norm: if config.qk_norm { Some([norm("query")?, norm("key")?]) } else { None },
        })
    }

    fn layer(&self, layer: usize) -> Result<Layer, ModelError> {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        Ok(Layer {
            attention: self.attention(layer)?,
            attention_norm: self.layer_norm(&at("attention.output.LayerNorm"))?,
            intermediate: self.linear(&at("intermediate.dense"), true)?,
            output: self.linear(&at("output.dense"), true)?,
            output_norm: self.layer_norm(&at("output.LayerNorm"))?,
        })
    }
}

impl BertModel {
    /// A model from parameters that are exactly those that the configuration declares.
    pub(super) fn new(config: BertConfig, parameters: Parameters, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let find = Finder { config: &config, parameters: &parameters };
        let table = |name: &str| find.tensor(&format!("embeddings.{name}_embeddings.weight"));
        Ok(BertModel {
            tables: [table("word")?, table("position")?, table("token_type")?],
            norm: find.layer_norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers).map(|layer| find.layer(layer)).collect::<Result<_, _>>()?,
            device: device.clone(),
            config,
            parameters,
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The device on which the model lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameters by name.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The parameters, to be trained. Names and shapes must stay.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The last layer's vector of every token, `[N, H]`. Fails on texts longer than the model's positions and on
    /// token ids outside its vocabulary.
    pub fn forward(&self, tape: &Tape, batch: &Batch, mode: Mode) -> mendel_engine::Result<Var> {
        self.run(Pass { tape, parameters: &self.parameters, sequences: &batch.sequences, mode, probe: None }, batch)
    }

    /// How the genetic part acts on texts, in evaluation; empty of standard attention. Fails as [`forward`](Self::forward).
    pub fn genetic_view(&self, batch: &Batch) -> mendel_engine::Result<GeneticView> {
        let (probe, tape) = (Probe::default(), Tape::inference());
        let (parameters, sequences, mode) = (&self.parameters, &batch.sequences, Mode::Evaluation);
        self.run(Pass { tape: &tape, parameters, sequences, mode, probe: Some(&probe) }, batch)?;
        Ok(probe.into_view())
    }

    fn run(&self, pass: Pass<'_>, batch: &Batch) -> mendel_engine::Result<Var> {
        let mut x = self.embed(&pass, batch)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = self.layer(&pass, layer, index as u32, &x)?;
        }
        Ok(x)
    }

    fn embed(&self, pass: &Pass<'_>, batch: &Batch) -> mendel_engine::Result<Var> {
        let token_types = Ids::zeros(&self.device, batch.token_ids.shape());
        let [word, position, token_type] = self.tables.map(|table| pass.parameter(table));
        let ids = [&batch.token_ids, &batch.position_ids, &token_types];
        let sum = Var::embedding_sum(&[(ids[0], &word), (ids[1], &position), (ids[2], &token_type)])?;
        let normed = self.norm.forward(pass, &sum)?;
        pass.dropout(normed, self.config.hidden_dropout_prob, Purpose::EmbeddingDropout, 0)
    }

    fn layer(&self, pass: &Pass<'_>, layer: &Layer, index: u32, x: &Var) -> mendel_engine::Result<Var> {
        let dropout = self.config.hidden_dropout_prob;
        let mixed = layer.attention.mix(pass, x)?;
        let dropped = pass.residual_dropout(dropout, Purpose::AttentionOutputDropout, index);
        let x = &layer.attention_norm.after_linear(pass, (&layer.attention.output, &mixed), (x, dropped))?;
        let dropped = pass.residual_dropout(dropout, Purpose::FeedForwardDropout, index);
        layer.output_norm.after_feed_forward(pass, [&layer.intermediate, &layer.output], x, dropped)
    }
}
