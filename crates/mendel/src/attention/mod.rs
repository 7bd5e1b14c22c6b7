//! The attention module: standard, and the genetic part.

mod genetic;

pub use genetic::{Evolution, FitnessScale, Genetic};
