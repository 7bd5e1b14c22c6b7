//! What can go wrong with a GPU.

use cudarc::driver::DriverError;
use cudarc::driver::result::mem_get_info;
use cudarc::driver::sys::CUresult;

/// Something that a GPU or its libraries could not do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CudaError {
    /// A library of NVIDIA's that is not there.
    #[error(
        "{what} is not there: no {names} in the loader's path or in {folders}; install it, or name \
         its folder in MENDEL_CUDA_LIBRARIES"
    )]
    Library {
        /// What it is, and what brings it.
        what: &'static str,
        /// The file names that were tried.
        names: String,
        /// The folders that were tried beside the loader's path.
        folders: String,
    },
    /// The driver is there but no GPU is.
    #[error("there is no GPU {wanted}: the driver sees {count}")]
    NoDevice {
        /// The GPU's number.
        wanted: usize,
        /// How many there are.
        count: usize,
    },
    /// A GPU of an architecture before Ampere.
    #[error("{name} has compute capability {major}.{minor}: 8.0 or higher is needed")]
    Capability {
        /// The GPU's name.
        name: String,
        /// Major number of its compute capability.
        major: i32,
        /// Minor number.
        minor: i32,
    },
    /// More memory was asked than there is.
    #[error(
        "out of GPU memory: {asked} bytes were asked for, {in_use} are in use here, {free} of {total} are free on the GPU"
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that live arrays of this process take.
        in_use: usize,
        /// Bytes that the GPU has free.
        free: usize,
        /// Bytes that the GPU has.
        total: usize,
    },
    /// A call of the driver or of cuBLASLt that failed.
    #[error("{call} failed: {reason}")]
    Call {
        /// What was called.
        call: String,
        /// What it answered.
        reason: String,
    },
    /// A kernel that the GPU's compiler refused.
    #[error("{program} does not compile for compute capability {capability}: {log}")]
    Compile {
        /// The source file.
        program: &'static str,
        /// For what it was compiled.
        capability: String,
        /// What the compiler says.
        log: String,
    },
}

impl CudaError {
    /// An allocation that failed; the context must be current. A device whose kernel has crashed refuses allocations
    /// too, and lacks no memory.
    pub(super) fn of_allocation(error: DriverError, asked: usize, in_use: usize) -> Self {
        if error.0 != CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return CudaError::Call { call: "cuMemAlloc".into(), reason: format!("{error:?}") };
        }
        let (free, total) = mem_get_info().unwrap_or_default();
        CudaError::OutOfMemory { asked, in_use, free, total }
    }
}

/// The result of what a GPU does.
pub type CudaResult<T> = Result<T, CudaError>;

/// Names the call in the error.
pub(super) trait Calling<T> {
    fn calling(self, call: &str) -> CudaResult<T>;
}

impl<T, E: std::fmt::Debug> Calling<T> for Result<T, E> {
    fn calling(self, call: &str) -> CudaResult<T> {
        self.map_err(|error| CudaError::Call { call: call.to_owned(), reason: format!("{error:?}") })
    }
}
