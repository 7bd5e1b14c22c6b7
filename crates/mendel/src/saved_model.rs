//! A trained dual encoder on disk: the Transformers layout, and how its texts are encoded.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bert::BertModel;
use crate::dual_encoder::DualEncoder;
use crate::files::write_atomically;
use crate::progress::Observer;
use crate::settings::{Pooling, Settings};
use crate::texts::TextEncoder;
use crate::tokenizer::Tokenizer;
use crate::train::{TrainError, model_folder};

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

/// Where sentence-transformers keeps the length and the pooling.
const SENTENCE_LENGTH_FILE: &str = "sentence_bert_config.json";
const SENTENCE_POOLING_FILE: &str = "1_Pooling/config.json";

/// How a folder's model takes its texts: settings by their names, as far as the folder says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Encoding {
    /// How token vectors become one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Longest text in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seq_len: Option<usize>,
    /// Text put before each query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_prefix: Option<String>,
    /// Text put before each passage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passage_prefix: Option<String>,
}

impl Encoding {
    /// What a model folder says: in [`ENCODING_FILE`], else in the files of sentence-transformers, else nothing.
    pub fn of_folder(folder: &Path) -> Result<Self, TrainError> {
        if let Some(encoding) = read(&folder.join(ENCODING_FILE))? {
            return Ok(encoding);
        }
        let mut encoding = Encoding::default();
        if let Some(SentenceLength { max_seq_length }) = read(&folder.join(SENTENCE_LENGTH_FILE))? {
            encoding.max_seq_len = max_seq_length;
        }
        let pooling = folder.join(SENTENCE_POOLING_FILE);
        if let Some(modes) = read::<Map<String, Value>>(&pooling)? {
            let unknown = |reason| TrainError::Encoding { path: pooling, reason };
            encoding.pooling = Some(sentence_pooling(&modes).map_err(unknown)?);
        }
        Ok(encoding)
    }
}

impl Encoding {
    /// The settings with what the folder says.
    pub fn apply(self, settings: Settings) -> Settings {
        Settings {
            pooling: self.pooling.unwrap_or(settings.pooling),
            max_seq_len: self.max_seq_len.unwrap_or(settings.max_seq_len),
            query_prefix: self.query_prefix.unwrap_or(settings.query_prefix),
            passage_prefix: self.passage_prefix.unwrap_or(settings.passage_prefix),
            ..settings
        }
    }
}

#[derive(Deserialize)]
struct SentenceLength {
    max_seq_length: Option<usize>,
}

/// The pooling that a folder of sentence-transformers names: by a switch for each kind, or in newer ones by its name.
fn sentence_pooling(modes: &Map<String, Value>) -> Result<Pooling, String> {
    let switched = modes.iter().filter(|(_, on)| **on == Value::Bool(true));
    let switched = switched.filter_map(|(name, _)| name.strip_prefix("pooling_mode_"));
    let named = modes.get("pooling_mode").and_then(Value::as_str);
    let chosen: Vec<&str> = named.map_or_else(|| switched.collect(), |name| vec![name]);
    match chosen[..] {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        _ => Err(format!("the pooling '{}' is none of mean, cls and max", chosen.join(" and "))),
    }
}

/// A file of JSON; `None` where it is not there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TrainError> {
    if !path.exists() {
        return Ok(None);
    }
    let read = || -> std::io::Result<T> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    read().map(Some).map_err(|error| TrainError::Encoding { path: path.into(), reason: error.to_string() })
}

impl SavedModel {
    /// Reads a model folder, or the Hub's of that name; how texts are encoded is as the settings say.
    pub fn load(settings: &Settings, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let folder = model_folder(&settings.model, observer)?;
        let device = settings.device()?;
        let (bert, tokenizer) = rayon::join(
            || BertModel::builder().folder(&folder).device(&device).build(),
            || Tokenizer::from_folder(&folder),
        );
        let (bert, tokenizer) = (bert?, tokenizer?);
        let texts = TextEncoder::new(tokenizer, settings, bert.config().max_position_embeddings);
        Ok(SavedModel { encoder: DualEncoder { bert, pooling: settings.pooling }, texts })
    }

    /// Writes the Transformers layout, the tokenizer and [`ENCODING_FILE`] into a folder.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.encoder.bert.save(folder)?;
        self.texts.tokenizer.save(folder)?;
        let encoding = Encoding {
            pooling: Some(self.encoder.pooling),
            max_seq_len: Some(self.texts.max_seq_len),
            query_prefix: Some(self.texts.query_prefix.clone()),
            passage_prefix: Some(self.texts.passage_prefix.clone()),
        };
        let text = serde_json::to_vec_pretty(&encoding).expect("an encoding is plain data");
        Ok(write_atomically(&folder.join(ENCODING_FILE), &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(files: &[(&str, &str)]) -> Result<Encoding, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Encoding::of_folder(folder.path())
    }

    #[test]
    fn a_folder_of_sentence_transformers_says_length_and_pooling() {
        let length = (SENTENCE_LENGTH_FILE, r#"{"max_seq_length": 256, "do_lower_case": false}"#);
        for modes in [
            r#"{"word_embedding_dimension": 384, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
            r#"{"pooling_mode": "cls", "include_prompt": true}"#,
        ] {
            let found = encoding(&[length, (SENTENCE_POOLING_FILE, modes)]).unwrap();
            let expected = Encoding { pooling: Some(Pooling::Cls), max_seq_len: Some(256), ..Encoding::default() };
            assert_eq!(found, expected, "{modes}");
        }
        assert_eq!(encoding(&[]).unwrap(), Encoding::default());
        let own = (ENCODING_FILE, r#"{"pooling": "max"}"#);
        assert_eq!(encoding(&[length, own]).unwrap(), Encoding { pooling: Some(Pooling::Max), ..Encoding::default() });
    }

    #[test]
    fn a_pooling_that_is_not_known_is_told() {
        for modes in [r#"{"pooling_mode": "lasttoken"}"#, r#"{"pooling_mode_lasttoken": true}"#] {
            let message = encoding(&[(SENTENCE_POOLING_FILE, modes)]).unwrap_err().to_string();
            assert!(message.contains("1_Pooling/config.json") && message.contains("'lasttoken'"), "{message}");
        }
    }
}
