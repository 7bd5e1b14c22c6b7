//! `mendel data`.

use std::path::PathBuf;

use mendel::Settings;
use mendel::data::demo::write_demo;
use mendel::data::mine::{Mined, Mining, mine};
use mendel::data::{Inspection, LoadOptions, inspect};
use mendel::hub::{self, HubDataset};
use mendel::progress::Observer;
use mendel::report::table::Table;
use mendel::train::{model_folder, open_model};

use super::Outcome;
use crate::arguments::{DataCommand, FetchArguments, InspectArguments, MineArguments};
use crate::display::print_result;
use crate::failure::WrongUsage;

/// Does what was asked with a dataset.
pub fn run(command: &DataCommand, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
    match command {
        DataCommand::Fetch(arguments) => fetch(arguments, observer)?,
        DataCommand::Inspect(arguments) => show(arguments, observer)?,
        DataCommand::Mine(arguments) => mine_negatives(arguments, observer)?,
        DataCommand::Demo(arguments) => write_demo(&arguments.folder)?,
    }
    Ok(Outcome::Done)
}

/// Fetches from the Hub what is not in the cache, and prints where it is.
fn fetch(arguments: &FetchArguments, observer: &mut dyn Observer) -> anyhow::Result<()> {
    let mut paths: Vec<PathBuf> = Vec::new();
    if let Some(model) = &arguments.model {
        paths.push(model_folder(model, observer)?);
    }
    let datasets = if arguments.datasets.is_empty() && arguments.model.is_none() {
        vec![Settings::default().dataset]
    } else {
        arguments.datasets.clone()
    };
    for name in datasets {
        let HubDataset { train, validation } = hub::dataset(&name, observer)?
            .ok_or_else(|| WrongUsage::new(format!("'{name}' is no dataset that can be fetched: try msmarco-v2.1")))?;
        paths.extend(train.into_iter().chain(validation));
    }
    let text = if arguments.json {
        serde_json::to_string_pretty(&paths)? + "\n"
    } else {
        paths.iter().map(|path| format!("{}\n", path.display())).collect()
    };
    Ok(print_result(&text)?)
}

/// Prints counts, lengths and refused rows.
fn show(arguments: &InspectArguments, observer: &mut dyn Observer) -> anyhow::Result<()> {
    let tokenizer = match &arguments.model {
        Some(model) => Some(open_model(model, observer)?.1),
        None => None,
    };
    let inspection: Inspection = inspect(&arguments.path.to_string_lossy(), tokenizer.as_ref(), observer)?;
    let text = if arguments.json { serde_json::to_string_pretty(&inspection)? + "\n" } else { inspection.to_string() };
    Ok(print_result(&text)?)
}

/// Writes a dataset's pairs with the negatives that BM25 finds.
fn mine_negatives(arguments: &MineArguments, observer: &mut dyn Observer) -> anyhow::Result<()> {
    let mining = Mining {
        dataset: &arguments.dataset,
        corpus: arguments.corpus.as_deref(),
        negatives: arguments.negatives as usize,
        depth: arguments.depth as usize,
        skip: arguments.skip as usize,
        options: LoadOptions { max_bad_rows: arguments.max_bad_rows },
    };
    let mined = mine(&mining, &arguments.output, observer)?;
    let text = if arguments.json { serde_json::to_string_pretty(&mined)? + "\n" } else { table(mined).to_string() };
    Ok(print_result(&text)?)
}

fn table(mined: Mined) -> Table {
    let mut table = Table::new(["pairs", &mined.pairs.to_string()]);
    table.row(["passages searched", &mined.passages.to_string()]);
    table.row(["negatives", &mined.negatives.to_string()]);
    table.row(["pairs with fewer than wanted", &mined.short_of_negatives.to_string()]);
    table
}
