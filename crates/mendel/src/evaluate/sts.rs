//! Sentence similarity: how well cosines follow what people said.

use serde::Serialize;

use super::correlation::{pearson, spearman};
use crate::data::sts::SentencePair;
use crate::dual_encoder::Embeddings;
use crate::progress::{Event, Observer};
use crate::saved_model::SavedModel;

/// Correlations of cosines with gold scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Similarity {
    /// Of the ranks; what papers report.
    pub spearman: f64,
    /// Of the numbers.
    pub pearson: f64,
    /// How many pairs there are.
    pub pairs: usize,
}

/// Why there is no correlation.
#[derive(Debug, thiserror::Error)]
pub enum SimilarityError {
    /// Too little to correlate.
    #[error(
        "a correlation needs two pairs with different scores: there are {pairs} pairs, {different} different scores"
    )]
    Constant {
        /// Pairs there are.
        pairs: usize,
        /// Different scores among them.
        different: usize,
    },
    /// The model gives all pairs the same cosine.
    #[error("the model's cosines are all the same or no numbers: there is nothing to correlate")]
    ConstantCosine,
    /// An operation failed.
    #[error(transparent)]
    Engine(#[from] mendel_engine::Error),
}

/// Embeds both sentences of each pair, as passages, and correlates their cosines with the scores.
///
/// # Errors
/// Where all scores are the same or all cosines, or an operation fails.
pub fn similarity(
    model: &SavedModel,
    pairs: &[SentencePair],
    observer: &mut dyn Observer,
) -> Result<Similarity, SimilarityError> {
    let gold: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    let mut scores = gold.clone();
    scores.sort_by(f64::total_cmp);
    scores.dedup();
    if scores.len() < 2 {
        return Err(SimilarityError::Constant { pairs: pairs.len(), different: scores.len() });
    }
    let sentences: Vec<&str> = pairs.iter().flat_map(|pair| [pair.first.as_str(), &pair.second]).collect();
    let total = Some(sentences.len() as u64);
    observer.observe(Event::StageStarted { what: "Embedding".into(), unit: "sentences", total });
    let tokens = model.texts.passages(&sentences);
    let Embeddings { vectors, width, .. } =
        model.encoder.embed(&tokens, |done| observer.observe(Event::StageAdvanced { done: done as u64 }))?;
    observer.observe(Event::StageFinished);
    let cosines = vectors.chunks_exact(2 * width).map(|both| {
        let (first, second) = both.split_at(width);
        first.iter().zip(second).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    });
    let cosines: Vec<f64> = cosines.collect();
    let (spearman, pearson) = (spearman(&cosines, &gold), pearson(&cosines, &gold));
    if !spearman.is_finite() || !pearson.is_finite() {
        return Err(SimilarityError::ConstantCosine);
    }
    Ok(Similarity { spearman, pearson, pairs: pairs.len() })
}
