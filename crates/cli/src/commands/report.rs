//! `mendel report`.

use mendel::compare;

use super::Outcome;
use crate::arguments::ReportArguments;
use crate::display::say;

/// Makes the report of a comparison again, from its artefacts.
pub fn run(arguments: &ReportArguments) -> anyhow::Result<Outcome> {
    compare::report_again(&arguments.folder)?;
    say(&format!("{}", arguments.folder.join("report.html").display()));
    Ok(Outcome::Done)
}
