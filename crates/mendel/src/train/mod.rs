//! train

pub mod checkpoint;
pub mod schedule;
