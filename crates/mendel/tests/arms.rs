//! Arms that differ only in the genetic part differ in nothing else: weights, batches, dropout.

use mendel::attention::Genetic;
use mendel::bert::{BertConfig, BertModel};
use mendel::data::TokenStore;
use mendel::dual_encoder::DualEncoder;
use mendel::train::{Trainer, TrainingBatch, TrainingPairs};
use mendel::{Settings, data::Sampler};

/// A model whose values are one number everywhere: then all genes are as fit, and genetic attention is standard
/// attention exactly (docs/genetic-attention.md, section 8, property 1).
fn with_equal_genes(genetic: Option<Genetic>) -> BertModel {
    let builder = BertModel::builder().config(BertConfig::demo_tiny(200)).seed(7);
    let builder = match genetic {
        Some(genetic) => builder.genetic(genetic),
        None => builder.standard(),
    };
    let mut model = builder.build().unwrap();
    let parameters = model.parameters_mut();
    let values: Vec<_> = parameters
        .iter()
        .filter(|(_, name, _)| name.contains(".value."))
        .map(|(id, name, _)| (id, name.to_owned()))
        .collect();
    for (id, name) in values {
        let value = if name.ends_with("bias") { 0.25 } else { 0.0 };
        parameters.get_mut(id).data_mut().fill(value);
    }
    model
}

#[test]
fn arms_with_the_same_attention_have_the_same_weights_batches_and_dropout() {
    let settings = Settings { batch_size: 8, ..Settings::default() };
    let texts = |length: u32, of: u32| (0..length).map(|token| 5 + (token * 31 + of * 17) % 190).collect::<Vec<u32>>();
    let store = TokenStore::of_tokens((0..20).map(|pair| (texts(6, pair), texts(25, 100 + pair))));
    let pairs = TrainingPairs::all(store, 0);
    let step = |genetic: Option<Genetic>| {
        let encoder = DualEncoder { bert: with_equal_genes(genetic), pooling: settings.pooling };
        let mut trainer = Trainer::new(encoder, &settings);
        let mut sampler = Sampler::new(pairs.len(), settings.batch_size, settings.seed).unwrap();
        let batch = TrainingBatch::deal(&pairs, &mut sampler, 0);
        let report = trainer.step(0, &batch, 1e-3).unwrap();
        (report.loss, batch.pairs)
    };
    let standard = step(None);
    assert_eq!(standard, step(Some(Genetic { num_generations: 0, ..Genetic::default() })));
    // The shares of a drawn ancestry round: equal to the last bits only.
    let evolved = step(Some(Genetic::default()));
    assert!((standard.0 - evolved.0).abs() < 1e-5 * standard.0 && standard.1 == evolved.1, "{standard:?} {evolved:?}");
    // The model has dropout, so that the loss tells whether it is the same.
    assert!(
        BertConfig::demo_tiny(200).hidden_dropout_prob > 0.0
            && BertConfig::demo_tiny(200).attention_probs_dropout_prob > 0.0
    );
}
