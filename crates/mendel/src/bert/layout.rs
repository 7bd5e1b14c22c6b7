//! The encoder's parameters: names, shapes and initial values, in one list.

use mendel_engine::random::{Stream, fill_normal};
use mendel_engine::{Device, Parameters, Tensor};

use super::BertConfig;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Normal draws of deviation `initializer_range`.
    Normal,
    /// The same, with the padding token's row 0.
    NormalButPadding,
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
}

/// A parameter as the configuration asks for it; names are those of Transformers' `BertModel`.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The parameter's name, without a `bert.` prefix.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initial: Initial,
}

/// Collects declarations under a common prefix.
struct Declarations(Vec<Declared>);

impl Declarations {
    fn tensor(&mut self, name: String, shape: &[usize], initial: Initial) {
        self.0.push(Declared { name, shape: shape.to_vec(), initial });
    }

    fn linear(&mut self, name: &str, output: usize, input: usize, bias: bool) {
        self.tensor(format!("{name}.weight"), &[output, input], Initial::Normal);
        if bias {
            self.tensor(format!("{name}.bias"), &[output], Initial::Zeros);
        }
    }

    fn layer_norm(&mut self, name: &str, width: usize) {
        self.tensor(format!("{name}.weight"), &[width], Initial::Ones);
        self.tensor(format!("{name}.bias"), &[width], Initial::Zeros);
    }

    fn layer(&mut self, config: &BertConfig, layer: usize) {
        let attention = config.attention();
        let width = config.hidden_size;
        let kv_width = attention.n_kv_heads * attention.head_dim();
        let latent = attention.in_proj_dim.unwrap_or(width);
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        if attention.in_proj_dim.is_some() {
            self.linear(&at("attention.self.in_proj"), latent, width, attention.bias);
        }
        self.linear(&at("attention.self.query"), width, latent, attention.bias);
        self.linear(&at("attention.self.key"), kv_width, latent, attention.bias);
        self.linear(&at("attention.self.value"), kv_width, latent, attention.bias);
        if attention.qk_norm {
            self.tensor(at("attention.self.query_norm.weight"), &[attention.head_dim()], Initial::Ones);
            self.tensor(at("attention.self.key_norm.weight"), &[attention.head_dim()], Initial::Ones);
        }
        self.linear(&at("attention.output.dense"), width, width, attention.bias);
        self.layer_norm(&at("attention.output.LayerNorm"), width);
        self.linear(&at("intermediate.dense"), config.intermediate_size, width, true);
        self.linear(&at("output.dense"), width, config.intermediate_size, true);
        self.layer_norm(&at("output.LayerNorm"), width);
    }
}

/// Every parameter of the encoder.
pub fn declare(config: &BertConfig) -> Vec<Declared> {
    let mut all = Declarations(Vec::new());
    let width = config.hidden_size;
    let embedding = |table: &str| format!("embeddings.{table}_embeddings.weight");
    all.tensor(embedding("word"), &[config.vocab_size, width], Initial::NormalButPadding);
    all.tensor(embedding("position"), &[config.max_position_embeddings, width], Initial::Normal);
    all.tensor(embedding("token_type"), &[config.type_vocab_size, width], Initial::Normal);
    all.layer_norm("embeddings.LayerNorm", width);
    (0..config.num_hidden_layers).for_each(|layer| all.layer(config, layer));
    all.0
}

/// A parameter's initial value: drawn by the seed and the parameter's name, so that two models share what they share.
pub fn draw(declared: &Declared, config: &BertConfig, seed: u64, device: &Device) -> Tensor {
    let draws = Stream::weights(seed, &declared.name);
    Tensor::filled(device, &declared.shape, |values| match declared.initial {
        Initial::Ones => values.fill(1.0),
        Initial::Zeros => values.fill(0.0),
        Initial::Normal => fill_normal(&draws, config.initializer_range, values),
        Initial::NormalButPadding => {
            fill_normal(&draws, config.initializer_range, values);
            if let Some(row) = values.chunks_exact_mut(config.hidden_size).nth(config.pad_token_id) {
                row.fill(0.0);
            }
        }
    })
}

/// All parameters drawn.
pub fn draw_all(config: &BertConfig, seed: u64, device: &Device) -> Parameters {
    let mut parameters = Parameters::default();
    for declared in declare(config) {
        parameters.insert(&declared.name, draw(&declared, config, seed, device));
    }
    parameters
}
