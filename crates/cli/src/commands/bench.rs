//! `mendel bench`.

use mendel::bench::{Measurement, Workload, measure};
use mendel::bert::BertConfig;
use mendel::report::table::{Table, gigabytes, rate};

use super::{Outcome, Run};
use crate::arguments::{BenchArguments, Shape};
use crate::display::print_result;

/// Measures training steps of every arm of the settings.
pub fn run(arguments: &BenchArguments, run: &mut Run<'_>) -> anyhow::Result<Outcome> {
    let model = match arguments.shape {
        Shape::Minilm => BertConfig::minilm(),
        Shape::BertBase => BertConfig::default(),
        Shape::DemoTiny => BertConfig { max_position_embeddings: 512, ..BertConfig::demo_tiny(30522) },
    };
    let workload = Workload { model, pairs: arguments.pairs as usize, steps: arguments.steps as usize };
    let measurement = measure(&workload, run.settings, run.observer)?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&measurement)? + "\n"
    } else {
        table(&measurement).to_string()
    };
    print_result(&text)?;
    Ok(Outcome::Done)
}

fn table(measurement: &Measurement) -> Table {
    let mut table = Table::new(["", "ms/step", "pairs/s", "tokens/s", "of matrix peak", "memory", "time ratio"]);
    let first = measurement.arms.first().map_or(f64::NAN, |arm| arm.step_seconds.median);
    for arm in &measurement.arms {
        let (median, throughput) = (arm.step_seconds.median, arm.throughput);
        table.row([
            arm.arm.to_string(),
            format!("{:.1}", 1000.0 * median),
            rate(throughput.pairs_per_second),
            rate(throughput.tokens_per_second),
            format!("{:.0}%", 100.0 * throughput.model_flop_utilisation),
            gigabytes(arm.peak_memory_gb),
            format!("{:.3}", median / first),
        ]);
    }
    table
}
