//! train

pub mod schedule;
