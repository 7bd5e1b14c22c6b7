//! `mendel compare`.

use mendel::compare::{self, ArmResults, Comparison};
use serde::Serialize;

use super::{Outcome, Run};
use crate::arguments::TrainingArguments;
use crate::display::print_result;

/// Trains and evaluates every arm, and prints them side by side.
pub fn run(arguments: &TrainingArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let mut job = mendel::train::Run { settings: run.settings, observer: run.observer, interrupted: &run.interrupted };
    if arguments.dry_run {
        compare::dry_run(&mut job)?;
        return Ok(Outcome::Done);
    }
    match compare::compare(&mut job, &arguments.resume())? {
        compare::Outcome::Interrupted(_) => Ok(Outcome::Interrupted { saved: true }),
        compare::Outcome::Done(comparison) => {
            print_result(&text(&comparison, arguments.json)?)?;
            Ok(Outcome::Done)
        }
    }
}

/// All that was measured. Not put together as a JSON value, which has no single-precision numbers: the same numbers
/// would read otherwise than in the artefacts.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    arms: &'a [ArmResults],
}

fn text(comparison: &Comparison, json: bool) -> anyhow::Result<String> {
    if !json {
        return Ok(compare::text(comparison));
    }
    Ok(serde_json::to_string_pretty(&Printed { comparison, arms: &comparison.arms })? + "\n")
}
