//! `mendel eval`.

use anyhow::bail;

use super::{Outcome, Run};
use crate::arguments::EvalArguments;

/// Evaluates the saved model that `settings.model` names on `settings.dataset`.
pub fn run(_: &EvalArguments, _: &mut Run<'_>) -> anyhow::Result<Outcome> {
    bail!("mendel eval is not connected to the library in this build")
}
