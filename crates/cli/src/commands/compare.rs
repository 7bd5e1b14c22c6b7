//! `mendel compare`.

use anyhow::bail;

use super::{Outcome, Run};
use crate::arguments::TrainingArguments;

/// Trains and evaluates every arm, tests the differences, prints the comparison and its verdict.
pub fn run(_: &TrainingArguments, _: &mut Run<'_>) -> anyhow::Result<Outcome> {
    bail!("mendel compare is not connected to the library in this build")
}
