//! Text to token ids: BERT's WordPiece tokenizer, from a model's folder or from a list of tokens.

mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{Model, NormalizerWrapper, PreTokenizerWrapper};

use self::words::{KnownWords, Word, stays_within_a_word};
use crate::files::{FileError, write_atomically};

const CLS: &str = "[CLS]";
const SEP: &str = "[SEP]";
const UNK: &str = "[UNK]";

/// Why there is no tokenizer, or none on disk.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder has neither of the two files.
    #[error(
        "no tokenizer in {folder}: it has neither tokenizer.json nor vocab.txt; give a folder that holds the model's files"
    )]
    NotFound {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
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
    /// Where each word is cut by itself, as BERT does.
    words: Option<Arc<KnownWords>>,
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
    pub(crate) fn from_vocabulary(tokens: &[impl AsRef<str>], casing: Casing) -> Result<Self, String> {
        let mut vocabulary = serde_json::Map::new();
        for (id, token) in tokens.iter().map(AsRef::as_ref).enumerate() {
            if let Some(first) = vocabulary.insert(token.to_string(), json!(id)) {
                return Err(format!("the token {token:?} stands in lines {} and {}", increment(&first), id + 1));
            }
        }
        let special = ["[PAD]", UNK, CLS, SEP, "[MASK]"];
        let added: Vec<Value> =
            special.iter().filter_map(|&token| vocabulary.get(token).map(|id| added_token(token, id))).collect();
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
        let tokenizers::ModelWrapper::WordPiece(model) = inner.get_model() else {
            return Err("its model is not WordPiece".into());
        };
        let unknown = model.unk_token.clone();
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| missing(token));
        let (cls, sep, unk) = (id(CLS)?, id(SEP)?, id(&unknown)?);
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&last| last as usize + 1);
        // By content: two of them may have one id.
        let added = inner.get_added_vocabulary().get_vocab();
        let by_words = matches!(inner.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
            && matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
            && added.keys().all(|token| stays_within_a_word(token));
        let words = by_words.then(|| Arc::new(KnownWords::beside(added.keys().map(String::as_str))));
        Ok(Tokenizer { inner, cls, sep, unk, vocab_size, words })
    }

    /// `[CLS]`, the ids of as many of the text's first tokens as fit, and `[SEP]`: at most `max_len` ids, and at
    /// least the two. What the tokenizer's own rules cannot take is an unknown token.
    pub fn encode(&self, text: &str, max_len: usize) -> Vec<u32> {
        let room = max_len.saturating_sub(2);
        let pieces = match &self.words {
            Some(words) => words.pieces(text, room, |word| self.pieces_of_word(word)),
            None => self.pieces(text),
        };
        let kept = &pieces[..pieces.len().min(room)];
        let mut ids = Vec::with_capacity(kept.len() + 2);
        ids.push(self.cls);
        ids.extend_from_slice(kept);
        ids.push(self.sep);
        ids
    }

    fn pieces(&self, text: &str) -> Vec<u32> {
        self.inner.encode_fast(text, false).map_or_else(|_| vec![self.unk], |encoding| encoding.get_ids().to_vec())
    }

    fn pieces_of_word(&self, word: Word<'_>) -> Vec<u32> {
        match (word, self.inner.get_normalizer()) {
            (Word::Whole(word), Some(NormalizerWrapper::BertNormalizer(bert))) => {
                let word = if bert.lowercase { &word.to_ascii_lowercase() } else { word };
                let pieces = self.inner.get_model().tokenize(word);
                pieces.map_or_else(|_| vec![self.unk], |pieces| pieces.iter().map(|piece| piece.id).collect())
            }
            (Word::Whole(word) | Word::Uncut(word), _) => self.pieces(word),
        }
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
        let write = |name: &str, text: String| write_atomically(&folder.join(name), text.as_bytes());
        write("tokenizer.json", self.to_json())?;
        write("tokenizer_config.json", format!("{:#}\n", self.config()))?;
        let tokens: Option<Vec<String>> = (0..self.vocab_size as u32).map(|id| self.inner.id_to_token(id)).collect();
        match tokens {
            Some(tokens) => Ok(write("vocab.txt", tokens.join("\n") + "\n")?),
            None => Ok(()),
        }
    }

    /// The text of `tokenizer.json`.
    pub(crate) fn to_json(&self) -> String {
        self.inner.to_string(true).expect("a tokenizer that was read from JSON is written as JSON")
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "tokenizer_class": "BertTokenizer",
            "cls_token": CLS, "sep_token": SEP, "unk_token": UNK, "pad_token": "[PAD]", "mask_token": "[MASK]",
        });
        if let Some(NormalizerWrapper::BertNormalizer(bert)) = self.inner.get_normalizer() {
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
    std::fs::read_to_string(path).map_err(|source| TokenizerError::Read { path: path.to_path_buf(), source })
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

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 12] =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##want", "##ed", "run", "##ning", ",", "Run"];

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn small() -> Tokenizer {
        Tokenizer::from_vocabulary(&WORDS, Casing::default()).unwrap()
    }

    fn small_file() -> Value {
        serde_json::to_value(&small().inner).unwrap()
    }

    /// A file's tokenizer with more tokens of id 12: each one's content, and whether it is normalised and a word by itself.
    fn with_added(mut file: Value, tokens: &[(&str, bool, bool)]) -> Tokenizer {
        for (content, normalized, single_word) in tokens {
            let mut token = added_token(content, &json!(12));
            token["special"] = json!(false);
            token["normalized"] = json!(normalized);
            token["single_word"] = json!(single_word);
            file["added_tokens"].as_array_mut().unwrap().push(token);
        }
        Tokenizer::from_json(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn text_becomes_word_pieces_between_cls_and_sep() {
        // The example of BERT's own tokenization_test.py.
        assert_eq!(small().encode("UNwant\u{00e9}d,running", 512), [2, 5, 6, 7, 10, 8, 9, 3]);
        assert_eq!(small().encode("running else", 512), [2, 8, 9, 1, 3]);
    }

    #[test]
    fn a_long_text_keeps_its_first_tokens_and_both_ends() {
        assert_eq!(small().encode("running, running", 4), [2, 8, 9, 3]);
        for max_len in 0..=2 {
            assert_eq!(small().encode("running", max_len), [2, 3]);
        }
        assert_eq!(small().encode("", 512), [2, 3]);
        assert_eq!(small().encode(" \n\u{0}", 512), [2, 3]);
    }

    #[test]
    fn a_text_of_a_megabyte_is_cut_like_any_other() {
        for text in ["running ".repeat(1 << 17), "x".repeat(1 << 20), "\u{4e2d}".repeat(1 << 18)] {
            assert!(small().encode(&text, 512).len() <= 512);
        }
    }

    proptest::proptest! {
        #[test]
        fn words_by_themselves_give_the_pieces_that_the_library_gives_the_text(
            text in "([a-zR7,.@\\[\\]\u{e9}\u{301}\u{4e2d}\u{3a3}\u{0}\u{a0}\u{b}\u{c}\u{2028} \t\r\n]|run|ning|\\[SEP\\]| ){0,120}",
            max_len in 2usize..20,
            strip_accents in proptest::option::of(proptest::bool::ANY),
            do_lower_case in proptest::bool::ANY,
            tokenize_chinese_chars in proptest::bool::ANY,
        ) {
            let casing = Casing { do_lower_case, strip_accents, tokenize_chinese_chars };
            let tokenizer = Tokenizer::from_vocabulary(&WORDS, casing).unwrap();
            let whole = tokenizer.pieces(&text);
            proptest::prop_assert!(tokenizer.words.is_some());
            // The second time from what the first has left.
            for max_len in [max_len, usize::MAX, max_len] {
                let kept = (max_len - 2).min(whole.len());
                let expected = [&[2], &whole[..kept], &[3]].concat();
                proptest::prop_assert_eq!(tokenizer.encode(&text, max_len), expected);
            }
        }
    }

    #[test]
    fn a_token_of_several_words_is_found_where_the_file_has_one() {
        for (content, normalized) in [("run run", false), ("run\u{a0}run", true)] {
            let tokenizer = with_added(small_file(), &[(content, normalized, false)]);
            assert_eq!(tokenizer.encode("run run running", 9), [2, 12, 8, 9, 3], "{content:?}");
        }
    }

    #[test]
    fn an_added_token_is_found_inside_words_as_the_library_finds_it() {
        for (content, normalized, single_word) in
            [("nni", false, false), ("nni", true, false), ("run", true, true), ("@run", false, false)]
        {
            let tokenizer = with_added(small_file(), &[(content, normalized, single_word)]);
            for text in ["running", "RUNNING,run", "un,RUN unwanted@run", "[SEP]run @run."] {
                let expected = [&[2], &*tokenizer.pieces(text), &[3]].concat();
                assert_eq!(tokenizer.encode(text, 99), expected, "{content:?} in {text:?}");
            }
        }
    }

    #[test]
    fn of_two_added_tokens_with_one_id_each_is_found() {
        let mut whole = small_file();
        // What is not in the vocabulary is given the number of its tokens, which is an id already.
        whole["model"]["vocab"]["Run"] = json!(12);
        let tokenizer = with_added(whole, &[("qq", false, false), ("Run", false, false)]);
        assert_eq!(tokenizer.encode("qq,xx", 9), [2, 12, 10, 1, 3]);
    }

    #[test]
    fn a_batch_equals_its_texts_one_by_one() {
        let texts: Vec<String> = (0..300).map(|i| "unwanted, running ".repeat(i % 7) + "run").collect();
        let one_by_one: Vec<Vec<u32>> = texts.iter().map(|text| small().encode(text, 20)).collect();
        assert_eq!(small().encode_batch(&texts, 20), one_by_one);
    }

    #[test]
    fn casing_is_what_the_configuration_says_and_lower_without_one() {
        let vocabulary = WORDS.join("\r\n") + "\r\n\r\n";
        let lower = folder_with(&[("vocab.txt", &vocabulary)]);
        assert_eq!(Tokenizer::from_folder(lower.path()).unwrap().encode("Run", 9), [2, 8, 3]);
        let cased =
            folder_with(&[("vocab.txt", &vocabulary), ("tokenizer_config.json", r#"{"do_lower_case": false}"#)]);
        assert_eq!(Tokenizer::from_folder(cased.path()).unwrap().encode("Run", 9), [2, 11, 3]);
    }

    #[test]
    fn what_is_saved_reads_back_the_same_from_either_file() {
        let casing = Casing { do_lower_case: false, ..Casing::default() };
        let saved = tempfile::tempdir().unwrap();
        Tokenizer::from_vocabulary(&WORDS, casing).unwrap().save(saved.path()).unwrap();
        for file in ["tokenizer.json", "vocab.txt"] {
            let read = Tokenizer::from_folder(saved.path()).unwrap();
            assert_eq!(read.encode("Run running Unwanted", 9), [2, 11, 8, 9, 1, 3], "from {file}");
            assert_eq!(read.vocab_size(), WORDS.len());
            std::fs::remove_file(saved.path().join("tokenizer.json")).ok();
        }
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_not_used() {
        let mut whole = small_file();
        whole["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        whole["padding"] = json!({
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        });
        let folder = folder_with(&[("tokenizer.json", &whole.to_string())]);
        assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().encode("running, run", 512), [2, 8, 9, 10, 8, 3]);
    }

    #[test]
    fn errors_name_the_file_and_what_is_missing() {
        type Files<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Files<'_>, &str, &str); 6] = [
            (&[], "neither tokenizer.json nor vocab.txt", ""),
            (&[("vocab.txt", "[UNK]\n[SEP]\nrun")], "vocab.txt", "no [CLS]"),
            (&[("vocab.txt", "[UNK]\n[CLS]\n[SEP]\nrun\n[CLS]")], "vocab.txt", "lines 2 and 5"),
            (&[("vocab.txt", "[CLS]\n[SEP]\nrun")], "vocab.txt", "no [UNK]"),
            (&[("tokenizer.json", "{}")], "tokenizer.json", "not a tokenizer"),
            (
                &[("vocab.txt", "[UNK]"), ("tokenizer_config.json", r#"{"do_lower_case": 1}"#)],
                "tokenizer_config",
                "do_lower_case",
            ),
        ];
        for (files, file, what) in cases {
            let message = Tokenizer::from_folder(folder_with(files).path()).unwrap_err().to_string();
            assert!(message.contains(file) && message.contains(what), "{what:?} is not in {message:?}");
        }
    }
}
