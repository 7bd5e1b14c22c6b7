//! The machine and the version that made a comparison.

use std::fs;

use mendel_engine::Device;
use serde::{Deserialize, Serialize};

/// What one needs to know to repeat a measurement of time or memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The version of this program.
    pub version: String,
    /// The processor's name, where the system tells.
    pub processor: String,
    /// CPU threads that were used.
    pub threads: usize,
    /// The matrix unit.
    pub matrix_unit: String,
    /// Operating system and architecture.
    pub system: String,
}

impl Machine {
    /// The one that this runs on.
    pub fn this(device: &Device) -> Self {
        Machine {
            version: env!("CARGO_PKG_VERSION").into(),
            processor: processor().unwrap_or_else(|| std::env::consts::ARCH.into()),
            threads: rayon::current_num_threads(),
            matrix_unit: device.matrix_unit(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// Linux tells it in a file.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
