//! Evaluation: what a model's embeddings are worth.

pub mod metrics;

pub use metrics::Measures;
