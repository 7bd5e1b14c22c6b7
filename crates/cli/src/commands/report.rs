//! `mendel report`.

use anyhow::ensure;
use mendel::compare;

use super::Outcome;
use crate::arguments::ReportArguments;
use crate::display::{print_result, say};

/// Makes the report of a comparison again, from its artefacts.
pub fn run(arguments: &ReportArguments) -> anyhow::Result<Outcome> {
    let folder = arguments.folder.display();
    ensure!(arguments.folder.is_dir(), "there is no folder '{folder}': name the output folder of a comparison");
    let comparison = compare::report_again(&arguments.folder)?;
    print_result(&compare::text(&comparison))?;
    say(&format!("report: {}", arguments.folder.join("report.html").display()));
    Ok(Outcome::Done)
}
