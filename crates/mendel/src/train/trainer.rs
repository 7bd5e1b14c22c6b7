//! The training step.

use mendel_engine::ops::info_nce::InfoNce;
use mendel_engine::optim::{AdamW, Moments, global_norm};
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

impl Trainer {
    /// Before the first step.
    pub fn new(encoder: DualEncoder, settings: &Settings) -> Self {
        let trainer = Trainer {
            moments: Moments::new(encoder.bert.parameters()),
            encoder,
            optimizer: AdamW { weight_decay: settings.weight_decay, ..AdamW::default() },
            temperature: settings.temperature as f32,
            symmetric: settings.loss == Loss::Symmetric,
            max_grad_norm: settings.max_grad_norm,
            seed: settings.seed,
        };
        trainer.make_room();
        trainer
    }

    /// Gradients come when most activations have gone. The arena is given the gradients' buffers first, since they are
    /// the larger ones: activations can use them, but not the other way round.
    fn make_room(&self) {
        let gradients = self.encoder.bert.parameters().iter().map(|(_, _, tensor)| tensor.empty_like());
        drop(gradients.collect::<Vec<Tensor>>());
    }

    /// Forward, loss, backward, clipping and update: the step of that number, counted from 0. When it fails, the
    /// model and the optimizer are as before.
    pub fn step(&mut self, step: u64, batch: &TrainingBatch, learning_rate: f64) -> Result<StepReport, TrainError> {
        let (loss, gradients) = self.gradients(step, batch)?;
        let not_finite = |what| TrainError::NotFinite { step: step + 1, what, pairs: batch.pairs.clone() };
        if !loss.is_finite() {
            return Err(not_finite("loss"));
        }
        let gradient_norm = global_norm(&gradients);
        if !gradient_norm.is_finite() {
            return Err(not_finite("gradient"));
        }
        let clip = (self.max_grad_norm / (gradient_norm + 1e-6)).min(1.0) as f32;
        self.optimizer.update(self.encoder.bert.parameters_mut(), &gradients, &mut self.moments, learning_rate, clip);
        Ok(StepReport { loss, gradient_norm, tokens: batch.texts.sequences.tokens() })
    }

    /// Whether every weight is a finite number: a step can end in one that is not, and only the next would show it.
    pub fn is_finite(&self) -> bool {
        self.encoder.bert.parameters().iter().all(|(_, _, tensor)| tensor.data().iter().all(|x| x.is_finite()))
    }

    fn gradients(&self, step: u64, batch: &TrainingBatch) -> Result<(f64, Gradients), TrainError> {
        let tape = Tape::recording();
        let loss = self.loss(&tape, step, batch)?;
        Ok((f64::from(loss.value().item()), tape.backward(&loss)?))
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
        let reached = |id| gradients.of_parameter(id).is_some_and(|gradient| gradient.data().iter().any(|&x| x != 0.0));
        let parameters = self.encoder.bert.parameters().iter();
        let mut cut = parameters.filter(|&(id, name, _)| !name.ends_with(WITHOUT_GRADIENT) && !reached(id));
        match cut.next() {
            None => Ok(()),
            Some((_, first, _)) => Err(TrainError::NoGradient { first: first.to_owned(), count: 1 + cut.count() }),
        }
    }
}
