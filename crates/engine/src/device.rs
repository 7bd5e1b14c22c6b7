//! Where arrays live and operations run.

use std::fmt;
use std::sync::Arc;

use crate::arena::Arena;
use crate::cpu::Cpu;
use crate::cuda::context::{Context, GpuInfo};
use crate::cuda::slice::Kind;
use crate::cuda::{Cuda, CudaResult};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::passes::Passes;
use crate::precision::Precision;
use crate::profile::{Profile, Profiled};

/// A handle on a device: its kernels and its memory. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    kernels: Arc<dyn Kernels>,
    memory: Memory,
    precision: Precision,
}

/// Where a device's arrays are.
#[derive(Clone)]
pub(crate) enum Memory {
    Host(Arc<Arena>),
    Cuda(Arc<Context>),
}

impl Memory {
    /// Whether both are the same memory.
    pub fn is(&self, other: &Memory) -> bool {
        match (self, other) {
            (Memory::Host(_), Memory::Host(_)) => true,
            (Memory::Cuda(a), Memory::Cuda(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Device {
    /// The CPU in single precision; work is spread over the current rayon pool.
    pub fn cpu() -> Self {
        Device::cpu_with(Precision::F32)
    }

    /// The CPU in that precision.
    pub fn cpu_with(precision: Precision) -> Self {
        Device { kernels: Arc::new(Cpu::new(precision)), memory: Memory::Host(Arc::default()), precision }
    }

    /// The NVIDIA GPU of that number, counted from 0, in that precision. Needs the driver, NVRTC and cuBLASLt of CUDA
    /// 12 or 13 when it is called, nothing when the program is built.
    ///
    /// # Errors
    /// Where a library or the GPU is missing, or the GPU is older than Ampere.
    pub fn cuda(number: usize, precision: Precision) -> CudaResult<Self> {
        let context = Context::open(number)?;
        let kernels = Arc::new(Cuda::new(context.clone()));
        Ok(Device { kernels, memory: Memory::Cuda(context), precision })
    }

    /// The same device, and a record of the time that each operation takes on it.
    pub fn profiled(&self) -> (Self, Profile) {
        let profile = Profile::default();
        let kernels = Arc::new(Profiled { kernels: self.kernels.clone(), profile: profile.clone() });
        (Device { kernels, ..self.clone() }, profile)
    }

    /// The device's implementation of every operation.
    pub fn kernels(&self) -> &dyn Kernels {
        &*self.kernels
    }

    /// The precision of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Waits for all work, and tells what has failed since the last call: work on a GPU is asynchronous, and what
    /// fails there shows in no operation's result.
    ///
    /// # Errors
    /// Out of memory, or what the driver says. After the first the device can be used on.
    pub fn check(&self) -> Result<()> {
        match &self.memory {
            Memory::Host(_) => Ok(()),
            Memory::Cuda(context) => Ok(context.check()?),
        }
    }

    /// Tells what is known to have failed, and waits for nothing: of work whose results have been read it is all.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn tell(&self) -> Result<()> {
        match &self.memory {
            Memory::Host(_) => Ok(()),
            Memory::Cuda(context) => Ok(context.tell()?),
        }
    }

    /// What the GPU is, if it is one.
    pub fn gpu(&self) -> Option<&GpuInfo> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Cuda(context) => Some(context.info()),
        }
    }

    /// The most bytes of GPU memory that arrays took at once since [`Device::reset_peak_memory`]; `None` where arrays
    /// are in the process's own memory.
    pub fn peak_memory(&self) -> Option<usize> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Cuda(context) => Some(context.arena().peak()),
        }
    }

    /// Begins a new peak at what is in use now.
    pub fn reset_peak_memory(&self) {
        if let Memory::Cuda(context) = &self.memory {
            context.arena().reset_peak();
        }
    }

    /// How passes without gradients over so many rows are divided best.
    pub fn passes(&self, rows: usize) -> Passes {
        match &self.memory {
            Memory::Host(_) => Passes::of_cpu(rows, rayon::current_num_threads()),
            Memory::Cuda(_) => Passes::of_gpu(),
        }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What activations are kept as: halves on a GPU in bf16, where reading and writing them is what takes the time.
    pub(crate) fn activation_kind(&self) -> Kind {
        match (&self.memory, self.precision) {
            (Memory::Cuda(_), Precision::Bf16) => Kind::Bf16,
            _ => Kind::F32,
        }
    }

    /// Whether the optimizer takes the gradients of those rows of a table that were looked up, without all the others.
    pub(crate) fn keeps_row_gradients(&self) -> bool {
        matches!(self.memory, Memory::Host(_))
    }

    /// The arena of the host's memory, for the kernels of the CPU.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        match &self.memory {
            Memory::Host(arena) => arena,
            Memory::Cuda(_) => panic!("{self:?} does not work in the host's memory"),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kernels.name())
    }
}
