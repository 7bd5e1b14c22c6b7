//! What `data` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What can be done with a dataset.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Fetch datasets and models from the Hub into its cache
    Fetch(FetchArguments),
    /// Read a dataset and show counts, lengths and refused rows
    Inspect(InspectArguments),
    /// Find hard negatives for a dataset's pairs by BM25
    Mine(MineArguments),
    /// Write the built-in dataset
    Demo(DemoArguments),
}

/// What `data fetch` takes.
#[derive(Args, Debug)]
pub struct FetchArguments {
    /// Datasets: msmarco-v2.1 or msmarco-v1.1; without any, and without a model, msmarco-v2.1
    #[arg(value_name = "DATASET")]
    pub datasets: Vec<String>,
    /// A model, by its name on the Hub
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Print the paths as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `data mine` takes.
#[derive(Args, Debug)]
pub struct MineArguments {
    /// `msmarco-v2.1`, `demo`, or a file or folder
    pub dataset: String,
    /// Where the pairs with their negatives go, as JSONL
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where negatives come from: a folder in BEIR's layout, a corpus.jsonl, or a dataset; without it the pairs' own passages
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// Negatives for each pair
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub negatives: u32,
    /// Look at so many of the best passages
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub depth: u32,
    /// Pass over so many of the best: they may answer the query though nobody said so
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: u32,
    /// The share of malformed rows above which nothing is started
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub max_bad_rows: f64,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `data inspect` takes.
#[derive(Args, Debug)]
pub struct InspectArguments {
    /// `msmarco-v2.1`, `demo`, or a file or folder
    pub path: PathBuf,
    /// Count lengths in this model's tokens, not in words
    #[arg(long, value_name = "NAME|PATH")]
    pub model: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `data demo` takes.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// Where the files go
    pub folder: PathBuf,
}
