//! The comparison as a table for people.

use super::results::{ArmResults, Comparison};
use crate::evaluate::Measures;
use crate::report::table::{NO_VALUE, Table, difference, duration, gigabytes, measure, rate, relative_difference};

/// One row per model: each arm untrained, each arm trained, and each later arm's difference to the first.
pub fn table(comparison: &Comparison) -> Table {
    let header = ["", "loss", "MRR@10", "nDCG@10", "R@1", "R@10", "R@100", "training", "memory", "pairs/s"];
    let mut table = Table::new(header);
    for arm in &comparison.arms {
        let label = format!("{}, untrained", arm.arm);
        let costs = [NO_VALUE; 3].map(str::to_owned);
        table.row(row(label, NO_VALUE.to_owned(), measures(&arm.numbers.untrained.retrieval).map(measure), costs));
    }
    for arm in &comparison.arms {
        let resources = &arm.numbers.resources;
        let costs = [
            duration(resources.total_time),
            gigabytes(resources.peak_memory_gb),
            rate(resources.throughput.pairs_per_second),
        ];
        let label = arm.arm.to_string();
        table.row(row(
            label,
            measure(arm.numbers.final_loss),
            measures(&arm.numbers.eval.retrieval).map(measure),
            costs,
        ));
    }
    if let Some((reference, others)) = comparison.arms.split_first() {
        others.iter().for_each(|arm| table.row(difference_row(reference, arm)));
    }
    table
}

fn row(label: String, loss: String, measures: [String; 5], costs: [String; 3]) -> Vec<String> {
    [label, loss].into_iter().chain(measures).chain(costs).collect()
}

fn measures(measures: &Measures) -> [f64; 5] {
    let Measures { mrr_at_10, ndcg_at_10, recall_at_1, recall_at_10, recall_at_100, .. } = *measures;
    [mrr_at_10, ndcg_at_10, recall_at_1, recall_at_10, recall_at_100]
}

fn difference_row(reference: &ArmResults, arm: &ArmResults) -> Vec<String> {
    let (then, now) = (measures(&reference.numbers.eval.retrieval), measures(&arm.numbers.eval.retrieval));
    let measures = std::array::from_fn(|index| difference(now[index] - then[index]));
    let loss = difference(arm.numbers.final_loss - reference.numbers.final_loss);
    let (then, now) = (&reference.numbers.resources, &arm.numbers.resources);
    let costs = [
        relative_difference(now.total_time, then.total_time),
        relative_difference(now.peak_memory_gb, then.peak_memory_gb),
        relative_difference(now.throughput.pairs_per_second, then.throughput.pairs_per_second),
    ];
    row(format!("{} − {}", arm.arm, reference.arm), loss, measures, costs)
}
