//! BERT: configuration, encoder, and the Transformers layout on disk.

mod builder;
mod config;
mod encoder;
mod files;
mod layout;

use std::path::PathBuf;

pub use builder::BertBuilder;
pub use config::BertConfig;
pub use encoder::BertModel;
pub use files::{CONFIG_FILE, WEIGHTS_FILE, tensors_from_bytes, tensors_to_bytes};

use crate::attention::InvalidAttention;
use crate::files::FileError;

/// What can be wrong with a model or its files.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A folder without what makes it a model.
    #[error(
        "{folder} is not a model: it has no {missing} (a model folder holds config.json, model.safetensors and tokenizer.json or vocab.txt){}",
        meant.as_ref().map_or(String::new(), |model| format!("; did you mean {}?", model.display()))
    )]
    NotAModel {
        /// The folder.
        folder: PathBuf,
        /// The file that is not there.
        missing: &'static str,
        /// A model below it, as in the output folder of a run.
        meant: Option<PathBuf>,
    },
    /// A file that could not be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// A file that could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A `config.json` that does not hold a configuration.
    #[error("{path} is not a BERT configuration: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A weights file that is damaged or of another kind.
    #[error("{file} is not a safetensors file: {source}")]
    Weights {
        /// The file.
        file: String,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A configuration that this encoder does not have.
    #[error("{field} is {value}, but this encoder supports {supported}")]
    Unsupported {
        /// The configuration's field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        supported: &'static str,
    },
    /// An attention module that cannot be.
    #[error(transparent)]
    Attention(#[from] InvalidAttention),
    /// A tensor that the configuration asks for is not there.
    #[error("tensor {name} is missing from {file}")]
    Missing {
        /// The tensor.
        name: String,
        /// Where it should be.
        file: String,
    },
    /// A tensor that the configuration does not ask for.
    #[error("tensor {name} {shape:?} in {file} is none that the configuration asks for")]
    Extra {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Where it is.
        file: String,
    },
    /// A tensor that is there under two of its names, such as with and without the `bert.` prefix.
    #[error("{file} holds tensor {name} twice, under two names")]
    Repeated {
        /// The tensor.
        name: String,
        /// Where it is.
        file: String,
    },
    /// A tensor of the wrong shape.
    #[error("tensor {name} in {file} has shape {found:?}, but the configuration asks for {expected:?}")]
    Misshapen {
        /// The tensor.
        name: String,
        /// Where it is.
        file: String,
        /// Its shape there.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor of a type that is not read.
    #[error("tensor {name} in {file} is of type {found}; only F32 is read: convert the file first")]
    Type {
        /// The tensor.
        name: String,
        /// Where it is.
        file: String,
        /// Its type.
        found: String,
    },
}

#[cfg(test)]
mod tests;
