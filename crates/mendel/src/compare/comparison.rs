//! Arms beside each other: differences, whether they are more than chance, and what may be concluded.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::cost::StepCost;
use super::examples::Examples;
use super::machine::Machine;
use super::results::ArmResults;
use super::statistics::{Interval, Mixed, bootstrap_interval, holm, mixed, randomisation_p};
use crate::evaluate::Measures;
use crate::report::table::p_value;
use crate::train::RunRecord;

/// The measure that the conclusion is about.
pub const PRIMARY: &str = "mrr@10";

/// The chance of finding a difference where there is none, over all measures and pairs of arms.
const LEVEL: f64 = 0.05;

/// `comparison.json`: every pair of arms.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The arms' own results, which have files of their own.
    #[serde(skip)]
    pub arms: Vec<ArmResults>,
    /// The first arm.
    pub reference: String,
    /// The seeds that every arm was trained with.
    pub seeds: Vec<u64>,
    /// How many queries were evaluated.
    pub queries: usize,
    /// What may be concluded, in a sentence for each pair of arms.
    pub conclusions: Vec<String>,
    /// One per pair of arms, the earlier as the reference.
    pub differences: Vec<Difference>,
    /// What cannot be found from the runs alone.
    #[serde(flatten)]
    pub measured: Measured,
}

/// What a comparison measures or looks up once its runs are finished.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// By arm, what a training step costs.
    pub step_costs: BTreeMap<String, StepCost>,
    /// Queries whose results differ most.
    pub examples: Vec<Examples>,
    /// Where the comparison was made.
    pub machine: Machine,
}

/// One arm beside another.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// What it is compared with.
    pub reference: String,
    /// The arm that is compared.
    pub arm: String,
    /// By measure.
    pub measures: BTreeMap<String, Compared>,
    /// By cost, the arm's over the reference's.
    pub cost_ratios: BTreeMap<&'static str, f64>,
}

/// A number of two arms: means over seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The reference's.
    pub reference: f64,
    /// The arm's.
    pub arm: f64,
    /// Arm minus reference.
    pub difference: f64,
    /// Whether it is more than chance; of measures that each query has.
    #[serde(flatten)]
    pub test: Option<Test>,
}

/// Whether a difference is more than chance. Paired: the same queries, and the same seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Test {
    /// What may be concluded.
    pub verdict: Verdict,
    /// The interval that the conclusion rests on: of `seeds` where there are several, else of `queries`.
    pub ci95: Interval,
    /// The p-value that the conclusion rests on, corrected by Holm over all measures and pairs of arms.
    pub p_holm: f64,
    /// Over queries, with the seeds as they are.
    pub queries: OverQueries,
    /// Over queries and seeds, both taken as samples; absent of one seed.
    pub seeds: Option<Mixed>,
}

/// A difference over queries; a query's value is its mean over the seeds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OverQueries {
    /// By bootstrap.
    pub ci95: Interval,
    /// By randomisation.
    pub p: f64,
}

/// What may be concluded of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The arm is better than the reference.
    Better,
    /// The arm is worse than the reference.
    Worse,
    /// Chance explains the difference.
    NoDifferenceShown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NoDifferenceShown => "no difference shown",
        })
    }
}

impl Comparison {
    /// Of the runs of each arm, in the order of the settings, each arm with the same seeds.
    pub fn new(arms: Vec<ArmResults>, runs: &[Vec<&RunRecord>], measured: Measured) -> Self {
        let pairs = (0..arms.len()).flat_map(|first| (first + 1..arms.len()).map(move |second| (first, second)));
        let mut differences: Vec<Difference> = pairs
            .map(|(first, second)| {
                let costs = cost_ratios(&arms[first], &arms[second], &measured.step_costs);
                Difference::new([&arms[first], &arms[second]], [&runs[first], &runs[second]], costs)
            })
            .collect();
        let tests = correct(&mut differences);
        Comparison {
            reference: arms[0].arm.clone(),
            seeds: runs[0].iter().map(|run| run.seed).collect(),
            queries: runs[0][0].query_ids.len(),
            conclusions: differences.iter().map(|difference| conclusion(difference, runs[0].len(), tests)).collect(),
            differences,
            measured,
            arms,
        }
    }

    /// The lines that a script reads: `VERDICT <metric> <arm> vs <arm>: …`, one per pair of arms.
    pub fn verdicts(&self) -> impl Iterator<Item = String> {
        self.differences.iter().filter_map(|Difference { reference, arm, measures, .. }| {
            let Compared { difference, test, .. } = measures.get(PRIMARY)?;
            let Test { verdict, ci95: Interval { low, high }, p_holm, .. } = test.as_ref()?;
            Some(format!(
                "VERDICT {PRIMARY} {arm} vs {reference}: {verdict} delta={difference:+.4} ci95=[{low:+.4},{high:+.4}] p={p_holm:.4}"
            ))
        })
    }
}

impl Difference {
    fn new(
        [reference, arm]: [&ArmResults; 2],
        runs: [&[&RunRecord]; 2],
        cost_ratios: BTreeMap<&'static str, f64>,
    ) -> Self {
        let mut measures = BTreeMap::new();
        let names = reference.seeds[0].numbers.eval.by_name().into_keys();
        for name in names {
            let of = |arm: &ArmResults| arm.mean(|numbers| numbers.eval.by_name()[&name]);
            let test = Measures::NAMES.contains(&name.as_str()).then(|| Test::new(&differences(runs, &name)));
            measures.insert(name.clone(), Compared::new(of(reference), of(arm), test));
        }
        let loss = |arm: &ArmResults| arm.mean(|numbers| numbers.final_loss);
        measures.insert("final_loss".into(), Compared::new(loss(reference), loss(arm), None));
        Difference { reference: reference.arm.clone(), arm: arm.arm.clone(), measures, cost_ratios }
    }
}

impl Compared {
    fn new(reference: f64, arm: f64, test: Option<Test>) -> Self {
        Compared { reference, arm, difference: arm - reference, test }
    }
}

impl Test {
    /// Of differences by seed and query. The p-value is not corrected yet.
    fn new(by_seed: &[Vec<f64>]) -> Self {
        let over_seeds = |query: usize| by_seed.iter().map(|seed| seed[query]).sum::<f64>() / by_seed.len() as f64;
        let means: Vec<f64> = (0..by_seed[0].len()).map(over_seeds).collect();
        let queries = OverQueries { ci95: bootstrap_interval(&means), p: randomisation_p(&means) };
        let seeds = mixed(by_seed);
        let (ci95, p_holm) = seeds.as_ref().map_or((queries.ci95, queries.p), |mixed| (mixed.interval, mixed.p));
        Test { verdict: Verdict::NoDifferenceShown, ci95, p_holm, queries, seeds }
    }
}

/// Arm minus reference, by seed and query.
fn differences([reference, arm]: [&[&RunRecord]; 2], measure: &str) -> Vec<Vec<f64>> {
    let of_seed = |(reference, arm): (&&RunRecord, &&RunRecord)| {
        let values = reference.per_query[measure].iter().zip(&arm.per_query[measure]);
        values.map(|(reference, arm)| arm - reference).collect()
    };
    reference.iter().zip(arm).map(of_seed).collect()
}

/// Holm's correction over all tests, and what may then be concluded; how many tests there are.
fn correct(differences: &mut [Difference]) -> usize {
    let all = differences.iter_mut().flat_map(|difference| difference.measures.values_mut());
    let mut tested: Vec<(f64, &mut Test)> =
        all.filter_map(|compared| Some((compared.difference, compared.test.as_mut()?))).collect();
    let p: Vec<f64> = tested.iter().map(|(_, test)| test.p_holm).collect();
    for ((difference, test), p) in tested.iter_mut().zip(holm(&p)) {
        test.p_holm = p;
        let beyond_chance = p <= LEVEL && (test.ci95.low > 0.0 || test.ci95.high < 0.0);
        test.verdict = match (beyond_chance, *difference > 0.0) {
            (false, _) => Verdict::NoDifferenceShown,
            (true, true) => Verdict::Better,
            (true, false) => Verdict::Worse,
        };
    }
    p.len()
}

/// The arm's costs over the reference's: of a training step from steps in turn, of memory from training alone.
fn cost_ratios(
    reference: &ArmResults,
    arm: &ArmResults,
    steps: &BTreeMap<String, StepCost>,
) -> BTreeMap<&'static str, f64> {
    let memory = |arm: &ArmResults| arm.mean(|numbers| numbers.resources.peak_memory_gb);
    let mut ratios = BTreeMap::from([("peak_memory_gb", memory(arm) / memory(reference))]);
    if let (Some(reference), Some(arm)) = (steps.get(&reference.arm), steps.get(&arm.arm)) {
        ratios.insert("step_time", arm.ratio_to(reference));
    }
    ratios
}

/// A sentence on the primary measure.
fn conclusion(Difference { reference, arm, measures, .. }: &Difference, seeds: usize, tests: usize) -> String {
    let Compared { reference: before, arm: after, difference, test } = &measures[PRIMARY];
    let Some(test) = test else { unreachable!("each query has it") };
    let Test { verdict, ci95: Interval { low, high }, p_holm, queries, seeds: over_seeds } = test;
    let p = over_seeds.as_ref().map_or(queries.p, |seeds| seeds.p);
    let finding = match verdict {
        Verdict::Better => format!("{arm} is better than {reference}"),
        Verdict::Worse => format!("{arm} is worse than {reference}"),
        Verdict::NoDifferenceShown => format!("no difference between {arm} and {reference} is shown"),
    };
    let reach = match seeds {
        1 => "for these queries and this one seed: other seeds may differ by more",
        _ => "for queries and seeds like these",
    };
    format!(
        "{PRIMARY}: {finding} ({after:.4} against {before:.4}, difference {difference:+.4}, 95% interval {low:+.4} to {high:+.4}, p = {}, and {} after Holm's correction over {tests} tests), {reach}.",
        p_value(p),
        p_value(*p_holm)
    )
}
