//! `mendel bench`.

use mendel::bench::{ArmMeasurement, Limits, Measurement, Workload, limits, measure};
use mendel::bert::BertConfig;
use mendel::report::table::{Table, gigabytes, rate};

use super::{Outcome, Run};
use crate::arguments::{BenchArguments, Shape};
use crate::display::print_result;

/// Measures training steps of every arm of the settings.
pub fn run(arguments: &BenchArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    if arguments.limits {
        let limits = limits(run.settings)?;
        let text = if arguments.json { serde_json::to_string_pretty(&limits)? + "\n" } else { limits_table(&limits) };
        print_result(&text)?;
        return Ok(Outcome::Done);
    }
    let model = match arguments.shape {
        Shape::Minilm => BertConfig::minilm(),
        Shape::BertBase => BertConfig::default(),
        Shape::DemoTiny => BertConfig { max_position_embeddings: 512, ..BertConfig::demo_tiny(30522) },
    };
    let workload = Workload {
        model,
        pairs: arguments.pairs as usize,
        lengths: arguments.lengths,
        steps: arguments.steps as usize,
    };
    let measurement = measure(&workload, run.settings, run.observer)?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&measurement)? + "\n"
    } else {
        format!("{}\n{}", table(&measurement), operations(&measurement))
    };
    print_result(&text)?;
    Ok(Outcome::Done)
}

fn table(measurement: &Measurement) -> Table {
    let mut table = Table::new(["", "ms/step", "pairs/s", "tokens/s", "of matrix peak", "memory", "time ratio"]);
    for arm in &measurement.arms {
        let (median, throughput) = (arm.step_seconds.median, arm.throughput);
        table.row([
            arm.arm.clone(),
            format!("{:.1}", 1000.0 * median),
            rate(throughput.pairs_per_second),
            rate(throughput.tokens_per_second),
            format!("{:.0}%", 100.0 * throughput.model_flop_utilisation),
            gigabytes(arm.peak_memory_gb),
            format!("{:.3}", arm.time_ratio),
        ]);
    }
    table
}

/// Milliseconds of a step by operation, those of the first arm in descending order.
fn operations(measurement: &Measurement) -> Table {
    let arms: Vec<String> = measurement.arms.iter().map(|arm| format!("{}, ms", arm.arm)).collect();
    let mut table = Table::new(std::iter::once("operation").chain(arms.iter().map(String::as_str)));
    let of = |arm: &ArmMeasurement, name: &str| arm.operations.get(name).copied().unwrap_or(0.0);
    let mut names: Vec<&str> = measurement.arms.iter().flat_map(|arm| arm.operations.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let Some(first) = measurement.arms.first() else { return table };
    names.sort_by(|a, b| of(first, b).total_cmp(&of(first, a)));
    for name in names {
        let times = measurement.arms.iter().map(|arm| format!("{:.2}", 1000.0 * of(arm, name)));
        table.row(std::iter::once(name.to_owned()).chain(times));
    }
    table
}

fn limits_table(limits: &Limits) -> String {
    let mut table = Table::new(["", "limit"]);
    let giga = |rate: f64| format!("{:.1}", rate / 1e9);
    table.row([&limits.matrix_unit, &format!("{} GFLOP/s", giga(limits.matrix_peak))]);
    table.row(["memory, read", &format!("{} GB/s", giga(limits.memory_read))]);
    table.row(["memory, read and written back", &format!("{} GB/s", giga(limits.memory_update))]);
    table.to_string()
}
