//! What `eval` and `embed` take: work with a saved model.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use mendel::Settings;
use mendel::progress::Observer;
use mendel::saved_model::Encoding;
use mendel::train::model_folder;
use serde::Serialize;
use toml::Table;

use crate::settings_flags::{DataFlags, MachineFlags, TextFlags};
use crate::settings_layers::Layers;

/// What `eval` takes.
#[derive(Args, Debug)]
pub struct EvalArguments {
    #[command(flatten)]
    model: ModelFolder,
    #[command(flatten)]
    layers: Layers,
    /// What is evaluated: retrieval within pairs, sentence similarity, or retrieval on a collection in BEIR's layout
    #[arg(long, value_enum, value_name = "TASK", default_value_t = Task::Pairs)]
    pub task: Task,
    /// With --task beir: the split whose judgements count [default: test]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// With --task beir: the grade from which a passage is relevant in every measure but nDCG [default: 1]
    #[arg(long, value_name = "GRADE", value_parser = clap::value_parser!(i32).range(1..))]
    pub relevance_level: Option<i32>,
    /// With --task beir: leave out the BM25 baseline
    #[arg(long)]
    pub no_bm25: bool,
    /// Write what was retrieved as a TREC run
    #[arg(long, value_name = "FILE")]
    pub run_file: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the result to this folder too
    // Not called output_dir: unlike that setting, it has no default.
    #[arg(long = "output-dir", value_name = "FOLDER")]
    pub results_dir: Option<PathBuf>,
    #[command(flatten)]
    flags: EvalFlags,
}

/// What a model is evaluated on.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Queries against all passages of a dataset of pairs
    Pairs,
    /// Sentence pairs with a similarity, as TSV or CSV
    Sts,
    /// A folder with corpus.jsonl, queries.jsonl and qrels/
    Beir,
}

/// A saved model, in whichever of two places it is named.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct ModelFolder {
    /// The saved model's folder
    #[arg(value_name = "MODEL")]
    folder: Option<String>,
    /// The same, as a flag
    #[arg(long = "model", value_name = "MODEL")]
    folder_flag: Option<String>,
}

#[derive(Args, Debug, Serialize)]
struct EvalFlags {
    #[command(flatten)]
    #[serde(flatten)]
    data: DataFlags,
    #[command(flatten)]
    #[serde(flatten)]
    text: TextFlags,
    #[command(flatten)]
    #[serde(flatten)]
    machine: MachineFlags,
}

impl EvalArguments {
    /// The settings in force; `model` is the saved model's folder.
    pub fn settings(&self, observer: &mut dyn Observer) -> anyhow::Result<Settings> {
        let folder = self.model.folder.as_ref().or(self.model.folder_flag.as_ref());
        of_saved_model(folder.map_or("", String::as_str), &self.layers, &self.flags, observer)
    }
}

/// What `embed` takes.
#[derive(Args, Debug)]
pub struct EmbedArguments {
    /// The texts: JSONL with "text", TSV or plain lines, plain or gzip; - reads standard input. A passage of JSONL is
    /// "title" and "text" with a space between
    #[arg(value_name = "TEXTS")]
    pub texts: PathBuf,
    /// The saved model's folder
    #[arg(long = "model", value_name = "MODEL")]
    folder: String,
    /// Where the embeddings go; the ending says how: .npy, .safetensors or .jsonl
    #[arg(short, long, value_name = "FILE", value_parser = embeddings_file)]
    pub output: EmbeddingsFile,
    /// Which prefix the texts get: the one of queries or of passages
    #[arg(long = "as", value_enum, value_name = "SIDE", default_value_t = Side::Passage)]
    pub side: Side,
    #[command(flatten)]
    layers: Layers,
    #[command(flatten)]
    flags: EmbedFlags,
}

/// What texts are to the encoder.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// With the passage prefix
    Passage,
    /// With the query prefix
    Query,
}

#[derive(Args, Debug, Serialize)]
struct EmbedFlags {
    #[command(flatten)]
    #[serde(flatten)]
    text: TextFlags,
    #[command(flatten)]
    #[serde(flatten)]
    machine: MachineFlags,
}

impl EmbedArguments {
    /// The settings in force; `model` is the saved model's folder.
    pub fn settings(&self, observer: &mut dyn Observer) -> anyhow::Result<Settings> {
        of_saved_model(&self.folder, &self.layers, &self.flags, observer)
    }
}

/// The settings for a saved model: what its folder says of how texts are encoded lies under preset, file and flags.
fn of_saved_model(
    model: &str,
    layers: &Layers,
    flags: &impl Serialize,
    observer: &mut dyn Observer,
) -> anyhow::Result<Settings> {
    let mut base = Table::try_from(Encoding::of_folder(&model_folder(model, observer)?)?)?;
    // A dataset that is named to be evaluated is meant whole.
    base.insert("eval-queries".into(), 0.into());
    let mut settings = layers.resolve(base, flags)?;
    settings.model = model.to_owned();
    settings.validate_values()?;
    Ok(settings)
}

/// A file of embeddings to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingsFile {
    pub path: PathBuf,
    pub format: EmbeddingsFormat,
}

/// How embeddings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingsFormat {
    Npy,
    Safetensors,
    Jsonl,
}

fn embeddings_file(path: &str) -> Result<EmbeddingsFile, &'static str> {
    let format = match Path::new(path).extension().and_then(|ending| ending.to_str()) {
        Some("npy") => EmbeddingsFormat::Npy,
        Some("safetensors") => EmbeddingsFormat::Safetensors,
        Some("jsonl") => EmbeddingsFormat::Jsonl,
        _ => return Err("it must end in .npy, .safetensors or .jsonl"),
    };
    Ok(EmbeddingsFile { path: path.into(), format })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_the_output_says_how_embeddings_are_written() {
        for (file, format) in [
            ("x.npy", EmbeddingsFormat::Npy),
            ("x.safetensors", EmbeddingsFormat::Safetensors),
            ("x.jsonl", EmbeddingsFormat::Jsonl),
        ] {
            assert_eq!(embeddings_file(file), Ok(EmbeddingsFile { path: file.into(), format }));
        }
        assert!(embeddings_file("x.csv").is_err());
    }
}
