//! `mendel embed`.

use anyhow::bail;

use super::{Outcome, Run};
use crate::arguments::EmbedArguments;

/// Writes one embedding per text.
pub fn run(_: &EmbedArguments, _: &mut Run<'_>) -> anyhow::Result<Outcome> {
    bail!("mendel embed is not connected to the library in this build")
}
