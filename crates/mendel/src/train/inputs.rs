//! What every arm of a run works with: model source, tokenised training pairs, evaluation texts.

use std::path::{Path, PathBuf};

use mendel_engine::Device;
use tracing::info;

use super::batch::TrainingPairs;
use super::error::TrainError;
use super::state::Fingerprints;
use crate::arm::Arm;
use crate::bert::{BertBuilder, BertConfig, BertModel, ModelError};
use crate::data::demo::demo_tokenizer;
use crate::data::{DataRequest, LoadOptions, Sampler, TokenCache};
use crate::dual_encoder::DualEncoder;
use crate::evaluate::{EvaluationError, Evaluator};
use crate::hub;
use crate::progress::{Event, Observer};
use crate::settings::Settings;
use crate::texts::TextEncoder;
use crate::tokenizer::Tokenizer;

/// The built-in model's name.
const DEMO_TINY: &str = "demo-tiny";

/// Where architecture and weights come from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// The built-in architecture, drawn.
    DemoTiny(Box<BertConfig>),
    /// A folder in the Transformers layout.
    Folder(PathBuf),
}

/// What every arm of a run works with.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Where architecture and weights come from.
    pub source: ModelSource,
    /// From texts to tokens.
    pub texts: TextEncoder,
    /// The training pairs.
    pub pairs: TrainingPairs,
    /// What the data is recognised by when a run resumes.
    pub fingerprints: Fingerprints,
    /// What is evaluated.
    pub evaluator: Evaluator,
    /// Where the models live.
    pub device: Device,
}

/// The folder of a model that is not built in: one that is here, or one of the Hub's, which is fetched where it is not in
/// the cache.
pub fn model_folder(model: &str, observer: &mut dyn Observer) -> Result<PathBuf, TrainError> {
    if Path::new(model).exists() {
        return Ok(model.into());
    }
    if model == DEMO_TINY {
        return Err(TrainError::NoModel(model.into()));
    }
    hub::model(model, observer)?.ok_or_else(|| TrainError::NoModel(model.into()))
}

/// The model's source and tokenizer, checked to belong together, and the longest text that the model takes.
pub fn open_model(model: &str, observer: &mut dyn Observer) -> Result<(ModelSource, Tokenizer, usize), TrainError> {
    let (source, config, tokenizer) = if model == DEMO_TINY {
        let tokenizer = demo_tokenizer();
        let config = BertConfig::demo_tiny(tokenizer.vocab_size());
        (ModelSource::DemoTiny(Box::new(config.clone())), config, tokenizer)
    } else {
        let folder = model_folder(model, observer)?;
        let (config, tokenizer) = (BertConfig::load(&folder)?, Tokenizer::from_folder(&folder)?);
        (ModelSource::Folder(folder), config, tokenizer)
    };
    let (tokens, vocabulary) = (tokenizer.vocab_size(), config.vocab_size);
    if tokens > vocabulary {
        return Err(TrainError::Vocabulary { model: model.into(), tokens, vocabulary });
    }
    Ok((source, tokenizer, config.max_position_embeddings))
}

impl ModelSource {
    /// The model with an arm's attention.
    pub fn build(&self, settings: &Settings, arm: &Arm, device: &Device) -> Result<BertModel, TrainError> {
        self.builder(settings, arm).device(device).build().map_err(of_settings)
    }

    /// Refuses settings that give an arm an attention that the model cannot have. Reads no weights.
    pub fn check(&self, settings: &Settings) -> Result<(), TrainError> {
        let check = |arm: &Arm| self.builder(settings, arm).configuration().map(drop).map_err(of_settings);
        settings.arms.iter().try_for_each(check)
    }

    fn builder(&self, settings: &Settings, arm: &Arm) -> BertBuilder {
        let settings = &arm.applied_to(settings);
        let mut builder = BertModel::builder().seed(settings.seed).from_scratch(settings.from_scratch);
        builder = match self {
            ModelSource::DemoTiny(config) => builder.config((**config).clone()),
            ModelSource::Folder(folder) => builder.folder(folder),
        };
        builder = if arm.genetic { builder.genetic(settings.genetic) } else { builder.standard() };
        if let Some(heads) = settings.n_heads {
            builder = builder.n_heads(heads);
        }
        if let Some(heads) = settings.n_kv_heads {
            builder = builder.n_kv_heads(heads);
        }
        if let Some(width) = settings.in_proj_dim {
            builder = builder.in_proj_dim(width);
        }
        if let Some(probability) = settings.dropout {
            builder = builder.dropout(probability as f32);
        }
        if settings.qk_norm {
            builder = builder.qk_norm();
        }
        if !settings.attention_bias {
            builder = builder.without_attention_bias();
        }
        if settings.causal {
            builder = builder.causal();
        }
        builder
    }
}

/// The model's own attention was found good when it was opened: what is wrong with that of an arm is in the settings.
fn of_settings(error: ModelError) -> TrainError {
    match error {
        ModelError::Attention(invalid) => TrainError::Setting(invalid.into()),
        other => other.into(),
    }
}

/// The data that the settings name.
pub fn data_request(settings: &Settings) -> DataRequest<'_> {
    DataRequest {
        dataset: &settings.dataset,
        eval_dataset: settings.eval_dataset.as_deref(),
        eval_queries: settings.eval_queries,
        options: LoadOptions { max_bad_rows: settings.max_bad_rows },
    }
}

impl Inputs {
    /// Reads model, tokenizer and data, and tokenises.
    pub fn load(settings: &Settings, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        // First of all: a GPU that is not there is told at once, and one that is compiles its kernels meanwhile.
        let device = settings.device()?;
        let (source, tokenizer, positions) = open_model(&settings.model, observer)?;
        source.check(settings)?;
        let texts = TextEncoder::new(tokenizer, settings, positions);
        // The default is nobody's wish.
        if settings.max_seq_len > positions && settings.max_seq_len != Settings::default().max_seq_len {
            let wanted = settings.max_seq_len;
            let what =
                format!("the model has {positions} positions: texts are cut there, not at --max-seq-len {wanted}");
            observer.observe(Event::Warning(what));
        }
        let cache = TokenCache { folder: settings.token_folder()?, encoder: texts };
        let split = data_request(settings).split(&cache, observer)?;
        let pairs = TrainingPairs::new(split.store, split.training, settings.hard_negatives);
        let has_negatives = pairs.have_negatives();
        if settings.batch_size == 1 && !has_negatives {
            return Err(TrainError::NothingToContrast(settings.dataset.clone()));
        }
        if settings.hard_negatives > 0 && !has_negatives {
            let what = format!("no pair of '{}' has negatives: --hard-negatives has no effect", settings.dataset);
            observer.observe(Event::Warning(what));
        }
        // Refuses what no seed can deal.
        Sampler::new(pairs.len(), settings.batch_size, settings.seed)?;
        if split.evaluation.queries.is_empty() {
            return Err(EvaluationError::NoQueries.into());
        }
        let fingerprints =
            Fingerprints { training: pairs.fingerprint(), evaluation: split.evaluation.fingerprint.clone() };
        let evaluator =
            Evaluator { set: split.evaluation, batch_size: settings.batch_size, temperature: settings.temperature };
        let texts = cache.encoder;
        let (fingerprint, max_seq_len) = (&fingerprints.training, texts.max_seq_len);
        info!(pairs = pairs.len(), fingerprint, max_seq_len, "the training pairs are at hand");
        Ok(Inputs { source, texts, pairs, fingerprints, evaluator, device })
    }

    /// Deals the training pairs out, in an order that the seed decides.
    pub fn sampler(&self, settings: &Settings) -> Result<Sampler, TrainError> {
        Ok(Sampler::new(self.pairs.len(), settings.batch_size, settings.seed)?)
    }

    /// An arm's model before training.
    pub fn encoder(&self, settings: &Settings, arm: &Arm) -> Result<DualEncoder, TrainError> {
        Ok(DualEncoder { bert: self.source.build(settings, arm, &self.device)?, pooling: settings.pooling })
    }
}
