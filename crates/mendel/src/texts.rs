//! From texts to tokens: prefixes, tokenizer, length.

use crate::data::Fingerprint;
use crate::settings::Settings;
use crate::tokenizer::Tokenizer;

/// How texts become tokens, the same in training and ever after.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Longest text in tokens.
    pub max_seq_len: usize,
    /// Text put before each query.
    pub query_prefix: String,
    /// Text put before each passage.
    pub passage_prefix: String,
}

impl TextEncoder {
    /// As the settings say; a text is never longer than `positions`, what the model has.
    pub fn new(tokenizer: Tokenizer, settings: &Settings, positions: usize) -> Self {
        TextEncoder {
            tokenizer,
            max_seq_len: settings.max_seq_len.min(positions),
            query_prefix: settings.query_prefix.clone(),
            passage_prefix: settings.passage_prefix.clone(),
        }
    }

    /// What it is recognised by, in hex: encoders that agree on it turn every text into the same tokens.
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(self.max_seq_len as u64);
        for text in [self.tokenizer.to_json().as_str(), &self.query_prefix, &self.passage_prefix] {
            fingerprint.add_bytes(text.as_bytes());
        }
        fingerprint.finish()
    }

    /// The queries' tokens.
    pub fn queries<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Vec<Vec<u32>> {
        self.encode(&self.query_prefix, texts)
    }

    /// The passages' tokens.
    pub fn passages<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Vec<Vec<u32>> {
        self.encode(&self.passage_prefix, texts)
    }

    fn encode<T: AsRef<str> + Sync>(&self, prefix: &str, texts: &[T]) -> Vec<Vec<u32>> {
        if prefix.is_empty() {
            return self.tokenizer.encode_batch(texts, self.max_seq_len);
        }
        let texts: Vec<String> = texts.iter().map(|text| format!("{prefix}{}", text.as_ref())).collect();
        self.tokenizer.encode_batch(&texts, self.max_seq_len)
    }
}
