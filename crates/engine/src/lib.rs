//! Arrays on a device, a tape, and the fused operations of a dual-encoder training step, each with its gradient.
//!
//! An operation has one name wherever it appears: `ops/layer_norm.rs` is its definition and gradient on the tape,
//! `cpu/layer_norm.rs` its CPU kernel, [`kernels::Kernels`] the contract between the two.
//!
//! ```
//! use mendel_engine::{Device, Tape, Tensor};
//!
//! let device = Device::cpu();
//! let tape = Tape::recording();
//! let x = tape.leaf(Tensor::from_slice(&device, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?);
//! let loss = x.mul(&x)?.sum()?;
//! let gradients = tape.backward(&loss)?;
//! assert_eq!(gradients.of(&x).unwrap().to_vec(), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
//! # Ok::<(), mendel_engine::Error>(())
//! ```

pub mod cpu;
mod device;
mod error;
pub mod kernels;
pub mod ops;
pub mod optim;
mod parameters;
mod pool;
pub mod random;
mod sequences;
mod tape;
mod tensor;
#[cfg(test)]
mod testing;

pub use device::Device;
pub use error::{Error, Result};
pub use parameters::{ParameterId, Parameters};
pub use sequences::Sequences;
pub use tape::{Gradients, Tape, Var};
pub use tensor::{Array, Element, Ids, Tensor};
