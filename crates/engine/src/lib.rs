//! Arrays on a device, a tape, and the fused operations of a dual-encoder training step, each with its gradient.
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
//!
//! # The pieces
//!
//! - [`Tensor`] is a dense row-major array of f32 on a [`Device`], [`Ids`] one of u32. Clones share the data. Memory
//!   comes from an arena of the device, and goes back to it when the last clone is dropped.
//! - [`Tape`] records operations; a [`Var`] is a value on it. [`Tape::backward`] walks the record back once and gives
//!   [`Gradients`]. [`Tape::inference`] records nothing.
//! - [`ops`] are the operations, as methods of [`Var`]: the fused ones of a BERT encoder and its loss, and the basic
//!   ones from which others are composed.
//! - [`Sequences`] are texts of unlike length packed into one row of tokens: there is no padding and no mask.
//! - [`Parameters`] are a model's tensors by name, [`optim`] updates them.
//! - [`random`] draws numbers by name: the same name gives the same number on any number of threads.
//!
//! An operation has one name wherever it appears: `ops/layer_norm.rs` is its definition and gradient on the tape,
//! `cpu/layer_norm.rs` its CPU kernel, [`kernels::Kernels`] the contract between the two.
//!
//! Results are the same bits whatever the number of threads.

mod arena;
pub mod cpu;
pub mod cuda;
mod device;
mod error;
mod gradients;
pub mod kernels;
mod limits;
mod memory;
pub mod ops;
pub mod optim;
mod parameters;
mod passes;
mod precision;
mod profile;
pub mod random;
pub mod selftest;
mod sequences;
mod tape;
mod tensor;
#[cfg(test)]
mod testing;

pub use device::Device;
pub use error::{Error, Result};
pub use gradients::{Gradient, Gradients, RowGradient};
pub use limits::MemoryBandwidth;
pub use parameters::{ParameterId, Parameters};
pub use passes::Passes;
pub use precision::Precision;
pub use profile::Profile;
pub use sequences::Sequences;
pub use tape::{Tape, Var};
pub use tensor::{Array, Element, Ids, Tensor};
