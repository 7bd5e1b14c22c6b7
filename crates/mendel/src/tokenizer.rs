//! Text to token ids: BERT's WordPiece tokenizer, from a model's folder or from a list of tokens.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};

const CLS: &str = "[CLS]";
const SEP: &str = "[SEP]";
const UNK: &str = "[UNK]";

/// Why there is no tokenizer, or none on disk.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder has neither of the two files.
    #[error("no tokenizer in {folder}: it has neither tokenizer.json nor vocab.txt; give a folder that holds the model's files")]
    NotFound {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is not a tokenizer of BERT's kind: {why}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
}

/// What happens to letters before words are looked up (`tokenizer_config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Casing {
    /// Letters are lower-cased.
    pub do_lower_case: bool,
    /// Accents are dropped; where it is not said, they are when letters are lower-cased.
    pub strip_accents: Option<bool>,
    /// Every Chinese character is a word.
    pub tokenize_chinese_chars: bool,
}

impl Default for Casing {
    fn default() -> Self {
        Casing { do_lower_case: true, strip_accents: None, tokenize_chinese_chars: true }
    }
}

/// BERT's tokenizer: `[CLS]`, the text's word pieces, `[SEP]`.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    cls: u32,
    sep: u32,
    unk: u32,
    vocab_size: usize,
}

impl Tokenizer {
    /// From `tokenizer.json` where there is one (its truncation and padding are not used), else from `vocab.txt`,
    /// with the casing that `tokenizer_config.json` says, lower-cased if it says nothing.
    ///
    /// # Errors
    /// Where neither file is there, or one is not a WordPiece tokenizer with `[CLS]`, `[SEP]` and `[UNK]`.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let whole = folder.join("tokenizer.json");
        let vocabulary = folder.join("vocab.txt");
        if whole.is_file() {
            let json = read(&whole)?;
            Self::from_json(json.as_bytes()).map_err(|why| TokenizerError::Invalid { path: whole, why })
        } else if vocabulary.is_file() {
            let text = read(&vocabulary)?;
            let tokens: Vec<&str> = text.trim_end().lines().collect();
            let casing = read_casing(&folder.join("tokenizer_config.json"))?;
            Self::from_vocabulary(&tokens, casing).map_err(|why| TokenizerError::Invalid { path: vocabulary, why })
        } else {
            Err(TokenizerError::NotFound { folder: folder.to_path_buf() })
        }
    }

    /// From the tokens in the order of their ids.
    ///
    /// # Errors
    /// What is wrong with the list: a special token is missing, or a token stands in it twice.
    pub fn from_vocabulary(tokens: &[impl AsRef<str>], casing: Casing) -> Result<Self, String> {
        let mut vocabulary = serde_json::Map::new();
        for (id, token) in tokens.iter().map(AsRef::as_ref).enumerate() {
            if let Some(first) = vocabulary.insert(token.to_string(), json!(id)) {
                return Err(format!("the token {token:?} stands in lines {} and {}", increment(&first), id + 1));
            }
        }
        let special = ["[PAD]", UNK, CLS, SEP, "[MASK]"];
        let added: Vec<Value> = special
            .iter()
            .filter_map(|&token| vocabulary.get(token).map(|id| added_token(token, id)))
            .collect();
        let id = |token: &str| vocabulary.get(token).cloned().ok_or_else(|| missing(token));
        let whole = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": casing.tokenize_chinese_chars,
                "strip_accents": casing.strip_accents,
                "lowercase": casing.do_lower_case,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": [SEP, id(SEP)?], "cls": [CLS, id(CLS)?]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece",
                "unk_token": UNK,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocabulary,
            },
        });
        Self::from_json(whole.to_string().as_bytes())
    }

    fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        if !matches!(inner.get_model(), tokenizers::ModelWrapper::WordPiece(_)) {
            return Err("its model is not WordPiece".into());
        }
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| missing(token));
        let (cls, sep, unk) = (id(CLS)?, id(SEP)?, id(UNK)?);
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&last| last as usize + 1);
        Ok(Tokenizer { inner, cls, sep, unk, vocab_size })
    }

    /// `[CLS]`, the ids of as many of the text's first tokens as fit, and `[SEP]`: at most `max_len` ids, and at
    /// least the two. A text that the tokenizer's own rules cannot take is one unknown token.
    pub fn encode(&self, text: &str, max_len: usize) -> Vec<u32> {
        let room = max_len.saturating_sub(2);
        let encoding = self.inner.encode_fast(text, false);
        let tokens = encoding.as_ref().map_or(std::slice::from_ref(&self.unk), |encoding| encoding.get_ids());
        let kept = &tokens[..tokens.len().min(room)];
        let mut ids = Vec::with_capacity(kept.len() + 2);
        ids.push(self.cls);
        ids.extend_from_slice(kept);
        ids.push(self.sep);
        ids
    }

    /// Each text as [`encode`](Self::encode) gives it, on all threads.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T], max_len: usize) -> Vec<Vec<u32>> {
        texts.par_iter().map(|text| self.encode(text.as_ref(), max_len)).collect()
    }

    /// The largest id and one: the rows that an embedding table needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` (the casing, which Transformers takes from there) and, where
    /// the ids have no gaps, `vocab.txt` into `folder`, which is made if missing.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TokenizerError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(io(&path))
        };
        let whole = serde_json::to_value(&self.inner)
            .and_then(|whole| serde_json::to_string_pretty(&whole))
            .map_err(|error| io(&folder.join("tokenizer.json"))(error.into()))?;
        write("tokenizer.json", whole)?;
        write("tokenizer_config.json", format!("{:#}\n", self.config()))?;
        let tokens: Option<Vec<String>> = (0..self.vocab_size as u32).map(|id| self.inner.id_to_token(id)).collect();
        match tokens {
            Some(tokens) => write("vocab.txt", tokens.join("\n") + "\n"),
            None => Ok(()),
        }
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "tokenizer_class": "BertTokenizer",
            "cls_token": CLS, "sep_token": SEP, "unk_token": UNK, "pad_token": "[PAD]", "mask_token": "[MASK]",
        });
        if let Some(tokenizers::NormalizerWrapper::BertNormalizer(bert)) = self.inner.get_normalizer() {
            config["do_lower_case"] = json!(bert.lowercase);
            config["strip_accents"] = json!(bert.strip_accents);
            config["tokenize_chinese_chars"] = json!(bert.handle_chinese_chars);
        }
        config
    }
}

fn added_token(token: &str, id: &Value) -> Value {
    json!({
        "id": id, "content": token, "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

fn increment(id: &Value) -> u64 {
    id.as_u64().unwrap_or_default() + 1
}

fn missing(token: &str) -> String {
    format!("its vocabulary has no {token}, which the encoder needs")
}

fn read(path: &Path) -> Result<String, TokenizerError> {
    std::fs::read_to_string(path).map_err(|source| TokenizerError::Io { path: path.to_path_buf(), source })
}

fn read_casing(path: &Path) -> Result<Casing, TokenizerError> {
    if !path.is_file() {
        return Ok(Casing::default());
    }
    let invalid = |why: String| TokenizerError::Invalid { path: path.to_path_buf(), why };
    let config: Value = serde_json::from_str(&read(path)?).map_err(|error| invalid(error.to_string()))?;
    let flag = |name: &str| match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(invalid(format!("{name} is {other}, not true or false"))),
    };
    let default = Casing::default();
    Ok(Casing {
        do_lower_case: flag("do_lower_case")?.unwrap_or(default.do_lower_case),
        strip_accents: flag("strip_accents")?,
        tokenize_chinese_chars: flag("tokenize_chinese_chars")?.unwrap_or(default.tokenize_chinese_chars),
    })
}
