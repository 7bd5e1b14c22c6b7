//! Where arrays live and operations run.

use std::fmt;
use std::sync::Arc;

use crate::cpu::Cpu;
use crate::kernels::Kernels;
use crate::pool::Pools;

/// A handle on a device: its kernels and its memory. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    kernels: Arc<dyn Kernels>,
    pools: Arc<Pools>,
}

impl Device {
    /// The CPU; work is spread over the current rayon pool.
    pub fn cpu() -> Self {
        Device { kernels: Arc::new(Cpu), pools: Arc::default() }
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
