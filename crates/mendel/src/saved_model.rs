//! A trained dual encoder on disk: the Transformers layout, and how its texts are encoded.

use std::path::Path;

use mendel_engine::Device;
use serde::{Deserialize, Serialize};

use crate::bert::BertModel;
use crate::dual_encoder::DualEncoder;
use crate::files::write_atomically;
use crate::settings::{Pooling, Settings};
use crate::texts::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::train::TrainError;

/// The file beside the Transformers layout that says how texts are encoded.
pub const ENCODING_FILE: &str = "dual_encoder.json";

/// A dual encoder with what turns texts into its tokens.
#[derive(Clone, Debug)]
pub struct SavedModel {
    /// The encoder of tokens.
    pub encoder: DualEncoder,
    /// From texts to tokens.
    pub texts: TextEncoder,
}

/// The contents of [`ENCODING_FILE`]: settings by their names, which a folder of another origin may lack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Encoding {
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Longest text in tokens.
    pub max_seq_len: usize,
    /// Text put before each query.
    pub query_prefix: String,
    /// Text put before each passage.
    pub passage_prefix: String,
}

impl Encoding {
    /// What a model folder says; `None` where it has no [`ENCODING_FILE`].
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join(ENCODING_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let read = || -> std::io::Result<Self> { Ok(serde_json::from_slice(&std::fs::read(&path)?)?) };
        read().map(Some).map_err(|error| TrainError::Encoding { path: path.clone(), reason: error.to_string() })
    }
}

impl SavedModel {
    /// Reads a model folder; how texts are encoded is as the settings say.
    pub fn load(settings: &Settings) -> Result<Self, TrainError> {
        let folder = Path::new(&settings.model);
        if !folder.exists() {
            return Err(TrainError::NoModel(settings.model.clone()));
        }
        let bert = BertModel::builder().folder(folder).device(&Device::cpu()).build()?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        let texts = TextEncoder::new(tokenizer, settings, bert.config().max_position_embeddings);
        Ok(SavedModel { encoder: DualEncoder { bert, pooling: settings.pooling }, texts })
    }

    /// Writes the Transformers layout, the tokenizer and [`ENCODING_FILE`] into a folder.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.encoder.bert.save(folder)?;
        self.texts.tokenizer.save(folder)?;
        let encoding = Encoding {
            pooling: self.encoder.pooling,
            max_seq_len: self.texts.max_seq_len,
            query_prefix: self.texts.query_prefix.clone(),
            passage_prefix: self.texts.passage_prefix.clone(),
        };
        let text = serde_json::to_vec_pretty(&encoding).expect("an encoding is plain data");
        Ok(write_atomically(&folder.join(ENCODING_FILE), &text)?)
    }
}
