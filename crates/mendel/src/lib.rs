//! Train BERT dual encoders for text retrieval, with standard and with genetic attention, and compare them.

pub mod arm;
pub mod attention;
pub mod bert;
pub mod data;
pub mod evaluate;
pub mod files;
pub mod layers;
pub mod presets;
pub mod progress;
mod random;
pub mod report;
pub mod settings;
pub mod tokenizer;
pub mod train;

pub use arm::Arm;
pub use settings::Settings;

/// `Default::default()`, so that `Genetic { population_size: 64, ..default() }` reads well.
pub fn default<T: Default>() -> T {
    T::default()
}
