//! Evaluation: retrieval over a whole corpus, and what the embedding space looks like.

pub mod embedding_quality;
pub mod metrics;
mod retrieval;

pub use embedding_quality::EmbeddingQuality;
pub use metrics::Measures;
pub use retrieval::{Evaluation, EvaluationError, Evaluator, Measured};
