//! Evaluation: what a model's embeddings are worth.

pub mod embedding_quality;
pub mod metrics;

pub use embedding_quality::EmbeddingQuality;
pub use metrics::Measures;
