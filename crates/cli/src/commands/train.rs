//! `mendel train`.

use anyhow::bail;

use super::{Outcome, Run};
use crate::arguments::TrainingArguments;

/// Trains and evaluates the one arm of the settings.
pub fn run(_: &TrainingArguments, _: &mut Run<'_>) -> anyhow::Result<Outcome> {
    bail!("mendel train is not connected to the library in this build")
}
