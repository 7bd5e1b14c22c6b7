//! The comparison as a table for people.

use super::comparison::{Compared, Comparison, Verdict};
use super::results::ArmResults;
use crate::report::table::{NO_VALUE, Table, difference, duration, gigabytes, measure, rate, relative_difference};

/// One row per model: each arm untrained, each arm trained, and each later arm's difference to the first. Means over
/// seeds; an asterisk marks a difference that is more than chance, after correction.
pub fn table(comparison: &Comparison) -> Table {
    let measured = MEASURES.map(|(title, _)| title);
    let mut table = Table::new(["", "loss"].into_iter().chain(measured).chain(["training", "memory", "pairs/s"]));
    for arm in &comparison.arms {
        let value = |name: &str| measure(arm.mean(|numbers| numbers.untrained.by_name()[name]));
        let costs = [NO_VALUE; 3].map(str::to_owned);
        table.row(row(
            format!("{}, untrained", arm.arm),
            NO_VALUE.to_owned(),
            MEASURES.map(|(_, name)| value(name)),
            costs,
        ));
    }
    for arm in &comparison.arms {
        let value = |name: &str| measure(arm.mean(|numbers| numbers.eval.by_name()[name]));
        let loss = measure(arm.mean(|numbers| numbers.final_loss));
        let [time, memory, speed] = costs(arm);
        let costs = [duration(time), gigabytes(memory), rate(speed)];
        table.row(row(arm.arm.clone(), loss, MEASURES.map(|(_, name)| value(name)), costs));
    }
    let of_reference = comparison.differences.iter().filter(|difference| difference.reference == comparison.reference);
    for compared in of_reference {
        // Of steps in turn, not of trainings at different moments.
        let ratio = |cost: &str| compared.cost_ratios.get(cost).copied().unwrap_or(f64::NAN);
        let (time, memory) = (ratio("step_time"), ratio("peak_memory_gb"));
        let costs = [time, memory, 1.0 / time].map(|ratio| relative_difference(ratio, 1.0));
        let label = format!("{} − {}", compared.arm, compared.reference);
        let loss = difference(compared.measures["final_loss"].difference);
        table.row(row(label, loss, MEASURES.map(|(_, name)| marked(&compared.measures[name])), costs));
    }
    table
}

/// The measures shown, with their titles.
pub(crate) const MEASURES: [(&str, &str); 5] =
    [("MRR@10", "mrr@10"), ("nDCG@10", "ndcg@10"), ("R@1", "recall@1"), ("R@10", "recall@10"), ("R@100", "recall@100")];

fn row(label: String, loss: String, measures: [String; 5], costs: [String; 3]) -> Vec<String> {
    [label, loss].into_iter().chain(measures).chain(costs).collect()
}

fn marked(compared: &Compared) -> String {
    let beyond_chance = compared.test.as_ref().is_some_and(|test| test.verdict != Verdict::NoDifferenceShown);
    difference(compared.difference) + if beyond_chance { "*" } else { "" }
}

/// Seconds of training, memory in 10⁹ bytes, pairs per second.
fn costs(arm: &ArmResults) -> [f64; 3] {
    [
        arm.mean(|numbers| numbers.resources.total_time),
        arm.mean(|numbers| numbers.resources.peak_memory_gb),
        arm.mean(|numbers| numbers.resources.throughput.pairs_per_second),
    ]
}
