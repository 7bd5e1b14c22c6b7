//! Embeds a question and a passage, and prints how near they are.
//!
//! ```sh
//! cargo run --release --example embed_texts                                    # the built-in model, untrained
//! cargo run --release --example embed_texts -- artefacts/models/genetic-seed42 # a model that was trained
//! ```

use std::error::Error;
use std::path::Path;

use mendel::attention::Genetic;
use mendel::bert::{BertConfig, BertModel};
use mendel::data::demo::demo_tokenizer;
use mendel::dual_encoder::DualEncoder;
use mendel::progress::Silent;
use mendel::saved_model::{Encoding, SavedModel};
use mendel::settings::{Pooling, Settings};
use mendel::texts::TextEncoder;
use mendel::{default, engine::Device};

const QUESTION: &str = "who designed the kennick crane?";
const PASSAGE: &str = "Midra Taddern holds the patent on the Kennick crane.";

fn main() -> Result<(), Box<dyn Error>> {
    let SavedModel { encoder, texts } = match std::env::args().nth(1) {
        Some(folder) => trained(folder)?,
        None => untrained()?,
    };
    let tokens = [texts.queries(&[QUESTION]), texts.passages(&[PASSAGE])].concat();
    let embeddings = encoder.embed(&tokens, |_| ())?;
    let (question, passage) = embeddings.vectors.split_at(embeddings.width);
    // Embeddings have length 1, so their inner product is their cosine.
    let cosine: f32 = question.iter().zip(passage).map(|(x, y)| x * y).sum();
    println!("{QUESTION}\n{PASSAGE}\ncosine {cosine:.4}");
    Ok(())
}

/// A model folder, with the pooling, length and prefixes that it was trained with.
fn trained(folder: String) -> Result<SavedModel, Box<dyn Error>> {
    let encoding = Encoding::of_folder(Path::new(&folder))?;
    let settings = encoding.apply(Settings { model: folder, ..default() });
    Ok(SavedModel::load(&settings, &mut Silent)?)
}

/// The built-in architecture with drawn weights and genetic attention.
fn untrained() -> Result<SavedModel, Box<dyn Error>> {
    let tokenizer = demo_tokenizer();
    let config = BertConfig::demo_tiny(tokenizer.vocab_size());
    let positions = config.max_position_embeddings;
    let genetic = Genetic { population_size: 64, num_generations: 10, ..default() };
    let bert = BertModel::builder().config(config).genetic(genetic).device(&Device::cpu()).build()?;
    let encoder = DualEncoder { bert, pooling: Pooling::Mean };
    Ok(SavedModel { encoder, texts: TextEncoder::new(tokenizer, &Settings::default(), positions) })
}
