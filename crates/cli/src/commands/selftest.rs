//! `mendel selftest`.

use anyhow::bail;
use mendel::report::table::Table;
use mendel::selftest;

use super::{Outcome, Run};
use crate::arguments::SelftestArguments;
use crate::display::print_result;
use crate::failure::WrongUsage;

/// Checks the device of the settings, and prints a row for each check. Fails where one does, or where none is asked for.
pub fn run(arguments: &SelftestArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let device = run.settings.device()?;
    let unit = match device.gpu() {
        Some(gpu) => format!("{} in {}", gpu.name, device.precision()),
        // Whose name says the precision.
        None => device.matrix_unit(),
    };
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part));
    let checks = selftest::run(&device, run.settings, arguments.steps as usize, wanted, |_| {})?;
    if checks.is_empty() {
        let message =
            format!("no check has '{}' in its name: without --only all are listed", arguments.only.join("' or '"));
        return Err(WrongUsage::new(message).into());
    }
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
