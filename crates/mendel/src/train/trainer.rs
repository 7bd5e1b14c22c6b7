//! The training step.

use mendel_engine::ops::info_nce::InfoNce;
use mendel_engine::optim::{AdamW, Moments, norm};
use mendel_engine::{Gradients, Tape, Tensor, Var};

use super::batch::{MicroBatches, TrainingBatch};
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
    /// Pairs whose activations are held at once; 0 is all of a batch.
    loss_micro_batch: usize,
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
    /// Waits for the step of that trainer, but for the update of its weights, and tells what it did.
    pub fn finish(self, trainer: &mut Trainer) -> Result<StepReport, TrainError> {
        let StepUnderWay { step, loss, norm, pairs, tokens } = self;
        let loss = f64::from(loss.item());
        let gradient_norm = norm.map_or(0.0, |norm| f64::from(norm.item()));
        trainer.encoder.bert.device().tell()?;
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
        let trainer = Trainer {
            moments: Moments::new(encoder.bert.parameters()),
            encoder,
            optimizer: AdamW { weight_decay: settings.weight_decay, ..AdamW::default() },
            temperature: settings.temperature as f32,
            symmetric: settings.loss == Loss::Symmetric,
            loss_micro_batch: settings.loss_micro_batch,
            max_grad_norm: settings.max_grad_norm,
            seed: settings.seed,
        };
        trainer.make_room();
        trainer
    }

    /// Gradients come when most activations have gone. A GPU's arena, which never divides a block, is given the gradients'
    /// first, since they are the larger ones: activations can use them, but not the other way round.
    fn make_room(&self) {
        let gradients = self.encoder.bert.parameters().iter().map(|(_, _, tensor)| tensor.empty_like());
        drop(gradients.collect::<Vec<Tensor>>());
    }

    /// Forward, loss, backward, clipping and update: the step of that number, counted from 0, with nothing of it left to
    /// be done. When it fails, the model and the optimizer are as before.
    pub fn step(&mut self, step: u64, batch: &TrainingBatch, learning_rate: f64) -> Result<StepReport, TrainError> {
        let report = self.begin_step(step, batch, learning_rate)?.finish(self)?;
        self.encoder.bert.device().check()?;
        Ok(report)
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
        let (pairs, tokens) = (batch.pairs.clone(), batch.tokens());
        Ok(StepUnderWay { step, loss, norm, pairs, tokens })
    }

    /// Brings a batch to the device ahead of its step.
    pub fn prepare(&self, batch: &TrainingBatch) -> Result<(), TrainError> {
        if !self.is_cached(batch) {
            batch.pack(self.encoder.bert.device())?;
        }
        Ok(())
    }

    /// Whether the gradient cache serves.
    fn is_cached(&self, batch: &TrainingBatch) -> bool {
        (1..batch.queries).contains(&self.loss_micro_batch)
    }

    /// Whether every weight is a finite number: a step can end in one that is not, and only the next would show it.
    pub fn is_finite(&self) -> bool {
        let weights = || self.encoder.bert.parameters().iter().map(|(_, _, tensor)| tensor);
        // The squares of what is finite may not be.
        norm(weights()).is_none_or(|norm| norm.item().is_finite())
            || weights().all(|tensor| tensor.to_vec().iter().all(|x| x.is_finite()))
    }

    /// The loss of a batch, and its gradient in every parameter.
    fn gradients(&self, step: u64, batch: &TrainingBatch) -> Result<(Tensor, Gradients), TrainError> {
        let mode = Mode::Training { seed: self.seed, step: step as u32 };
        if self.is_cached(batch) {
            return self.cached_gradients(mode, batch);
        }
        let tape = Tape::recording();
        let vectors = self.encoder.forward(&tape, &batch.pack(self.encoder.bert.device())?, mode)?;
        let loss = self.loss(&vectors, batch)?;
        Ok((loss.value().clone(), tape.backward(&loss)?))
    }

    /// The same by the gradient cache (Gao, Zhang, Han and Callan 2021, arXiv 2101.06983): first the vectors of all
    /// micro-batches, of which nothing else is kept; then the loss and its gradient in the vectors; then each
    /// micro-batch again, recorded and walked back from there. Draws have names, so the second pass draws as the first.
    ///
    /// A text's vector does not depend on what is packed with it, so the loss and its gradient in the vectors are the
    /// bits of the whole batch; a weight's gradient is a sum over tokens in another order, and rounds differently.
    fn cached_gradients(&self, mode: Mode, batch: &TrainingBatch) -> Result<(Tensor, Gradients), TrainError> {
        let MicroBatches { parts, rows } = batch.micro_batches(self.loss_micro_batch, self.encoder.bert.device())?;
        let tape = Tape::recording();
        let leaf = |part| Ok(tape.leaf(self.encoder.forward(&Tape::inference(), part, mode)?.value().clone()));
        let vectors: Vec<Var> = parts.iter().map(leaf).collect::<Result<_, TrainError>>()?;
        // A look-up of every text's vector, which brings them into the batch's order.
        let in_order = Var::concat(&vectors)?.gather(&rows)?;
        let loss = self.loss(&in_order, batch)?;
        let cache = tape.backward(&loss)?;
        let mut gradients = Gradients::default();
        for (part, vectors) in parts.iter().zip(&vectors) {
            let Some(gradient) = cache.of(vectors) else { continue };
            let tape = Tape::recording();
            let vectors = self.encoder.forward(&tape, part, mode)?;
            gradients = tape.backward_from(&vectors, gradient, gradients)?;
        }
        Ok((loss.value().clone(), gradients))
    }

    /// The loss from the vectors of a batch's texts.
    fn loss(&self, vectors: &Var, batch: &TrainingBatch) -> mendel_engine::Result<Var> {
        let queries = vectors.rows(0, batch.queries)?;
        let passages = vectors.rows(batch.queries, vectors.value().rows())?;
        let (temperature, symmetric) = (self.temperature, self.symmetric);
        let options = InfoNce { temperature, symmetric, excluded: batch.excluded.clone() };
        Var::info_nce(&queries, &passages, &options)
    }

    /// Checks on a batch that a gradient reaches every parameter: one that is silently cut leaves a part of the model
    /// at its initial weights, and nothing else tells.
    pub fn check_gradients(&self, batch: &TrainingBatch) -> Result<(), TrainError> {
        let (_, gradients) = self.gradients(0, batch)?;
        // The squares of what is not 0 may be.
        let is_zero = |gradient: &Tensor| {
            norm([gradient]).is_none_or(|norm| norm.item() == 0.0) && gradient.to_vec().iter().all(|&x| x == 0.0)
        };
        let reached = |id| gradients.of_parameter(id).is_some_and(|gradient| !is_zero(gradient.values()));
        let parameters = self.encoder.bert.parameters().iter();
        let mut cut = parameters.filter(|&(id, name, _)| !name.ends_with(WITHOUT_GRADIENT) && !reached(id));
        let first = cut.next();
        // A device that has failed has no gradients either, and why is more than that.
        self.encoder.bert.device().check()?;
        match first {
            None => Ok(()),
            Some((_, first, _)) => Err(TrainError::NoGradient { first: first.to_owned(), count: 1 + cut.count() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use mendel_engine::{Device, Gradient, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::attention::{Evolution, Genetic};
    use crate::bert::{BertConfig, BertModel};
    use crate::data::demo::demo_tokenizer;
    use crate::data::{Pair, Sampler, TokenStore};
    use crate::default;
    use crate::settings::Pooling;
    use crate::texts::TextEncoder;
    use crate::train::TrainingPairs;

    const WORDS: [&str; 7] = ["mill", "of", "ash", "tower", "the", "king", "who"];

    /// A text of its number of words, different from every other's.
    fn text(number: usize) -> String {
        (0..=number).map(|place| WORDS[(number + place * place) % WORDS.len()]).collect::<Vec<_>>().join(" ")
    }

    /// Pairs of such texts: query, positive and negatives by number.
    fn training_pairs(numbers: &[(usize, usize, Vec<usize>)], hard_negatives: usize) -> TrainingPairs {
        let pair = |(query, positive, negatives): &(usize, usize, Vec<usize>)| Pair {
            query: text(*query),
            positive: text(*positive),
            negatives: negatives.iter().filter(|&negative| negative != positive).map(|&number| text(number)).collect(),
        };
        let pairs: Vec<Pair> = numbers.iter().map(pair).collect();
        let texts = TextEncoder::new(demo_tokenizer(), &Settings::default(), 64);
        TrainingPairs::all(TokenStore::of_pairs(&pairs, &texts), hard_negatives)
    }

    /// A small model with dropout, in training.
    fn trainer(genetic: Option<Genetic>, settings: &Settings) -> Trainer {
        let config = BertConfig {
            hidden_size: 32,
            num_attention_heads: 2,
            intermediate_size: 48,
            genetic,
            ..BertConfig::demo_tiny(demo_tokenizer().vocab_size())
        };
        assert!(config.hidden_dropout_prob > 0.0 && config.attention_probs_dropout_prob > 0.0);
        let bert = BertModel::builder().config(config).device(&Device::cpu()).seed(3).build().unwrap();
        Trainer::new(DualEncoder { bert, pooling: settings.pooling }, settings)
    }

    /// The Euclidean distance between tensors of the same shape, or from zero.
    fn distance(a: &Tensor, b: Option<&Tensor>) -> f64 {
        let zeros = Tensor::zeros(a.device(), a.shape());
        let elements = a.data().iter().zip(b.unwrap_or(&zeros).data());
        elements.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn a_training_with_the_gradient_cache_goes_as_one_without() {
        let numbers: Vec<_> = (0..24).map(|pair| (pair, 24 + pair, vec![48 + pair])).collect();
        let pairs = training_pairs(&numbers, 1);
        let losses = |evolution: Evolution, seed: u64, loss_micro_batch: usize| -> Vec<f64> {
            let settings = Settings { batch_size: 8, loss_micro_batch, seed, ..default() };
            let mut trainer = trainer(Some(Genetic { evolution, ..default() }), &settings);
            let mut sampler = Sampler::new(numbers.len(), settings.batch_size, settings.seed).unwrap();
            let mut step = |step| trainer.step(step, &TrainingBatch::deal(&pairs, &mut sampler, step), 3e-3).unwrap();
            (0..30).map(|number| step(number).loss).collect()
        };
        // How far the losses of each training with the cache go from those without.
        let distances = |evolution, seed| {
            let direct = losses(evolution, seed, 0);
            assert!(direct[29] < 0.5 * direct[0], "{direct:?}");
            assert_eq!(losses(evolution, seed, 8), direct);
            assert_eq!(losses(evolution, seed, 100), direct);
            [1, 3, 4].map(|size| {
                let cached = losses(evolution, seed, size);
                assert_eq!(cached[0].to_bits(), direct[0].to_bits());
                assert!(cached.iter().all(|loss| loss.is_finite()), "{cached:?}");
                let early = cached.iter().zip(&direct).take(12).all(|(cached, direct)| (cached - direct).abs() < 2e-5);
                assert!(early, "{cached:?}, without the cache {direct:?}");
                cached.iter().zip(&direct).map(|(cached, direct)| (cached - direct).abs()).fold(0.0, f64::max)
            })
        };
        let exact = distances(Evolution::MeanField, 42);
        assert!(exact.iter().all(|&distance| distance < 2e-5), "{exact:?}");
        // A drawn parent stands on an edge that rounding can move, and the loss is then another organism's. That befalls one
        // training in twenty, late and by up to 2e-4, and others on other machines.
        let drawn = [43, 44, 45].map(|seed| distances(Evolution::Sampled, seed));
        let drawn = drawn.as_flattened();
        let moved = drawn.iter().filter(|&&distance| distance >= 2e-5).count();
        assert!(moved <= 3 && drawn.iter().all(|&distance| distance < 1e-3), "{drawn:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..default() })]

        #[test]
        fn the_gradient_cache_has_the_bits_of_the_loss_and_the_gradient_to_rounding(
            // So few texts that some are equal.
            numbers in prop::collection::vec((0..12_usize, 0..12_usize, prop::collection::vec(0..12_usize, 0..4)), 2..9),
            hard_negatives in 0..4_usize, symmetric: bool, pooling in 0..3_usize, bf16: bool, step in 0..1000_u64,
        ) {
            let settings = Settings {
                batch_size: numbers.len(),
                loss: if symmetric { Loss::Symmetric } else { Loss::InfoNce },
                pooling: [Pooling::Mean, Pooling::Cls, Pooling::Max][pooling],
                precision: if bf16 { "bf16" } else { "f32" }.into(),
                ..default()
            };
            let pairs = training_pairs(&numbers, hard_negatives);
            let mut sampler = Sampler::new(numbers.len(), numbers.len(), 5).unwrap();
            let batch = TrainingBatch::deal(&pairs, &mut sampler, step);
            let mean_field = Genetic { evolution: Evolution::MeanField, ..default() };
            let fixed_point = Genetic { num_generations: 0, ..default() };
            for genetic in [None, Some(Genetic::default()), Some(mean_field), Some(fixed_point)] {
                let mut trainer = trainer(genetic, &settings);
                let (loss, direct) = trainer.gradients(step, &batch).unwrap();
                let norm = f64::from(mendel_engine::optim::global_norm(&direct).unwrap().item());
                for size in 1..numbers.len() + 2 {
                    trainer.loss_micro_batch = size;
                    let (cached_loss, cached) = trainer.gradients(step, &batch).unwrap();
                    prop_assert_eq!(cached_loss.item().to_bits(), loss.item().to_bits());
                    prop_assert_eq!(cached.parameters().count(), direct.parameters().count());
                    for ((id, cached), (_, direct)) in cached.parameters().zip(direct.parameters()) {
                        let [cached, direct] = [cached, direct].map(Gradient::dense);
                        // Measured: 4e-6 of the parameter's own norm. That of a key's bias is itself rounding.
                        let bound = 2e-5 * distance(&direct, None) + 1e-8 * norm;
                        let error = distance(&cached, Some(&direct));
                        let name = trainer.encoder.bert.parameters().name(id);
                        prop_assert!(error <= bound, "{name}, {size} pairs at once: {error} of {norm}");
                    }
                }
            }
        }
    }
}
