//! Training pairs as tokens, and the batch of a step.

use std::sync::Arc;

use mendel_engine::Device;

use crate::data::{Sampler, Text, TextKey, TokenStore};
use crate::layers::Batch;

/// Training pairs as tokens.
#[derive(Clone, Debug)]
pub struct TrainingPairs {
    store: Arc<TokenStore>,
    /// The places in the store of the pairs that are trained on.
    places: Vec<usize>,
    hard_negatives: usize,
}

impl TrainingPairs {
    /// Those pairs of a store that stand at `places`, with so many hard negatives each, or as many as there are.
    pub fn new(store: impl Into<Arc<TokenStore>>, places: Vec<usize>, hard_negatives: usize) -> Self {
        TrainingPairs { store: store.into(), places, hard_negatives }
    }

    /// All pairs of a store.
    pub fn all(store: TokenStore, hard_negatives: usize) -> Self {
        let places = (0..store.len()).collect();
        Self::new(store, places, hard_negatives)
    }

    /// Whether any pair has a negative.
    pub fn have_negatives(&self) -> bool {
        self.places.iter().any(|&place| self.store.negative_count(place) > 0)
    }

    /// What they are recognised by.
    pub fn fingerprint(&self) -> String {
        self.store.fingerprint(self.places.iter().copied())
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// The texts of a step: queries, their positives in the same order, then hard negatives.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// All texts, packed.
    pub texts: Batch,
    /// Queries `B`.
    pub queries: usize,
    /// Query and candidate passage that are not contrasted, because they belong together.
    pub excluded: Vec<(u32, u32)>,
    /// The pairs' places in the dataset.
    pub pairs: Vec<usize>,
}

impl TrainingBatch {
    /// The batch that the sampler deals for a step, counted from 0.
    pub fn deal(
        pairs: &TrainingPairs,
        sampler: &mut Sampler,
        step: u64,
        device: &Device,
    ) -> mendel_engine::Result<Self> {
        let epoch = sampler.epoch_of(step);
        let members = sampler.batch(step);
        let negatives = members.iter().map(|&pair| {
            let available = if pairs.hard_negatives == 0 { 0 } else { pairs.store.negative_count(pairs.places[pair]) };
            (pair, sampler.hard_negatives(pair, available, pairs.hard_negatives, epoch))
        });
        let negatives: Vec<(usize, Vec<usize>)> = negatives.collect();
        Self::of(pairs, members, &negatives, device)
    }

    /// The batch of given pairs, with given hard negatives: a pair and which of its negatives.
    pub fn of(
        pairs: &TrainingPairs,
        members: Vec<usize>,
        negatives: &[(usize, Vec<usize>)],
        device: &Device,
    ) -> mendel_engine::Result<Self> {
        // A text keeps its number in the random generator whatever batch its pair is dealt into.
        let numbers = 2 + pairs.hard_negatives as u32;
        let number = |pair: usize, place: usize| (pair as u32).wrapping_mul(numbers).wrapping_add(place as u32);
        let (store, places) = (&pairs.store, &pairs.places);
        let queries: Vec<(Text<'_>, u32)> =
            members.iter().map(|&pair| (store.query(places[pair]), number(pair, 0))).collect();
        let positives = members.iter().map(|&pair| (store.positive(places[pair]), number(pair, 1)));
        let hard = negatives.iter().flat_map(|(pair, chosen)| {
            let text = |(at, &which)| (store.negative(places[*pair], which), number(*pair, 2 + at));
            chosen.iter().enumerate().map(text)
        });
        let candidates: Vec<(Text<'_>, u32)> = positives.chain(hard).collect();
        let keys = |texts: &[(Text<'_>, u32)]| texts.iter().map(|(text, _)| text.key).collect::<Vec<_>>();
        let excluded = excluded(&keys(&queries), &keys(&candidates));
        let (texts, ids): (Vec<&[u32]>, Vec<u32>) =
            queries.into_iter().chain(candidates).map(|(text, number)| (text.tokens, number)).unzip();
        Ok(TrainingBatch {
            texts: Batch::pack(device, &texts, &ids)?,
            queries: members.len(),
            excluded,
            pairs: members,
        })
    }
}

/// Texts that are equal are never each other's negatives: a candidate equal to the query's own positive, or the
/// positive of an equal query.
fn excluded(queries: &[TextKey], candidates: &[TextKey]) -> Vec<(u32, u32)> {
    let belongs = |query: usize, candidate: usize| {
        candidate != query
            && (candidates[candidate] == candidates[query] || queries.get(candidate) == Some(&queries[query]))
    };
    let all = (0..queries.len()).flat_map(|query| (0..candidates.len()).map(move |candidate| (query, candidate)));
    all.filter(|&(query, candidate)| belongs(query, candidate)).map(|(q, c)| (q as u32, c as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_not_contrasted() {
        // Queries 0 and 2 are equal; passages 1 and 3 are; hard negative 4 equals the positive of query 0.
        let pairs = excluded(&[7, 8, 7, 9], &[1, 2, 3, 2, 1]);
        assert_eq!(pairs, [(0, 2), (0, 4), (1, 3), (2, 0), (3, 1)]);
    }
}
