//! The main job: every arm trained on the same data in the same order from the same initial weights, and compared.

mod artefacts;
mod comparison;
mod cost;
mod examples;
mod machine;
mod results;
pub mod statistics;
pub mod sweep;
mod table;

use std::path::{Path, PathBuf};

pub use artefacts::Artefacts;
pub use comparison::{Compared, Comparison, Difference, Measured, OverQueries, PRIMARY, Test, Verdict};
pub use cost::StepCost;
pub(crate) use cost::{median, median_ratio};
pub use examples::{Example, Examples};
pub use machine::Machine;
pub use results::{ArmResults, SeedNumbers};
pub(crate) use table::MEASURES;
pub use table::table;

use crate::arm::Arm;
use crate::files::check_writable;
use crate::progress::Event;
use crate::report::Report;
use crate::settings::Settings;
use crate::train::{
    Inputs, PlannedRun, Resume, Run, RunRecord, Start, TrainError, Trainer, Training, TrainingBatch, arm_name,
    clear_checkpoints, plan, settings_that_differ, train_arm,
};

/// How a comparison ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every arm is trained and evaluated.
    Done(Box<Comparison>),
    /// The user stopped it; the checkpoint that was saved, or the folder where all runs are finished.
    Interrupted(PathBuf),
}

/// Trains and evaluates every arm of the settings with every seed, and writes the artefacts. With one arm there is no
/// comparison to write, only its results.
pub fn compare(run: &mut Run<'_>, resume: &Resume) -> Result<Outcome, TrainError> {
    let settings = run.settings;
    check_writable(&settings.output_dir)?;
    let artefacts = Artefacts::new(settings);
    if *resume == Resume::No {
        artefacts.ensure_own(settings)?;
    }
    let inputs = Inputs::load(settings, run.observer)?;
    let planned = plan(run, &inputs, resume)?;
    if *resume == Resume::Overwrite {
        artefacts.clear()?;
    }
    let known = measured_before(&artefacts, settings, &planned);
    artefacts.begin(settings)?;
    for PlannedRun { settings, arm, start, .. } in &planned {
        if !matches!(start, Start::Finished(_)) {
            RunRecord::remove(settings, arm)?;
        }
        if matches!(start, Start::First) {
            clear_checkpoints(settings, arm, run.observer)?;
        }
    }
    run.observer.observe(Event::TrainingBegins);
    let peak = inputs.device.matrix_peak();
    let mut records = Vec::with_capacity(planned.len());
    let of = planned.len();
    let mut later = planned.iter().filter(|run| !matches!(run.start, Start::Finished(_))).count();
    for (number, planned) in (1..).zip(planned) {
        let PlannedRun { settings, arm, start, encoder } = planned;
        let checkpoint = match start {
            Start::Finished(record) => {
                records.push(*record);
                continue;
            }
            Start::Checkpoint(checkpoint) => Some(checkpoint),
            Start::First => None,
        };
        later -= 1;
        run.observer.observe(Event::RunStarted { arm: &arm.name, seed: settings.seed, number, of, later });
        let mut run = Run { settings: &settings, observer: run.observer, interrupted: run.interrupted };
        let trained = match train_arm(&mut run, &inputs, &arm, encoder, checkpoint)? {
            Training::Done(trained) => trained,
            Training::Interrupted(checkpoint) => return Ok(Outcome::Interrupted(checkpoint)),
        };
        artefacts.run(&trained, &settings, &inputs)?;
        let record = RunRecord::new(&trained, &settings, &inputs, peak);
        record.write(&settings, &arm)?;
        records.push(record);
    }
    let by_arm = by_arm(settings, &records);
    let arms = results(settings, &by_arm);
    let measured = match known {
        Some(known) => Some(known),
        None => measure(run, &inputs, &by_arm)?,
    };
    let Some(measured) = measured else {
        // All runs have their records: resuming makes the rest.
        return Ok(Outcome::Interrupted(settings.output_dir.clone()));
    };
    let comparison = Comparison::new(arms, &by_arm, measured);
    comparison.arms.iter().try_for_each(|arm| artefacts.arm(arm))?;
    artefacts.comparison(&comparison)?;
    let folder = &settings.output_dir;
    if comparison.differences.is_empty() {
        run.observer.observe(Event::Note(format!("artefacts in {}", folder.display())));
    } else {
        Report::new(settings, &comparison)?.write(folder)?;
        run.observer.observe(Event::Note(format!("report: {}", folder.join("report.html").display())));
    }
    Ok(Outcome::Done(Box::new(comparison)))
}

/// What a comparison of the same arms and seeds measured, if every run is finished: nothing would make it other.
fn measured_before(artefacts: &Artefacts, settings: &Settings, planned: &[PlannedRun]) -> Option<Measured> {
    let finished = planned.iter().all(|run| matches!(run.start, Start::Finished(_)));
    let same = settings_that_differ(&artefacts.settings().ok()?, settings).is_empty();
    if finished && same { artefacts.measured().ok() } else { None }
}

/// What cannot be found from the runs alone; nothing where the user stops it.
fn measure(run: &mut Run<'_>, inputs: &Inputs, by_arm: &[Vec<&RunRecord>]) -> Result<Option<Measured>, TrainError> {
    let several = run.settings.arms.len() > 1;
    let step_costs = if several { cost::step_costs(run, inputs)? } else { Some(Default::default()) };
    let Some(step_costs) = step_costs else { return Ok(None) };
    let (examples, machine) = (examples::of(run, inputs, by_arm)?, Machine::this(&inputs.device));
    Ok(Some(Measured { step_costs, examples, machine }))
}

/// Writes the comparison and its report again, from the records and histories of a folder. Statistics are made anew;
/// what was measured or looked up at the end of the comparison is taken from `comparison.json`.
///
/// # Errors
/// Where a file is missing or not what a comparison leaves.
pub fn report_again(folder: &Path) -> Result<Comparison, TrainError> {
    let artefacts = Artefacts::at(folder);
    let settings = artefacts.settings()?;
    if let [arm] = settings.arms.as_slice() {
        return Err(TrainError::OneArm { folder: folder.into(), arm: arm.name.clone() });
    }
    let mut records = Vec::new();
    for seed in settings.of_each_seed() {
        for arm in &settings.arms {
            let record = RunRecord::find(&seed, arm)?;
            let unfinished = || TrainError::Unfinished { folder: folder.into(), run: arm_name(arm, &seed) };
            records.push(record.ok_or_else(unfinished)?);
        }
    }
    if let Some(other) = records.iter().find(|record| !record.is_comparable(&records[0])) {
        let run = format!("{}-seed{} on the data of the others", other.arm, other.seed);
        return Err(TrainError::Unfinished { folder: folder.into(), run });
    }
    let by_arm = by_arm(&settings, &records);
    let arms = results(&settings, &by_arm);
    let comparison = Comparison::new(arms, &by_arm, artefacts.measured()?);
    artefacts.comparison(&comparison)?;
    Report::new(&settings, &comparison)?.write(folder)?;
    Ok(comparison)
}

/// Each arm's results, with the settings in force for it.
fn results(settings: &Settings, by_arm: &[Vec<&RunRecord>]) -> Vec<ArmResults> {
    let of_arm = |(arm, runs): (&Arm, &Vec<&RunRecord>)| {
        ArmResults::new(runs, &Settings { seed: runs[0].seed, ..arm.applied_to(settings) })
    };
    settings.arms.iter().zip(by_arm).map(of_arm).collect()
}

/// The runs of each arm, in the order of the settings.
fn by_arm<'a>(settings: &Settings, records: &'a [RunRecord]) -> Vec<Vec<&'a RunRecord>> {
    let of = |name: &str| records.iter().filter(|run| run.arm == name).collect();
    settings.arms.iter().map(|arm| of(&arm.name)).collect()
}

/// What is printed: the table, and under it the verdicts.
pub fn text(comparison: &Comparison) -> String {
    let verdicts = comparison.verdicts().map(|line| line + "\n").collect::<String>();
    format!("{}{verdicts}", table(comparison))
}

/// Loads everything and makes one step and one evaluation batch of every arm; writes nothing.
pub fn dry_run(run: &mut Run<'_>) -> Result<(), TrainError> {
    let settings = run.settings;
    let inputs = Inputs::load(settings, run.observer)?;
    let mut sampler = inputs.sampler(settings)?;
    for arm in &settings.arms {
        let mut trainer = Trainer::new(inputs.encoder(settings, arm)?, settings);
        let batch = TrainingBatch::deal(&inputs.pairs, &mut sampler, 0);
        trainer.check_gradients(&batch)?;
        let report = trainer.step(0, &batch, settings.learning_rate)?;
        let passages = &inputs.evaluator.set.passages;
        let some = &passages[..passages.len().min(settings.batch_size)];
        trainer.encoder.embed(some, |_| ())?;
        let what = format!("{arm}: a step of {} pairs, loss {:.4}; evaluation works", batch.queries, report.loss);
        run.observer.observe(Event::Note(what));
    }
    Ok(())
}
