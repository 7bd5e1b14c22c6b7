//! train

pub mod checkpoint;
pub mod history;
pub mod schedule;
