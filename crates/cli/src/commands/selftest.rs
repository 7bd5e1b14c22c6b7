//! `mendel selftest`.

use anyhow::bail;
use mendel::report::table::Table;
use mendel::selftest;

use super::{Outcome, Run};
use crate::arguments::SelftestArguments;
use crate::display::print_result;

/// Checks the device of the settings, and prints a row for each check. Fails where one does.
pub fn run(arguments: &SelftestArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let device = run.settings.device()?;
    let unit = format!("{} in {:?}", device.matrix_unit(), device.precision());
    let checks = selftest::run(run.settings, arguments.steps as usize, |_| {})?;
    let mut table = Table::new([unit.as_str(), "error", "bound", ""]);
    for check in &checks {
        let told = if check.passed() { "ok" } else { "FAILED" };
        table.row([check.name.clone(), format!("{:.1e}", check.error), format!("{:.1e}", check.bound), told.into()]);
    }
    print_result(&table.to_string())?;
    let failed = checks.iter().filter(|check| !check.passed()).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed on {unit}", checks.len());
    }
    Ok(Outcome::Done)
}
