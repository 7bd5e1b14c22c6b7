//! `mendel info`.

use anyhow::bail;

use super::Outcome;
use crate::arguments::InfoArguments;

/// Prints what the machine has and what `auto` would choose.
pub fn run(_: &InfoArguments) -> anyhow::Result<Outcome> {
    bail!("mendel info is not connected to the library in this build")
}
