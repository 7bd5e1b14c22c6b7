//! The operations: shapes, formula and source of each, forward and backward on the tape.
//!
//! They are methods of [`Var`](crate::Var). All dimensions of a value but its last are its rows. A new attention
//! variant is a forward pass written with them; it trains at once.

pub mod attention;
mod basic;
mod concat;
mod dropout;
mod embedding;
pub mod evolve;
mod gelu;
pub mod gene_fitness;
pub mod info_nce;
mod l2_normalize;
pub mod largest;
mod layer_norm;
mod linear;
pub mod modulate;
pub mod pool;
pub mod residual_norm;
mod rms_norm;
mod softmax;
