//! The report: what a comparison found, for people.

pub mod table;
