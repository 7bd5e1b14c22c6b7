//! How a model comes about: from a folder or drawn, with the attention that is asked for.

use std::path::{Path, PathBuf};

use mendel_engine::{Device, Parameters};

use super::files::{WEIGHTS_FILE, read_parameters, read_weights};
use super::layout::{declare, draw, draw_all};
use super::{BertConfig, BertModel, ModelError};
use crate::attention::Genetic;

/// Builds a [`BertModel`]. What is not said stays as the folder's or the given configuration has it.
///
/// ```
/// use mendel::{attention::Genetic, bert::{BertConfig, BertModel}, default};
///
/// let model = BertModel::builder()
///     .config(BertConfig::demo_tiny(1000))
///     .genetic(Genetic { population_size: 64, num_generations: 10, ..default() })
///     .build()?;
/// assert_eq!(model.config().genetic.unwrap().population_size, 64);
/// # Ok::<(), mendel::bert::ModelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BertBuilder {
    config: Option<BertConfig>,
    folder: Option<PathBuf>,
    from_scratch: bool,
    seed: u64,
    device: Device,
    changes: Vec<Change>,
}

/// A change to the configuration, made after the folder's has been read.
#[derive(Clone, Copy, Debug)]
enum Change {
    Genetic(Option<Genetic>),
    Heads(usize),
    KvHeads(usize),
    InProjDim(usize),
    QkNorm,
    WithoutBias,
    Causal,
    Dropout(f32),
}

impl Change {
    fn apply(self, config: &mut BertConfig) {
        match self {
            Change::Genetic(genetic) => config.genetic = genetic,
            Change::Heads(heads) => config.num_attention_heads = heads,
            Change::KvHeads(heads) => config.n_kv_heads = Some(heads),
            Change::InProjDim(width) => config.in_proj_dim = Some(width),
            Change::QkNorm => config.qk_norm = true,
            Change::WithoutBias => config.attention_bias = false,
            Change::Causal => config.causal = true,
            Change::Dropout(probability) => {
                config.hidden_dropout_prob = probability;
                config.attention_probs_dropout_prob = probability;
            }
        }
    }
}

impl BertModel {
    /// Begins with bert-base's architecture, drawn weights, standard attention, on the CPU.
    pub fn builder() -> BertBuilder {
        BertBuilder {
            config: None,
            folder: None,
            from_scratch: false,
            seed: 42,
            device: Device::cpu(),
            changes: Vec::new(),
        }
    }
}

impl BertBuilder {
    /// The architecture, where it is not a folder's.
    pub fn config(mut self, config: BertConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Architecture and weights from a folder in the Transformers layout.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Keep the folder's architecture, draw the weights.
    pub fn from_scratch(mut self, from_scratch: bool) -> Self {
        self.from_scratch = from_scratch;
        self
    }

    /// Decides drawn weights.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Where the model lives.
    pub fn device(mut self, device: &Device) -> Self {
        self.device = device.clone();
        self
    }

    fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Genetic attention in every layer.
    pub fn genetic(self, genetic: Genetic) -> Self {
        self.change(Change::Genetic(Some(genetic)))
    }

    /// Standard attention in every layer.
    pub fn standard(self) -> Self {
        self.change(Change::Genetic(None))
    }

    /// So many query heads.
    pub fn n_heads(self, heads: usize) -> Self {
        self.change(Change::Heads(heads))
    }

    /// Grouped-query attention with so many key and value heads.
    pub fn n_kv_heads(self, heads: usize) -> Self {
        self.change(Change::KvHeads(heads))
    }

    /// Latent attention of this width.
    pub fn in_proj_dim(self, width: usize) -> Self {
        self.change(Change::InProjDim(width))
    }

    /// RMS norm on each head's queries and keys.
    pub fn qk_norm(self) -> Self {
        self.change(Change::QkNorm)
    }

    /// No biases in the attention's projections.
    pub fn without_attention_bias(self) -> Self {
        self.change(Change::WithoutBias)
    }

    /// Each position sees only itself and those before it.
    pub fn causal(self) -> Self {
        self.change(Change::Causal)
    }

    /// Dropout on activations and attention probabilities.
    pub fn dropout(self, probability: f32) -> Self {
        self.change(Change::Dropout(probability))
    }

    fn base(&self) -> Result<BertConfig, ModelError> {
        match &self.folder {
            Some(folder) => BertConfig::load(folder),
            None => Ok(self.config.clone().unwrap_or_default()),
        }
    }

    /// The configuration that the model will have; no weights are read.
    ///
    /// # Errors
    /// Where the folder has none, or the encoder cannot be so.
    pub fn configuration(&self) -> Result<BertConfig, ModelError> {
        let mut config = self.base()?;
        self.changes.iter().for_each(|change| change.apply(&mut config));
        config.validate()?;
        Ok(config)
    }

    /// The model. A folder's tensors must be those that its own configuration declares; tensors that only the
    /// changes ask for are drawn, and one that the changes give another shape is an error that names both shapes.
    pub fn build(self) -> Result<BertModel, ModelError> {
        let (base, config) = (self.base()?, self.configuration()?);
        let parameters = match self.folder.as_deref().filter(|_| !self.from_scratch) {
            Some(folder) => self.load(folder, &base, &config)?,
            None => draw_all(&config, self.seed, &self.device),
        };
        BertModel::new(config, parameters, &self.device)
    }

    fn load(&self, folder: &Path, base: &BertConfig, config: &BertConfig) -> Result<Parameters, ModelError> {
        let file = folder.join(WEIGHTS_FILE).display().to_string();
        let stored = read_parameters(&file, &read_weights(folder)?, base, &self.device)?;
        let mut parameters = Parameters::default();
        for declared in declare(config) {
            let tensor = match stored.id(&declared.name).map(|id| stored.get(id)) {
                None => draw(&declared, config, self.seed, &self.device),
                Some(tensor) if tensor.shape() == declared.shape => tensor.clone(),
                Some(tensor) => {
                    let (name, found) = (declared.name, tensor.shape().to_vec());
                    return Err(ModelError::Misshapen { name, file, found, expected: declared.shape });
                }
            };
            parameters.insert(&declared.name, tensor);
        }
        Ok(parameters)
    }
}
