//! `mendel sweep`.

use mendel::compare::sweep::{self, SweepOutcome};

use super::{Outcome, Run};
use crate::arguments::{SweepArguments, SweepPlan};
use crate::display::print_result;

/// Runs every point of the sweep, and prints a row for each.
pub fn run(arguments: &SweepArguments, plan: &SweepPlan, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let mut job = mendel::train::Run { settings: run.settings, observer: run.observer, interrupted: &run.interrupted };
    match sweep::sweep(&mut job, &plan.points, &plan.settings, &arguments.resume())? {
        SweepOutcome::Interrupted => Ok(Outcome::Interrupted { saved: true }),
        SweepOutcome::Done(results) if arguments.json => {
            print_result(&(serde_json::to_string_pretty(&results)? + "\n"))?;
            Ok(Outcome::Done)
        }
        SweepOutcome::Done(results) => {
            print_result(&sweep::table(&results).to_string())?;
            Ok(Outcome::Done)
        }
    }
}
