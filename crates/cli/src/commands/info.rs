//! `mendel info`.

use mendel::engine::Device;
use mendel::report::table::Table;
use mendel::throughput::matrix_peak;
use serde_json::json;

use super::Outcome;
use crate::arguments::InfoArguments;
use crate::display::print_result;

/// Prints what the machine has and what `auto` would choose.
pub fn run(arguments: &InfoArguments) -> anyhow::Result<Outcome> {
    let device = Device::cpu();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let gigaflops = (matrix_peak(&device) / 1e9).round();
    let features = cpu_features().join(" ");
    let version = env!("CARGO_PKG_VERSION");
    if arguments.json {
        let value = json!({
            "version": version, "device": "cpu", "precision": "f32", "threads": threads,
            "cpu_features": features, "matrix_peak_gflops": gigaflops,
        });
        print_result(&(serde_json::to_string_pretty(&value)? + "\n"))?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(["mendel", version]);
    table.row(["device (auto)", device.kernels().name()]);
    table.row(["precision (auto)", "f32"]);
    table.row(["threads", &threads.to_string()]);
    table.row(["CPU features", &features]);
    table.row(["matrix peak", &format!("{gigaflops} GFLOP/s")]);
    print_result(&table.to_string())?;
    Ok(Outcome::Done)
}

/// The vector instructions that kernels choose between.
fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt),+) => { $(if std::is_x86_feature_detected!($name) { features.push($name); })+ };
        }
        detect!("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512bf16");
    }
    features
}
