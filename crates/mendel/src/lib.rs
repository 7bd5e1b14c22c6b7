//! Train BERT dual encoders for text retrieval, with standard and with genetic attention, and compare them.

pub mod arm;
pub mod attention;
pub mod bench;
pub mod bert;
pub mod compare;
pub mod data;
pub mod dual_encoder;
pub mod embed;
pub mod evaluate;
pub mod files;
pub mod layers;
pub mod memory;
pub mod presets;
pub mod progress;
mod random;
pub mod report;
pub mod saved_model;
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
