//! The training step.

use mendel_engine::ops::info_nce::InfoNce;
use mendel_engine::optim::{AdamW, Moments};
use mendel_engine::{Gradients, Tape, Tensor, Var};

use super::batch::TrainingBatch;
use super::error::TrainError;
use crate::dual_encoder::DualEncoder;
use crate::layers::Mode;
use crate::settings::{Loss, Settings};

/// A key's bias shifts all scores of a row alike, and softmax does not see it: its gradient is 0 but for rounding.
const WITHOUT_GRADIENT: &str = ".attention.self.key.bias";

/// A model in training.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// The model.
    pub encoder: DualEncoder,
    /// What the optimizer remembers.
    pub moments: Moments,
    optimizer: AdamW,
    temperature: f32,
    symmetric: bool,
    max_grad_norm: f64,
    seed: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The batch's loss before the update.
    pub loss: f64,
    /// Global norm of the gradients before they are clipped.
    pub gradient_norm: f64,
    /// Tokens of all texts in the batch.
    pub tokens: usize,
}

/// A step that the device works on.
#[must_use = "a step that is not finished may have failed"]
#[derive(Debug)]
pub struct StepUnderWay {
    step: u64,
    loss: Tensor,
    norm: Option<Tensor>,
    pairs: Vec<usize>,
    tokens: usize,
}

impl StepUnderWay {
    /// Waits for the step of that trainer, and tells what it did.
    pub fn finish(self, trainer: &mut Trainer) -> Result<StepReport, TrainError> {
        let StepUnderWay { step, loss, norm, pairs, tokens } = self;
        let loss = f64::from(loss.item());
        let gradient_norm = norm.map_or(0.0, |norm| f64::from(norm.item()));
        trainer.encoder.bert.device().check()?;
        let what = if !loss.is_finite() {
            "loss"
        } else if !gradient_norm.is_finite() {
            "gradient"
        } else {
            return Ok(StepReport { loss, gradient_norm, tokens });
        };
        trainer.moments.step -= 1;
        Err(TrainError::NotFinite { step: step + 1, what, pairs })
    }
}

impl Trainer {
    /// Before the first step.
    pub fn new(encoder: DualEncoder, settings: &Settings) -> Self {
        Trainer {
            moments: Moments::new(encoder.bert.parameters()),
            encoder,
            optimizer: AdamW { weight_decay: settings.weight_decay, ..AdamW::default() },
            temperature: settings.temperature as f32,
            symmetric: settings.loss == Loss::Symmetric,
            max_grad_norm: settings.max_grad_norm,
            seed: settings.seed,
        }
    }

    /// Forward, loss, backward, clipping and update: the step of that number, counted from 0. When it fails, the
    /// model and the optimizer are as before.
    pub fn step(&mut self, step: u64, batch: &TrainingBatch, learning_rate: f64) -> Result<StepReport, TrainError> {
        self.begin_step(step, batch, learning_rate)?.finish(self)
    }

    /// Asks the device for a step, and does not wait for it: there is time to deal the next batch. Every step that is
    /// begun must be finished before the next.
    pub fn begin_step(
        &mut self,
        step: u64,
        batch: &TrainingBatch,
        learning_rate: f64,
    ) -> Result<StepUnderWay, TrainError> {
        let (loss, gradients) = self.gradients(step, batch)?;
        let parameters = self.encoder.bert.parameters_mut();
        let (moments, max_norm) = (&mut self.moments, self.max_grad_norm);
        let norm = self.optimizer.update(parameters, &gradients, moments, learning_rate, max_norm, &loss);
        let (pairs, tokens) = (batch.pairs.clone(), batch.texts.sequences.tokens());
        Ok(StepUnderWay { step, loss, norm, pairs, tokens })
    }

    /// Whether every weight is a finite number: a step can end in one that is not, and only the next would show it.
    pub fn is_finite(&self) -> bool {
        self.encoder.bert.parameters().iter().all(|(_, _, tensor)| tensor.to_vec().iter().all(|x| x.is_finite()))
    }

    fn gradients(&self, step: u64, batch: &TrainingBatch) -> Result<(Tensor, Gradients), TrainError> {
        let tape = Tape::recording();
        let loss = self.loss(&tape, step, batch)?;
        Ok((loss.value().clone(), tape.backward(&loss)?))
    }

    fn loss(&self, tape: &Tape, step: u64, batch: &TrainingBatch) -> Result<Var, TrainError> {
        let mode = Mode::Training { seed: self.seed, step: step as u32 };
        let vectors = self.encoder.forward(tape, &batch.texts, mode)?;
        let queries = vectors.rows(0, batch.queries)?;
        let passages = vectors.rows(batch.queries, batch.texts.sequences.len())?;
        let (temperature, symmetric) = (self.temperature, self.symmetric);
        let options = InfoNce { temperature, symmetric, excluded: batch.excluded.clone() };
        Ok(Var::info_nce(&queries, &passages, &options)?)
    }

    /// Checks on a batch that a gradient reaches every parameter: one that is silently cut leaves a part of the model
    /// at its initial weights, and nothing else tells.
    pub fn check_gradients(&self, batch: &TrainingBatch) -> Result<(), TrainError> {
        let (_, gradients) = self.gradients(0, batch)?;
        let reached =
            |id| gradients.of_parameter(id).is_some_and(|gradient| gradient.to_vec().iter().any(|&x| x != 0.0));
        let parameters = self.encoder.bert.parameters().iter();
        let mut cut = parameters.filter(|&(id, name, _)| !name.ends_with(WITHOUT_GRADIENT) && !reached(id));
        match cut.next() {
            None => Ok(()),
            Some((_, first, _)) => Err(TrainError::NoGradient { first: first.to_owned(), count: 1 + cut.count() }),
        }
    }
}
