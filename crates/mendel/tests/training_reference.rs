//! Training beside PyTorch: the same weights, batches and settings give the same losses (benches/peers/training_losses.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mendel::Settings;
use mendel::bert::BertModel;
use mendel::data::{LoadOptions, Pair, TokenStore, load};
use mendel::dual_encoder::DualEncoder;
use mendel::engine::{Device, Precision};
use mendel::progress::Silent;
use mendel::settings::{LrSchedule, Pooling};
use mendel::texts::TextEncoder;
use mendel::tokenizer::Tokenizer;
use mendel::train::schedule::Schedule;
use mendel::train::{Trainer, TrainingBatch, TrainingPairs};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    file: String,
    batch: usize,
    max_tokens: usize,
    peak_learning_rate: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    configurations: BTreeMap<String, Configuration>,
}

#[derive(Deserialize)]
struct Configuration {
    hard_negatives: bool,
    temperature: f64,
    warmup_steps: u64,
    /// Lines of the file, from 1, in the batches' order.
    lines: Vec<usize>,
    steps: Vec<Step>,
    parameters: BTreeMap<String, Norm>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    masked: usize,
}

#[derive(Deserialize)]
struct Norm {
    norm: f64,
}

/// How far a run may be from PyTorch's.
struct Bounds {
    precision: Precision,
    loss: f64,
    gradient_norm: f64,
    parameter_norm: f64,
}

/// PyTorch's own losses differ between f32 and f64 by up to 1e-6, its gradient norms by 7e-5 of themselves. Weight decay
/// moves a matrix's norm by 1e-6 of itself: the last bound is what shows that it is applied.
const SINGLE: Bounds = Bounds { precision: Precision::F32, loss: 2e-5, gradient_norm: 5e-4, parameter_norm: 5e-7 };
/// Cosines are off by up to 3e-3 when products are of bf16, and the loss by as much over the temperature of 0.05.
const HALF: Bounds = Bounds { precision: Precision::Bf16, loss: 6e-2, gradient_norm: 0.3, parameter_norm: 1e-5 };

fn model_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("MENDEL_TEST_MODEL").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: MENDEL_TEST_MODEL names no model folder (.ci/run fetches one)");
    }
    folder
}

fn shared(file: &str) -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = std::env::var_os("MENDEL_SHARED_DATA").map_or(workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(file);
    if !path.exists() {
        eprintln!("skipped: there is no {}; MENDEL_SHARED_DATA can say where the data is", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn every_step_has_the_loss_that_pytorch_has() {
    follow_all(&SINGLE);
}

#[test]
fn in_bf16_every_step_has_nearly_that_loss() {
    follow_all(&HALF);
}

fn follow_all(bounds: &Bounds) {
    let text = include_str!("fixtures/training_losses.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    let (Some(folder), Some(data)) = (model_folder(), shared(&fixture.file)) else { return };
    let rows = load(data.to_str().unwrap(), &LoadOptions::default(), &mut Silent).unwrap().pairs;
    for (name, configuration) in &fixture.configurations {
        let pairs: Vec<Pair> = configuration.lines.iter().map(|line| rows[line - 1].clone()).collect();
        follow(name, &fixture, configuration, &pairs, &folder, bounds);
    }
}

fn follow(
    name: &str,
    fixture: &Fixture,
    configuration: &Configuration,
    pairs: &[Pair],
    folder: &Path,
    bounds: &Bounds,
) {
    let settings = Settings {
        temperature: configuration.temperature,
        max_seq_len: fixture.max_tokens,
        weight_decay: fixture.weight_decay,
        max_grad_norm: fixture.max_grad_norm,
        ..Settings::default()
    };
    let schedule = Schedule {
        course: LrSchedule::Linear,
        peak: fixture.peak_learning_rate,
        warmup_steps: configuration.warmup_steps,
        total_steps: configuration.steps.len() as u64,
    };
    let device = Device::cpu_with(bounds.precision);
    let bert = BertModel::builder().folder(folder).device(&device).dropout(0.0).build().unwrap();
    let texts = TextEncoder::new(Tokenizer::from_folder(folder).unwrap(), &settings, 512);
    let hard = usize::from(configuration.hard_negatives);
    let pairs = TrainingPairs::all(TokenStore::of_pairs(pairs, &texts), hard);
    let mut trainer = Trainer::new(DualEncoder { bert, pooling: Pooling::Mean }, &settings);
    for (index, expected) in configuration.steps.iter().enumerate() {
        let members: Vec<usize> = (index * fixture.batch..(index + 1) * fixture.batch).collect();
        let negatives: Vec<(usize, Vec<usize>)> = members.iter().map(|&pair| (pair, vec![0; hard])).collect();
        let batch = TrainingBatch::of(&pairs, members, &negatives);
        let learning_rate = schedule.learning_rate(index as u64);
        let report = trainer.step(index as u64, &batch, learning_rate).unwrap();
        assert_eq!(batch.excluded.len(), expected.masked, "{name}, step {index}: masked candidates");
        assert!((learning_rate / expected.learning_rate - 1.0).abs() < 1e-9, "{name}, step {index}: learning rate");
        let error = (report.loss - expected.loss).abs() / expected.loss.max(1.0);
        assert!(error < bounds.loss, "{name}, step {index}: loss {}, PyTorch {}", report.loss, expected.loss);
        let error = (report.gradient_norm / expected.grad_norm - 1.0).abs();
        // Where the batch is solved the gradient is rounding of tiny losses.
        if expected.loss > 1e-2 {
            assert!(
                error < bounds.gradient_norm,
                "{name}, {index}: norm {}, PyTorch {}",
                report.gradient_norm,
                expected.grad_norm
            );
        }
    }
    let parameters = trainer.encoder.bert.parameters();
    for (parameter, expected) in &configuration.parameters {
        let tensor = parameters.get(parameters.id(parameter).unwrap());
        let norm = tensor.data().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let error = (norm / expected.norm - 1.0).abs();
        assert!(error < bounds.parameter_norm, "{name}: |{parameter}| is {norm}, in PyTorch {}", expected.norm);
    }
}
