//! BERT's configuration: `config.json` in the Transformers layout, and beside its fields those of the attention module.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::ModelError;
use crate::attention::{AttentionConfig, Genetic};

/// A BERT encoder's shape. Unset fields of `config.json` have bert-base-uncased's values; fields that are not ours are
/// kept and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width `H`.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// The feed-forward block's activation: `gelu`.
    pub hidden_act: String,
    /// Dropout on activations.
    pub hidden_dropout_prob: f32,
    /// Dropout on attention probabilities.
    pub attention_probs_dropout_prob: f32,
    /// Longest text in tokens.
    pub max_position_embeddings: usize,
    /// Token types.
    pub type_vocab_size: usize,
    /// Standard deviation of drawn weights.
    pub initializer_range: f32,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
    /// The padding token, whose drawn embedding is 0.
    pub pad_token_id: usize,
    /// Position embeddings: `absolute`.
    pub position_embedding_type: String,
    /// Key and value heads; without it as many as query heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Width of the latent projection before queries, keys and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_proj_dim: Option<usize>,
    /// RMS norm on queries and keys.
    #[serde(skip_serializing_if = "is_false")]
    pub qk_norm: bool,
    /// Whether each position sees only itself and those before it.
    #[serde(skip_serializing_if = "is_false")]
    pub causal: bool,
    /// Whether the attention's projections have biases.
    #[serde(skip_serializing_if = "is_true")]
    pub attention_bias: bool,
    /// The genetic part of the attention.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "known_fields")]
    pub genetic: Option<Genetic>,
    /// Fields of `config.json` that do not concern the encoder.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The genetic part, where a field of another name is an error: it would be a parameter that has no effect.
/// (`Genetic` itself cannot refuse them, because settings hold it flattened among others.)
fn known_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Genetic>, D::Error> {
    let Some(fields) = Option::<Map<String, Value>>::deserialize(deserializer)? else { return Ok(None) };
    let known = serde_json::to_value(Genetic::default()).map_err(D::Error::custom)?;
    match fields.keys().find(|name| known.get(name).is_none()) {
        Some(name) => Err(D::Error::custom(format!("the genetic part has no field '{name}'"))),
        None => serde_json::from_value(Value::Object(fields)).map(Some).map_err(D::Error::custom),
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_true(flag: &bool) -> bool {
    *flag
}

impl Default for BertConfig {
    fn default() -> Self {
        BertConfig {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            position_embedding_type: "absolute".into(),
            n_kv_heads: None,
            in_proj_dim: None,
            qk_norm: false,
            causal: false,
            attention_bias: true,
            genetic: None,
            other: Map::from_iter([
                ("architectures".into(), Value::from(vec!["BertModel"])),
                ("model_type".into(), Value::from("bert")),
            ]),
        }
    }
}

impl BertConfig {
    /// The shape of all-MiniLM-L6: 6 layers, width 384.
    pub fn minilm() -> Self {
        let (hidden_size, num_hidden_layers, intermediate_size) = (384, 6, 1536);
        BertConfig { hidden_size, num_hidden_layers, intermediate_size, ..Self::default() }
    }

    /// A model small enough to learn the built-in demo in about a minute.
    pub fn demo_tiny(vocab_size: usize) -> Self {
        BertConfig {
            vocab_size,
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            intermediate_size: 512,
            max_position_embeddings: 128,
            ..Self::default()
        }
    }

    /// The attention module of every layer.
    pub fn attention(&self) -> AttentionConfig {
        AttentionConfig {
            hidden_size: self.hidden_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.n_kv_heads.unwrap_or(self.num_attention_heads),
            in_proj_dim: self.in_proj_dim,
            qk_norm: self.qk_norm,
            bias: self.attention_bias,
            dropout: self.attention_probs_dropout_prob,
            causal: self.causal,
            genetic: self.genetic,
        }
    }

    /// Refuses what this encoder cannot be.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.attention().validate()?;
        let unsupported =
            |field, value: &str, supported| Err(ModelError::Unsupported { field, value: value.to_owned(), supported });
        if self.hidden_act != "gelu" {
            return unsupported("hidden_act", &self.hidden_act, "gelu");
        }
        if self.position_embedding_type != "absolute" {
            return unsupported("position_embedding_type", &self.position_embedding_type, "absolute");
        }
        if let Some(kind) = self.other.get("model_type").and_then(Value::as_str).filter(|&kind| kind != "bert") {
            return unsupported("model_type", kind, "bert");
        }
        if !(0.0..1.0).contains(&self.hidden_dropout_prob) {
            return unsupported("hidden_dropout_prob", &self.hidden_dropout_prob.to_string(), "at least 0 and below 1");
        }
        if !(1..=256).contains(&self.num_hidden_layers) {
            return unsupported("num_hidden_layers", &self.num_hidden_layers.to_string(), "1 to 256");
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((field, _)) => unsupported(field, "0", "at least 1"),
            None => Ok(()),
        }
    }
}
