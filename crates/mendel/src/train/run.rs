//! The training loop of one arm: steps, evaluations, history, checkpoints, interruption.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::{debug, info};

use super::batch::TrainingBatch;
use super::checkpoint::{Checkpoint, CheckpointStore};
use super::error::TrainError;
use super::events::Events;
use super::history::{History, Row};
use super::inputs::Inputs;
use super::record::RunRecord;
use super::schedule::Schedule;
use super::state::{self, Identity, Progress, State};
use super::trainer::{StepReport, Trainer};
use crate::arm::Arm;
use crate::attention::GeneticView;
use crate::data::Sampler;
use crate::dual_encoder::DualEncoder;
use crate::evaluate::Evaluation;
use crate::layers::Batch;
use crate::memory;
use crate::progress::{Event, Observer, counted};
use crate::settings::Settings;

/// The final loss is the mean over the last epoch's last part of this size.
const FINAL_PART: f64 = 0.1;

/// Passages that the view of the genetic part is of.
const VIEWED_PASSAGES: usize = 64;

/// The folder of checkpoints in the output folder.
const CHECKPOINTS: &str = "checkpoints";

/// What a run works with beside its inputs.
pub struct Run<'a> {
    /// The settings in force.
    pub settings: &'a Settings,
    /// Told what happens.
    pub observer: &'a mut dyn Observer,
    /// Becomes true when the user asks to stop.
    pub interrupted: &'a AtomicBool,
}

/// What of an earlier process a comparison takes up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Nothing. Checkpoints of the same run are removed; what other settings have left in the same place is not touched, and
    /// stands in the way.
    #[default]
    No,
    /// Nothing, and whatever an earlier run has left in the same place is removed.
    Overwrite,
    /// Each run that is finished, the others from their newest undamaged checkpoints, or from the first step.
    Newest,
    /// The run that this checkpoint is of from there, the others as with `Newest`.
    From(PathBuf),
}

/// A trained arm.
#[derive(Clone, Debug)]
pub struct TrainedArm {
    /// Which.
    pub arm: Arm,
    /// The model.
    pub encoder: DualEncoder,
    /// The evaluation before the first step.
    pub untrained: Evaluation,
    /// The evaluation after the last step.
    pub evaluation: Evaluation,
    /// Times, losses and memory.
    pub progress: Progress,
}

/// How training an arm ended.
#[derive(Debug)]
pub enum Training {
    /// All steps are done.
    Done(Box<TrainedArm>),
    /// The user stopped it; the checkpoint to resume from.
    Interrupted(PathBuf),
}

/// `<arm>-seed<k>`: the name of an arm's files.
pub fn arm_name(arm: &Arm, settings: &Settings) -> String {
    format!("{arm}-seed{}", settings.seed)
}

/// Steps of a whole run.
pub fn total_steps(settings: &Settings, sampler: &Sampler) -> u64 {
    let all = sampler.steps_per_epoch().saturating_mul(settings.epochs);
    settings.max_steps.map_or(all, |most| most.min(all))
}

/// One arm with one seed, and where it begins.
#[derive(Debug)]
pub struct PlannedRun {
    /// The settings with the run's seed.
    pub settings: Settings,
    /// The arm.
    pub arm: Arm,
    /// Where it begins.
    pub start: Start,
    /// The first run's model before training, since it is built to be checked.
    pub encoder: Option<DualEncoder>,
}

/// Where a run begins.
#[derive(Debug)]
pub enum Start {
    /// At the first step.
    First,
    /// Where a checkpoint left it.
    Checkpoint(Checkpoint),
    /// It is finished.
    Finished(Box<RunRecord>),
}

/// Every arm with every seed, all arms of a seed one after the other. Builds every arm once, checks its gradients, and
/// writes nothing, so that what stands in the way of a later run is found before the first is trained.
pub fn plan(run: &mut Run<'_>, inputs: &Inputs, resume: &Resume) -> Result<Vec<PlannedRun>, TrainError> {
    let arms = &run.settings.arms;
    let mut planned: Vec<PlannedRun> = Vec::new();
    for settings in run.settings.of_each_seed() {
        let of_arm =
            |arm: &Arm| PlannedRun { settings: settings.clone(), arm: arm.clone(), start: Start::First, encoder: None };
        planned.extend(arms.iter().map(of_arm));
    }
    let first_batch = TrainingBatch::deal(&inputs.pairs, &mut inputs.sampler(run.settings)?, 0);
    let checked = |PlannedRun { settings, arm, .. }: &PlannedRun| -> Result<DualEncoder, TrainError> {
        let trainer = Trainer::new(inputs.encoder(settings, arm)?, settings);
        trainer.check_gradients(&first_batch)?;
        Ok(trainer.encoder)
    };
    for other in &planned[1..arms.len()] {
        checked(other)?;
    }
    planned[0].encoder = Some(checked(&planned[0])?);
    if let Resume::From(path) = resume {
        let checkpoint = Checkpoint::open(path)?;
        let state = State::read(&checkpoint)?;
        // Of none of the runs, it is the first that it is refused for.
        let owner = planned.iter().position(|run| state.is_of(&run.arm, &run.settings)).unwrap_or_default();
        planned[owner].start = Start::Checkpoint(checkpoint);
    }
    if matches!(resume, Resume::Newest | Resume::From(_)) {
        for planned in planned.iter_mut().filter(|planned| matches!(planned.start, Start::First)) {
            planned.start = where_it_ended(planned, run.observer)?;
        }
    }
    for PlannedRun { settings, arm, start, .. } in &planned {
        match start {
            Start::First => {}
            Start::Checkpoint(checkpoint) => {
                State::read(checkpoint)?.check(checkpoint, &Identity::new(settings, arm, &inputs.fingerprints))?;
            }
            Start::Finished(record) => record.check(settings, arm, inputs)?,
        }
    }
    if *resume == Resume::Newest && planned.iter().all(|planned| matches!(planned.start, Start::First)) {
        let folder = run.settings.output_dir.join(CHECKPOINTS);
        let what = format!("no checkpoint to resume from in {}: every arm begins at its first step", folder.display());
        run.observer.observe(Event::Warning(what));
    }
    let (steps, warmup) = (total_steps(run.settings, &inputs.sampler(run.settings)?), run.settings.warmup_steps);
    if steps < warmup {
        let reached = 100 * steps / warmup;
        let what = format!("{steps} steps end within the warm-up of {warmup}, at {reached}% of the learning rate");
        run.observer.observe(Event::Warning(what + ": give fewer --warmup-steps"));
    }
    Ok(planned)
}

/// Where an earlier process left a run.
fn where_it_ended(planned: &PlannedRun, observer: &mut dyn Observer) -> Result<Start, TrainError> {
    let PlannedRun { settings, arm, .. } = planned;
    let model = settings.output_dir.join("models").join(arm_name(arm, settings));
    // Who has removed the model wants it again: the last checkpoint has it.
    if let Some(record) = RunRecord::find(settings, arm)?.filter(|_| model.exists()) {
        return Ok(Start::Finished(Box::new(record)));
    }
    Ok(newest(&store(settings, arm), observer)?.map_or(Start::First, Start::Checkpoint))
}

fn store(settings: &Settings, arm: &Arm) -> CheckpointStore {
    let folder = settings.output_dir.join(CHECKPOINTS).join(arm_name(arm, settings));
    CheckpointStore::new(folder, settings.keep_checkpoints)
}

/// Removes the checkpoints of an earlier run of the arm with the settings' seed.
pub fn clear_checkpoints(settings: &Settings, arm: &Arm, observer: &mut dyn Observer) -> Result<(), TrainError> {
    let removed = store(settings, arm).clear()?;
    if removed > 0 {
        let (checkpoints, name) = (counted(removed as u64, "checkpoints"), arm_name(arm, settings));
        let what = format!("{checkpoints} of an earlier run of {name} removed");
        observer.observe(Event::Warning(what));
    }
    Ok(())
}

/// Trains one arm from its initial weights, or from where a checkpoint of it left it. `built` is its model before training,
/// where there is one.
pub fn train_arm(
    run: &mut Run<'_>,
    inputs: &Inputs,
    arm: &Arm,
    built: Option<DualEncoder>,
    checkpoint: Option<Checkpoint>,
) -> Result<Training, TrainError> {
    memory::reset_peak(&inputs.device);
    let encoder = built.map_or_else(|| inputs.encoder(run.settings, arm), Ok)?;
    let mut arm = ArmInTraining::begin(run, inputs, arm, encoder.clone(), checkpoint)?;
    let untrained = inputs.evaluator.evaluate(&encoder, run.observer)?;
    drop(encoder);
    arm.record(run, 0, &untrained)?;
    if let Some(path) = arm.train(run)? {
        return Ok(Training::Interrupted(path));
    }
    let evaluation = match arm.final_evaluation.take() {
        Some(evaluation) => evaluation,
        None => inputs.evaluator.evaluate(&arm.trainer.encoder, run.observer)?,
    };
    let ArmInTraining { arm, trainer, progress, .. } = arm;
    Ok(Training::Done(Box::new(TrainedArm { arm, encoder: trainer.encoder, untrained, evaluation, progress })))
}

/// An arm in training.
struct ArmInTraining<'a> {
    inputs: &'a Inputs,
    arm: Arm,
    /// Whether it goes on from a checkpoint.
    resumed: bool,
    trainer: Trainer,
    sampler: Sampler,
    schedule: Schedule,
    store: CheckpointStore,
    history: History,
    events: Events,
    progress: Progress,
    /// Of the last step, if this process made it.
    final_evaluation: Option<Evaluation>,
    /// The batch of the step after the last, dealt ahead.
    next: Option<(u64, TrainingBatch)>,
    /// Since the last logged step: pairs and seconds.
    since_log: (usize, f64),
}

impl<'a> ArmInTraining<'a> {
    fn begin(
        run: &mut Run<'_>,
        inputs: &'a Inputs,
        arm: &Arm,
        encoder: DualEncoder,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, TrainError> {
        let settings = run.settings;
        let sampler = inputs.sampler(settings)?;
        let schedule = Schedule {
            course: settings.lr_schedule,
            peak: settings.learning_rate,
            warmup_steps: settings.warmup_steps,
            total_steps: total_steps(settings, &sampler),
        };
        let name = arm_name(arm, settings);
        let history = settings.output_dir.join("history").join(format!("{name}.jsonl"));
        let mut trainer = Trainer::new(encoder, settings);
        let store = store(settings, arm);
        let resumed = checkpoint.is_some();
        let (progress, history) = match checkpoint {
            Some(checkpoint) => {
                let progress = state::restore(&checkpoint, &mut trainer)?;
                run.observer.observe(Event::Note(format!("{arm} goes on from {}", checkpoint.path().display())));
                let history = History::resume(history, progress.step)?;
                (progress, history)
            }
            None => (Progress::default(), History::create(history)?),
        };
        let events = Events::begin(settings, &name, history.path(), progress.seconds)?;
        let parameters = trainer.encoder.bert.parameters().element_count();
        info!(%arm, parameters, first_step = progress.step + 1, last_step = schedule.total_steps, "training begins");
        let (final_evaluation, since_log) = (None, (0, 0.0));
        Ok(Self {
            inputs,
            arm: arm.clone(),
            resumed,
            trainer,
            sampler,
            schedule,
            store,
            history,
            events,
            progress,
            final_evaluation,
            next: None,
            since_log,
        })
    }

    /// All steps that are left. When interrupted, the path of the checkpoint.
    fn train(&mut self, run: &mut Run<'_>) -> Result<Option<PathBuf>, TrainError> {
        let total = self.schedule.total_steps;
        if self.progress.step < total {
            self.stage(run);
        }
        while self.progress.step < total {
            if run.interrupted.load(Ordering::Relaxed) {
                return self.save(run).map(Some);
            }
            let report = self.step()?;
            let step = self.progress.step;
            run.observer.observe(Event::StageAdvanced { done: step });
            let due = |steps| step.is_multiple_of(steps) || step == total;
            if due(run.settings.log_steps) {
                self.log(run, report)?;
            }
            if due(run.settings.eval_steps) {
                run.observer.observe(Event::StageFinished);
                self.evaluate(run)?;
                if step < total {
                    self.stage(run);
                }
            }
            if due(run.settings.save_steps) {
                self.save(run)?;
            }
        }
        Ok(None)
    }

    fn stage(&self, run: &mut Run<'_>) {
        let (what, total) =
            (format!("Training {}, seed {}", self.arm, run.settings.seed), Some(self.schedule.total_steps));
        run.observer.observe(Event::StageStarted { what, unit: "steps", total });
        run.observer.observe(Event::StageAdvanced { done: self.progress.step });
    }

    fn deal(&mut self, step: u64) -> TrainingBatch {
        TrainingBatch::deal(&self.inputs.pairs, &mut self.sampler, step)
    }

    fn step(&mut self) -> Result<StepReport, TrainError> {
        let started = Instant::now();
        let step = self.progress.step;
        let batch = match self.next.take() {
            Some((of, batch)) if of == step => batch,
            _ => self.deal(step),
        };
        let under_way = self.trainer.begin_step(step, &batch, self.schedule.learning_rate(step))?;
        // While a GPU is at work.
        if step + 1 < self.schedule.total_steps {
            let next = self.deal(step + 1);
            self.trainer.prepare(&next)?;
            self.next = Some((step + 1, next));
        }
        let report = under_way.finish(&mut self.trainer)?;
        let seconds = started.elapsed().as_secs_f64();
        let (loss, gradient_norm, tokens) = (report.loss, report.gradient_norm, report.tokens);
        debug!(step = step + 1, loss, gradient_norm, tokens, seconds, "trained a step");
        let epoch = self.sampler.epoch_of(step) as usize;
        let progress = &mut self.progress;
        progress.step += 1;
        progress.seconds += seconds;
        progress.epoch_seconds.resize(epoch + 1, 0.0);
        progress.epoch_seconds[epoch] += seconds;
        progress.tokens += report.tokens as u64;
        if step >= final_part(self.schedule.total_steps, self.sampler.steps_per_epoch()) {
            progress.final_losses.push(report.loss);
        }
        self.since_log = (self.since_log.0 + batch.queries, self.since_log.1 + seconds);
        Ok(report)
    }

    fn log(&mut self, run: &mut Run<'_>, report: StepReport) -> Result<(), TrainError> {
        let (pairs, seconds) = std::mem::take(&mut self.since_log);
        let (step, pairs_per_second) = (self.progress.step, pairs as f64 / seconds);
        let (arm, total, learning_rate) = (&self.arm, self.schedule.total_steps, self.schedule.learning_rate(step - 1));
        run.observer.observe(Event::Step {
            arm: &arm.name,
            step,
            total,
            loss: report.loss,
            learning_rate,
            pairs_per_second,
        });
        self.note(&Row::Step {
            step,
            epoch: self.sampler.epoch_of(step - 1) + 1,
            loss: report.loss,
            learning_rate,
            gradient_norm: report.gradient_norm,
            pairs_per_second,
            seconds: self.progress.seconds,
        })
    }

    fn note(&mut self, row: &Row) -> Result<(), TrainError> {
        self.history.append(row)?;
        Ok(self.events.append(row)?)
    }

    /// Refuses a model that is not finite: it is never evaluated, and never replaces a checkpoint that is.
    fn check_model(&mut self) -> Result<(), TrainError> {
        if self.trainer.is_finite() {
            return Ok(());
        }
        let step = self.progress.step;
        Err(TrainError::NotFinite { step, what: "model", pairs: self.deal(step.saturating_sub(1)).pairs })
    }

    fn evaluate(&mut self, run: &mut Run<'_>) -> Result<(), TrainError> {
        self.check_model()?;
        let evaluation = self.inputs.evaluator.evaluate(&self.trainer.encoder, run.observer)?;
        let step = self.progress.step;
        self.record(run, step, &evaluation)?;
        let mrr = evaluation.measured.retrieval.mrr_at_10;
        if self.progress.best.is_none_or(|(best, _)| mrr > best) {
            self.progress.best = Some((mrr, step));
        }
        if step == self.schedule.total_steps {
            self.final_evaluation = Some(evaluation);
        }
        Ok(())
    }

    /// Tells of an evaluation and adds it to the history, which has that of the untrained model only once.
    fn record(&mut self, run: &mut Run<'_>, step: u64, evaluation: &Evaluation) -> Result<(), TrainError> {
        let measures = &evaluation.measured.retrieval;
        let (mrr_at_10, ndcg_at_10) = (measures.mrr_at_10, measures.ndcg_at_10);
        run.observer.observe(Event::Evaluated { arm: &self.arm.name, step, mrr_at_10, ndcg_at_10 });
        if step == 0 && self.resumed {
            return Ok(());
        }
        let measures = evaluation.measured.by_name();
        self.note(&Row::Evaluation { step, seconds: evaluation.seconds, measures })?;
        if self.arm.genetic {
            let view = self.genetic_view()?;
            self.note(&Row::Genetics { step, view })?;
        }
        Ok(())
    }

    /// How the genetic part acts on the first passages that are evaluated.
    fn genetic_view(&self) -> Result<GeneticView, TrainError> {
        let passages = &self.inputs.evaluator.set.passages;
        let viewed: Vec<&[u32]> = passages.iter().take(VIEWED_PASSAGES).map(Vec::as_slice).collect();
        let batch = Batch::pack(&self.inputs.device, &viewed, &vec![0; viewed.len()])?;
        Ok(self.trainer.encoder.bert.genetic_view(&batch)?)
    }

    /// Saves a checkpoint; the history is on the disk before it, so that a resumed run has what an unbroken one has.
    fn save(&mut self, run: &mut Run<'_>) -> Result<PathBuf, TrainError> {
        self.check_model()?;
        self.history.sync()?;
        self.progress.peak_memory = self.progress.peak_memory.max(memory::peak(&self.inputs.device));
        let Self { inputs, arm, trainer, store, progress, .. } = self;
        let saved = state::save(store, trainer, progress, run.settings, arm, &inputs.fingerprints)?;
        for error in saved.not_removed {
            run.observer.observe(Event::Warning(error.to_string()));
        }
        run.observer.observe(Event::Saved { path: &saved.path });
        Ok(saved.path)
    }
}

/// The first step, from 0, whose loss counts for the final loss: that of the last part of the last epoch.
fn final_part(total_steps: u64, steps_per_epoch: u64) -> u64 {
    let last_epoch = total_steps.saturating_sub(1) / steps_per_epoch * steps_per_epoch;
    let part = ((total_steps - last_epoch) as f64 * FINAL_PART).ceil() as u64;
    total_steps - part
}

/// The newest checkpoint; tells of damaged ones that are passed over.
fn newest(store: &CheckpointStore, observer: &mut dyn Observer) -> Result<Option<Checkpoint>, TrainError> {
    let newest = store.newest()?;
    for damaged in newest.damaged {
        observer.observe(Event::Warning(format!("{damaged}; it is passed over for the one before")));
    }
    Ok(newest.checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_loss_is_of_the_last_tenth_of_the_last_epoch() {
        assert_eq!(final_part(100, 50), 95);
        assert_eq!(final_part(50, 50), 45);
        assert_eq!(final_part(51, 50), 50);
        assert_eq!(final_part(400, 81), 392);
        assert_eq!(final_part(1, 10), 0);
    }
}
