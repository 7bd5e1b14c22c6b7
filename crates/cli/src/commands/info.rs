//! `mendel info`.

use mendel::Settings;
use mendel::engine::cpu::UnitName;
use mendel::engine::cpu::limits::matrix_peak;
use mendel::engine::{Device, Precision};
use mendel::report::table::Table;
use serde_json::json;

use super::Outcome;
use crate::arguments::InfoArguments;
use crate::display::print_result;

/// Prints what the machine has and what `auto` would choose.
pub fn run(arguments: &InfoArguments) -> anyhow::Result<Outcome> {
    let device = Settings::default().device()?;
    let precision = device.precision().to_string();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let units = [Precision::F32, Precision::Bf16].map(|precision| {
        let gigaflops = (matrix_peak(precision) / 1e9).round();
        (UnitName::best(precision).describe(), gigaflops)
    });
    let features = cpu_features().join(" ");
    let version = env!("CARGO_PKG_VERSION");
    if arguments.json {
        let value = json!({
            "version": version, "device": device.kernels().name(), "precision": precision, "threads": threads,
            "gpu": device.gpu().map(|gpu| json!({
                "name": gpu.name, "compute_capability": format!("{}.{}", gpu.capability.0, gpu.capability.1),
                "memory_gb": gpu.memory as f64 / 1e9, "driver_cuda": gpu.driver,
            })),
            "cpu_features": features, "matrix_peak_gflops": units[0].1, "bf16_matrix_peak_gflops": units[1].1,
            "matrix_units": units.map(|unit| unit.0),
        });
        print_result(&(serde_json::to_string_pretty(&value)? + "\n"))?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(["mendel", version]);
    table.row(["device (auto)", device.kernels().name()]);
    table.row(["precision (auto)", &precision]);
    match device.gpu() {
        Some(gpu) => {
            let (major, minor) = gpu.capability;
            let memory = gpu.memory as f64 / 1e9;
            table.row(["GPU", &format!("{}, compute capability {major}.{minor}, {memory:.0} GB", gpu.name)]);
            table.row(["driver", &format!("CUDA {}.{}", gpu.driver / 1000, gpu.driver % 1000 / 10)]);
        }
        None => table.row(["GPU", "none"]),
    }
    table.row(["threads", &threads.to_string()]);
    table.row(["CPU features", &features]);
    for (unit, gigaflops) in units {
        table.row(["matrix peak", &format!("{gigaflops} GFLOP/s in {unit}")]);
    }
    print_result(&table.to_string())?;
    if device.gpu().is_none()
        && let Err(why) = Device::cuda(0, Precision::Bf16)
    {
        print_result(&format!("\nNo GPU is used: {why}\n"))?;
    }
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
