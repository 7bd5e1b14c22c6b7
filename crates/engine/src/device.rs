//! Where arrays live and operations run.

use std::fmt;
use std::sync::Arc;

use crate::cpu::Cpu;
use crate::kernels::Kernels;
use crate::pool::Pools;
use crate::precision::Precision;
use crate::profile::{Profile, Profiled};

/// A handle on a device: its kernels and its memory. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    kernels: Arc<dyn Kernels>,
    pools: Arc<Pools>,
}

impl Device {
    /// The CPU in single precision; work is spread over the current rayon pool.
    pub fn cpu() -> Self {
        Device::cpu_with(Precision::F32)
    }

    /// The CPU in that precision.
    pub fn cpu_with(precision: Precision) -> Self {
        Device { kernels: Arc::new(Cpu::new(precision)), pools: Arc::default() }
    }

    /// The same device, and a record of the time that each operation takes on it.
    pub fn profiled(&self) -> (Self, Profile) {
        let profile = Profile::default();
        let kernels = Arc::new(Profiled { kernels: self.kernels.clone(), profile: profile.clone() });
        (Device { kernels, pools: self.pools.clone() }, profile)
    }

    /// The device's implementation of every operation.
    pub fn kernels(&self) -> &dyn Kernels {
        &*self.kernels
    }

    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kernels.name())
    }
}
