//! Evaluation: retrieval over a whole corpus, sentence similarity, and what the embedding space looks like.

pub mod collection;
pub mod correlation;
pub mod embedding_quality;
pub mod metrics;
mod retrieval;
mod run_file;
pub mod search;
pub mod sts;

pub use embedding_quality::EmbeddingQuality;
pub use metrics::Measures;
pub use retrieval::{Evaluation, EvaluationError, Evaluator, Measured};
pub use run_file::{RunFileError, write_qrels, write_run};
