//! `mendel bench`.

use anyhow::bail;

use super::{Outcome, Run};
use crate::arguments::BenchArguments;

/// Measures training steps of every arm of the settings.
pub fn run(_: &BenchArguments, _: &mut Run<'_>) -> anyhow::Result<Outcome> {
    bail!("mendel bench is not connected to the library in this build")
}
