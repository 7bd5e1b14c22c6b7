//! What is written about an arm, and about the difference between arms.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::arm::Arm;
use crate::bert::BertConfig;
use crate::evaluate::{EmbeddingQuality, Measured};
use crate::settings::Settings;
use crate::throughput::Throughput;
use crate::train::TrainedArm;

/// `<arm>_attention_results.json`: the arm's numbers, and under `seeds` the same of each seed.
#[derive(Clone, Debug, Serialize)]
pub struct ArmResults {
    /// Which arm.
    pub arm: Arm,
    /// The settings in force.
    pub config: Settings,
    /// The model as it was trained.
    pub model: BertConfig,
    /// The arm's numbers.
    #[serde(flatten)]
    pub numbers: ArmNumbers,
    /// The numbers of each seed.
    pub seeds: Vec<SeedNumbers>,
}

/// The numbers of one seed.
#[derive(Clone, Debug, Serialize)]
pub struct SeedNumbers {
    /// Which seed.
    pub seed: u64,
    /// Its numbers.
    #[serde(flatten)]
    pub numbers: ArmNumbers,
}

/// What was measured of an arm.
#[derive(Clone, Debug, Serialize)]
pub struct ArmNumbers {
    /// Optimizer steps.
    pub steps: u64,
    /// Mean training loss of the last epoch's last 10%.
    pub final_loss: f64,
    /// Costs.
    #[serde(flatten)]
    pub resources: Resources,
    /// The trained model's measures.
    pub eval: Measured,
    /// The same before training.
    pub untrained: Measured,
    /// The largest `mrr@10` of the evaluations during training, and its step.
    pub best: Option<Best>,
    /// The trained model's embedding space.
    pub embedding_quality: EmbeddingQuality,
}

/// The best evaluation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Best {
    /// Its `mrr@10`.
    #[serde(rename = "mrr@10")]
    pub mrr_at_10: f64,
    /// Optimizer steps done before it.
    pub step: u64,
}

/// What an arm cost.
#[derive(Clone, Debug, Serialize)]
pub struct Resources {
    /// Training alone, in seconds.
    pub total_time: f64,
    /// Training time of each epoch, in seconds.
    pub epoch_times: Vec<f64>,
    /// The final evaluation, in seconds.
    pub eval_time: f64,
    /// Largest memory in 10⁹ bytes.
    pub peak_memory_gb: f64,
    /// Whose memory: `process`.
    pub peak_memory_kind: &'static str,
    /// Speed.
    pub throughput: Throughput,
}

impl ArmResults {
    /// From a trained arm; `peak` is the machine's matrix peak in operations per second.
    pub fn new(trained: &TrainedArm, settings: &Settings, peak: f64) -> Self {
        let progress = &trained.progress;
        let bert = &trained.encoder.bert;
        let pairs = (progress.step * settings.batch_size as u64) as f64;
        let throughput = Throughput::new(pairs, progress.tokens as f64, progress.seconds, bert.parameters(), peak);
        let numbers = ArmNumbers {
            steps: progress.step,
            final_loss: progress.final_losses.iter().sum::<f64>() / progress.final_losses.len() as f64,
            resources: Resources {
                total_time: progress.seconds,
                epoch_times: progress.epoch_seconds.clone(),
                eval_time: trained.evaluation.seconds,
                peak_memory_gb: progress.peak_memory as f64 / 1e9,
                peak_memory_kind: "process",
                throughput,
            },
            eval: trained.evaluation.measured.clone(),
            untrained: trained.untrained.measured.clone(),
            best: progress.best.map(|(mrr_at_10, step)| Best { mrr_at_10, step }),
            embedding_quality: trained.evaluation.quality.clone(),
        };
        let seeds = vec![SeedNumbers { seed: settings.seed, numbers: numbers.clone() }];
        ArmResults { arm: trained.arm, config: settings.clone(), model: bert.config().clone(), numbers, seeds }
    }

    /// Every number that arms are compared by.
    fn compared(&self) -> BTreeMap<String, f64> {
        let numbers = &self.numbers;
        let mut all = numbers.eval.by_name();
        all.insert("final_loss".into(), numbers.final_loss);
        all
    }

    fn costs(&self) -> BTreeMap<String, f64> {
        let Resources { total_time, peak_memory_gb, throughput, .. } = &self.numbers.resources;
        let Throughput { pairs_per_second, .. } = *throughput;
        [("total_time", *total_time), ("peak_memory_gb", *peak_memory_gb), ("pairs_per_second", pairs_per_second)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

/// `comparison.json`: every later arm beside the first.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The arms' own results, which have files of their own.
    #[serde(skip)]
    pub arms: Vec<ArmResults>,
    /// What the others are compared with.
    pub reference: Arm,
    /// One per other arm.
    pub differences: Vec<Difference>,
}

/// One arm beside the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The arm that is compared.
    pub arm: Arm,
    /// By measure: the reference's value, the arm's, and arm minus reference.
    pub measures: BTreeMap<String, Compared>,
    /// By cost: the arm's over the reference's.
    pub cost_ratios: BTreeMap<String, f64>,
}

/// A number of two arms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The reference's.
    pub reference: f64,
    /// The arm's.
    pub arm: f64,
    /// Arm minus reference.
    pub difference: f64,
}

impl Comparison {
    /// Of arms in the order of the settings, at least one; the first is the reference.
    pub fn new(arms: Vec<ArmResults>) -> Self {
        let reference = &arms[0];
        let differences = arms[1..].iter().map(|arm| Difference::new(reference, arm)).collect();
        Comparison { reference: reference.arm, differences, arms }
    }
}

impl Difference {
    fn new(reference: &ArmResults, arm: &ArmResults) -> Self {
        let beside = |of: fn(&ArmResults) -> BTreeMap<String, f64>| {
            let others = of(arm);
            of(reference).into_iter().filter_map(move |(name, value)| Some((others.get(&name).copied()?, name, value)))
        };
        let measures = beside(ArmResults::compared)
            .map(|(arm, name, reference)| (name, Compared { reference, arm, difference: arm - reference }));
        let cost_ratios = beside(ArmResults::costs).map(|(arm, name, reference)| (name, arm / reference)).collect();
        Difference { arm: arm.arm, measures: measures.collect(), cost_ratios }
    }
}
