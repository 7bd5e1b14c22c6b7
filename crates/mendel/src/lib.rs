//! Train BERT dual encoders for text retrieval, with standard and with genetic attention, and compare them.
//!
//! A dual encoder turns a query and a passage into two vectors with one BERT; their cosine says how well the passage
//! answers the query. Genetic attention scales what attention brings by a fitness of each feature, which comes from
//! evolving the sequence's tokens as a population (docs/genetic-attention.md in the repository has the mathematics).
//!
//! ```
//! use mendel::attention::Genetic;
//! use mendel::bert::{BertConfig, BertModel};
//! use mendel::data::demo::demo_tokenizer;
//! use mendel::default;
//! use mendel::dual_encoder::DualEncoder;
//! use mendel::settings::Pooling;
//!
//! let tokenizer = demo_tokenizer();
//! let bert = BertModel::builder()
//!     .config(BertConfig::demo_tiny(tokenizer.vocab_size()))
//!     .genetic(Genetic { population_size: 64, num_generations: 10, ..default() })
//!     .build()?;
//! let encoder = DualEncoder { bert, pooling: Pooling::Mean };
//!
//! let texts = ["who designed the crane?", "Midra Taddern holds the patent on the crane."];
//! let embeddings = encoder.embed(&tokenizer.encode_batch(&texts, 64), |_| ())?;
//! let (query, passage) = embeddings.vectors.split_at(embeddings.width);
//! // Embeddings have length 1, so their inner product is their cosine.
//! let cosine: f32 = query.iter().zip(passage).map(|(x, y)| x * y).sum();
//! assert!((-1.0..=1.0).contains(&cosine));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to find what
//!
//! | to | see |
//! | --- | --- |
//! | build a model from a folder or from drawn weights | [`bert::BertModel::builder`] |
//! | choose the attention | [`attention::Genetic`], [`attention::AttentionConfig`] |
//! | load a trained model, and embed texts with it | [`saved_model::SavedModel`], [`dual_encoder::DualEncoder::embed`] |
//! | run a whole comparison | [`compare::compare`] with [`Settings`] |
//! | train one arm, or make single steps | [`train::train_arm`], [`train::Trainer`] |
//! | read data | [`data::load`], and as tokens [`data::DataRequest`] |
//! | fetch from the Hub | [`hub::dataset`], [`hub::model`] |
//! | measure retrieval | [`evaluate::Evaluator`], [`evaluate::collection`], [`evaluate::Measures`] |
//! | compose a new operation or attention variant | [`engine`] |
//!
//! The library prints nothing: what happens is told to a [`progress::Observer`].

pub mod arm;
pub mod attention;
pub mod bench;
pub mod bert;
pub mod bm25;
pub mod compare;
pub mod data;
pub mod dual_encoder;
pub mod embed;
pub mod evaluate;
pub mod files;
pub mod hub;
pub mod layers;
pub mod memory;
pub mod presets;
pub mod progress;
mod random;
pub mod report;
pub mod saved_model;
pub mod selftest;
pub mod settings;
pub mod texts;
pub mod throughput;
pub mod tokenizer;
pub mod train;

pub use arm::Arm;
pub use mendel_engine as engine;
pub use settings::Settings;

/// `Default::default()`, so that `Genetic { population_size: 64, ..default() }` reads well.
pub fn default<T: Default>() -> T {
    T::default()
}
