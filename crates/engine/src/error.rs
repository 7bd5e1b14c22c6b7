//! What can go wrong in the engine: shapes that do not fit, and GPUs that fail.

/// An operation was given something it cannot work on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Shapes that do not fit the operation.
    #[error("{operation}: {what}")]
    Shape {
        /// The operation's name.
        operation: &'static str,
        /// What was expected and what was found.
        what: String,
    },
    /// A GPU that could not do its work.
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaError),
    /// An index that lies outside its table.
    #[error("{operation}: index {index} at place {place} is outside the table of {rows} rows")]
    Index {
        /// The operation's name.
        operation: &'static str,
        /// The index.
        index: u32,
        /// Where in the list of indices it stands.
        place: usize,
        /// How many rows the table has.
        rows: usize,
    },
}

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Fails with a shape error unless the condition holds.
macro_rules! ensure_shape {
    ($condition:expr, $operation:expr, $($what:tt)*) => {
        if !$condition {
            return Err($crate::Error::Shape { operation: $operation, what: format!($($what)*) });
        }
    };
}
pub(crate) use ensure_shape;
