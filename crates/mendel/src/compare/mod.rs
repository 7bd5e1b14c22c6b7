//! The main job: every arm trained on the same data in the same order from the same initial weights, and compared.

mod artefacts;
mod results;
mod table;

use std::path::PathBuf;

pub use artefacts::Artefacts;
pub use results::{ArmResults, Comparison, Difference, Resources};
pub use table::table;

use crate::files::check_writable;
use crate::progress::Event;
use crate::train::{Inputs, Resume, Run, TrainError, Trainer, Training, TrainingBatch, starting_points, train_arm};
use mendel_engine::cpu::limits::matrix_peak;

/// How a comparison ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every arm is trained and evaluated.
    Done(Box<Comparison>),
    /// The user stopped it; the checkpoint that was saved.
    Interrupted(PathBuf),
}

/// Trains and evaluates every arm of the settings, and writes the artefacts. With one arm there is no comparison to
/// write, only its results.
pub fn compare(run: &mut Run<'_>, resume: &Resume) -> Result<Outcome, TrainError> {
    let settings = run.settings;
    check_writable(&settings.output_dir)?;
    let inputs = Inputs::load(settings, run.observer)?;
    let starts = starting_points(run, &inputs, resume)?;
    let artefacts = Artefacts::new(settings);
    artefacts.begin(settings)?;
    run.observer.observe(Event::TrainingBegins);
    let peak = matrix_peak(settings.precision());
    let mut results = Vec::with_capacity(settings.arms.len());
    for (&arm, start) in settings.arms.iter().zip(starts) {
        let trained = match train_arm(run, &inputs, arm, start)? {
            Training::Done(trained) => trained,
            Training::Interrupted(checkpoint) => return Ok(Outcome::Interrupted(checkpoint)),
        };
        let arm_results = ArmResults::new(&trained, settings, peak);
        artefacts.arm(&trained, &arm_results, &inputs)?;
        results.push(arm_results);
    }
    let comparison = Comparison::new(results);
    artefacts.comparison(&comparison)?;
    run.observer.observe(Event::Note(format!("artefacts in {}", settings.output_dir.display())));
    Ok(Outcome::Done(Box::new(comparison)))
}

/// Loads everything and makes one step and one evaluation batch of every arm; writes nothing.
pub fn dry_run(run: &mut Run<'_>) -> Result<(), TrainError> {
    let settings = run.settings;
    let inputs = Inputs::load(settings, run.observer)?;
    let mut sampler = inputs.sampler.clone();
    for &arm in &settings.arms {
        let mut trainer = Trainer::new(inputs.encoder(settings, arm)?, settings);
        let batch = TrainingBatch::deal(&inputs.pairs, &mut sampler, 0, &inputs.device)?;
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
