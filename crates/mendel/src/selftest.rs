//! Whether this machine's device computes what the CPU does: the engine's checks of every operation, and training.

use mendel_engine::selftest::{self, Check};
use mendel_engine::{Device, Precision};

use crate::arm::Arm;
use crate::bench::{Lengths, Workload, random_pairs};
use crate::bert::BertConfig;
use crate::data::Sampler;
use crate::dual_encoder::DualEncoder;
use crate::settings::Settings;
use crate::train::{ModelSource, TrainError, Trainer, TrainingBatch};

/// Pairs of each step.
const PAIRS: usize = 10;
/// Large enough that 100 steps halve the loss. At 1e-3, or where pairs come back until they are known by heart, a change
/// of the rate by 3e-7 moves the CPU's own losses by more than what is asked of a device.
const LEARNING_RATE: f64 = 2e-4;
/// Width of the model that is trained, the built-in one.
const HIDDEN: usize = 128;

/// Makes those checks of a device whose names are `wanted`; `steps` are trained of each arm. `advance` is told of each
/// check.
///
/// # Errors
/// Where the device fails in the midst.
pub fn run(
    device: &Device,
    settings: &Settings,
    steps: usize,
    wanted: impl Fn(&str) -> bool,
    mut advance: impl FnMut(&Check),
) -> Result<Vec<Check>, TrainError> {
    let mut checks = selftest::run(device, &wanted, &mut advance)?;
    for (heads, arm, settings) in arms(settings) {
        let form = match (arm.genetic, settings.genetic.num_generations) {
            (false, _) if settings.qk_norm => "standard with QK norm",
            (false, _) => "standard",
            (true, 0) => "genetic, fixed point",
            (true, _) => "genetic, evolved",
        };
        let name = format!("training of {steps} steps, {form}, heads of {}", HIDDEN / heads);
        if !wanted(&name) {
            continue;
        }
        let check = training(device, name, heads, &arm, &settings, steps)?;
        advance(&check);
        checks.push(check);
    }
    Ok(checks)
}

/// Heads of 32 and of 64, standard and genetic; of the latter both forms, of the former also with norms on queries and keys.
fn arms(settings: &Settings) -> Vec<(usize, Arm, Settings)> {
    let mut fixed_point = settings.clone();
    fixed_point.genetic.num_generations = 0;
    let normalised = Settings { qk_norm: true, ..settings.clone() };
    vec![
        (4, Arm::standard(), settings.clone()),
        (2, Arm::standard(), settings.clone()),
        (4, Arm::genetic(), fixed_point.clone()),
        (2, Arm::genetic(), fixed_point),
        (2, Arm::genetic(), settings.clone()),
        (4, Arm::standard(), normalised),
    ]
}

/// The largest relative distance of the steps' losses to the CPU's in single precision; not a number where the same
/// training twice does not give the same bits.
fn training(
    device: &Device,
    name: String,
    heads: usize,
    arm: &Arm,
    settings: &Settings,
    steps: usize,
) -> Result<Check, TrainError> {
    let losses = |device: &Device| losses(device, heads, arm, settings, steps);
    let (got, expected) = (losses(device)?, losses(&Device::cpu())?);
    let apart = got.iter().zip(&expected).map(|(got, expected)| (got / expected - 1.0).abs());
    let error = if losses(device)? == got { apart.fold(0.0, f64::max) } else { f64::NAN };
    let bound = match device.precision() {
        Precision::F32 => 1e-3,
        Precision::Bf16 => 5e-2,
    };
    Ok(Check { name, error, bound })
}

fn losses(device: &Device, heads: usize, arm: &Arm, settings: &Settings, steps: usize) -> Result<Vec<f64>, TrainError> {
    let config =
        BertConfig { num_attention_heads: heads, max_position_embeddings: 512, ..BertConfig::demo_tiny(30522) };
    let settings = &Settings { batch_size: PAIRS, from_scratch: true, ..settings.clone() };
    let bert = ModelSource::DemoTiny(Box::new(config.clone())).build(settings, arm, device)?;
    let mut trainer = Trainer::new(DualEncoder { bert, pooling: settings.pooling }, settings);
    let workload = Workload { model: config, pairs: steps * PAIRS, lengths: Lengths::Msmarco, steps };
    let pairs = random_pairs(&workload, settings.seed);
    let mut sampler = Sampler::new(pairs.len(), PAIRS, settings.seed)?;
    let step = |step| {
        let batch = TrainingBatch::deal(&pairs, &mut sampler, step);
        Ok(trainer.step(step, &batch, LEARNING_RATE)?.loss)
    };
    (0..steps as u64).map(step).collect()
}
