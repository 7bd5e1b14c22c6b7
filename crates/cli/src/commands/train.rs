//! `mendel train`: a comparison of one arm.

pub use super::compare::run;
