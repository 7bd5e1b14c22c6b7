//! `mendel data`.

use anyhow::bail;
use mendel::progress::Observer;

use super::Outcome;
use crate::arguments::{DataCommand, DemoArguments, InspectArguments};

/// Does what was asked with a dataset.
pub fn run(command: &DataCommand, observer: &mut dyn Observer) -> anyhow::Result<Outcome> {
    match command {
        DataCommand::Inspect(arguments) => inspect(arguments, observer),
        DataCommand::Demo(arguments) => demo(arguments, observer),
    }
}

/// Prints counts, lengths and refused rows.
fn inspect(_: &InspectArguments, _: &mut dyn Observer) -> anyhow::Result<Outcome> {
    bail!("mendel data inspect is not connected to the library in this build")
}

/// Writes the built-in dataset.
fn demo(_: &DemoArguments, _: &mut dyn Observer) -> anyhow::Result<Outcome> {
    bail!("mendel data demo is not connected to the library in this build")
}
