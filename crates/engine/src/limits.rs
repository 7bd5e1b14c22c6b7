//! What a device can do at most, measured.

use crate::cpu::UnitName;
use crate::cpu::limits::{matrix_peak, memory_bandwidth};
use crate::cuda;
use crate::device::{Device, Memory};

pub use crate::cpu::limits::MemoryBandwidth;

impl Device {
    /// Operations per second of products in the device's precision: on a CPU of all current threads with operands in
    /// the first-level cache, on a GPU of cuBLASLt with large random matrices. NaN where a GPU has failed.
    pub fn matrix_peak(&self) -> f64 {
        match self.memory() {
            Memory::Host(_) => matrix_peak(self.precision()),
            Memory::Cuda(context) => cuda::limits::matrix_peak(context, self.activation_kind()),
        }
    }

    /// What multiplies: the instructions of a CPU, or the GPU's name.
    pub fn matrix_unit(&self) -> String {
        match self.gpu() {
            None => UnitName::best(self.precision()).describe().to_owned(),
            Some(gpu) => gpu.name.clone(),
        }
    }

    /// Bytes per second to and from the device's memory.
    pub fn memory_bandwidth(&self) -> MemoryBandwidth {
        match self.memory() {
            Memory::Host(_) => memory_bandwidth(),
            Memory::Cuda(context) => cuda::limits::memory_bandwidth(context),
        }
    }
}
