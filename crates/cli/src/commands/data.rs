//! `mendel data`.

use mendel::data::demo::write_demo;
use mendel::data::{Inspection, inspect};
use mendel::progress::Observer;
use mendel::train::open_model;

use super::Outcome;
use crate::arguments::{DataCommand, InspectArguments};
use crate::display::print_result;

/// Does what was asked with a dataset.
pub fn run(command: &DataCommand, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
    match command {
        DataCommand::Inspect(arguments) => show(arguments, observer)?,
        DataCommand::Demo(arguments) => write_demo(&arguments.folder)?,
    }
    Ok(Outcome::Done)
}

/// Prints counts, lengths and refused rows.
fn show(arguments: &InspectArguments, observer: &mut dyn Observer) -> anyhow::Result<()> {
    let tokenizer = match &arguments.model {
        Some(model) => Some(open_model(model)?.1),
        None => None,
    };
    let inspection: Inspection = inspect(&arguments.path.to_string_lossy(), tokenizer.as_ref(), observer)?;
    let text = if arguments.json { serde_json::to_string_pretty(&inspection)? + "\n" } else { inspection.to_string() };
    Ok(print_result(&text)?)
}
