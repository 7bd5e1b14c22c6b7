//! Training pairs as tokens, and the batch of a step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, OnceLock};

use mendel_engine::{Device, Ids};

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
    texts: Vec<NumberedText>,
    /// Queries `B`.
    pub queries: usize,
    /// Query and candidate passage that are not contrasted, because they belong together.
    pub excluded: Vec<(u32, u32)>,
    /// The pairs' places in the dataset.
    pub pairs: Vec<usize>,
    packed: OnceLock<Batch>,
}

/// A text's tokens, and the number by which the random generator knows it.
#[derive(Clone, Debug)]
struct NumberedText {
    tokens: Vec<u32>,
    number: u32,
}

/// All texts of a step in parts, for an encoder that takes one after the other.
#[derive(Clone, Debug)]
pub struct MicroBatches {
    /// The parts, of nearly as many tokens each.
    pub parts: Vec<Batch>,
    /// `[texts]`: where each text's vector is when those of all parts stand one below the other.
    pub rows: Ids,
}

impl TrainingBatch {
    /// The batch that the sampler deals for a step, counted from 0.
    pub fn deal(pairs: &TrainingPairs, sampler: &mut Sampler, step: u64) -> Self {
        let epoch = sampler.epoch_of(step);
        let members = sampler.batch(step);
        let negatives = members.iter().map(|&pair| {
            let available = if pairs.hard_negatives == 0 { 0 } else { pairs.store.negative_count(pairs.places[pair]) };
            (pair, sampler.hard_negatives(pair, available, pairs.hard_negatives, epoch))
        });
        let negatives: Vec<(usize, Vec<usize>)> = negatives.collect();
        Self::of(pairs, members, &negatives)
    }

    /// The batch of given pairs, with given hard negatives: a pair and which of its negatives.
    pub fn of(pairs: &TrainingPairs, members: Vec<usize>, negatives: &[(usize, Vec<usize>)]) -> Self {
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
        let texts = queries.into_iter().chain(candidates);
        let texts = texts.map(|(text, number)| NumberedText { tokens: text.tokens.to_vec(), number }).collect();
        TrainingBatch { texts, queries: members.len(), excluded, pairs: members, packed: OnceLock::new() }
    }

    /// The number of tokens in all texts.
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.tokens.len()).sum()
    }

    /// All texts, packed. They stay packed, on the device that is named first.
    ///
    /// # Errors
    /// More than 2³² tokens.
    pub fn pack(&self, device: &Device) -> mendel_engine::Result<Batch> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed.clone());
        }
        let packed = pack(&self.texts, device)?;
        Ok(self.packed.get_or_init(|| packed).clone())
    }

    /// The texts in ⌈`queries` / `pairs`⌉ parts. Activations are as large as their tokens, so texts are dealt out by
    /// tokens, not by pairs: the longest first, each to the part that has the fewest.
    ///
    /// # Errors
    /// More than 2³² tokens in one part.
    pub fn micro_batches(&self, pairs: usize, device: &Device) -> mendel_engine::Result<MicroBatches> {
        let mut parts = vec![Vec::new(); self.queries.div_ceil(pairs.max(1))];
        let mut lightest: BinaryHeap<_> = (0..parts.len()).map(|part| Reverse((0, part))).collect();
        let mut longest_first: Vec<usize> = (0..self.texts.len()).collect();
        longest_first.sort_by_key(|&text| Reverse(self.texts[text].tokens.len()));
        for text in longest_first {
            let Some(mut lightest) = lightest.peek_mut() else { break };
            let Reverse((tokens, part)) = &mut *lightest;
            *tokens += self.texts[text].tokens.len();
            parts[*part].push(text);
        }
        let mut rows = vec![0; self.texts.len()];
        for (row, &text) in (0..).zip(parts.iter().flatten()) {
            rows[text] = row;
        }
        let pack = |part: &Vec<usize>| pack(part.iter().map(|&text| &self.texts[text]), device);
        Ok(MicroBatches {
            parts: parts.iter().map(pack).collect::<Result<_, _>>()?,
            rows: Ids::known_from_slice(device, &[rows.len()], &rows)?,
        })
    }
}

fn pack<'a>(texts: impl IntoIterator<Item = &'a NumberedText>, device: &Device) -> mendel_engine::Result<Batch> {
    let (tokens, numbers): (Vec<&[u32]>, Vec<u32>) =
        texts.into_iter().map(|text| (text.tokens.as_slice(), text.number)).unzip();
    Batch::pack(device, &tokens, &numbers)
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn micro_batches_hold_every_text_once_and_nearly_as_many_tokens_each(
            lengths in prop::collection::vec((1..40_usize, 1..40_usize), 1..30), size in 1..35_usize,
        ) {
            // No two texts have a token in common.
            let mut tokens = 0..;
            let mut text = |length: usize| tokens.by_ref().take(length).collect::<Vec<u32>>();
            let store = TokenStore::of_tokens(lengths.iter().map(|&(query, positive)| (text(query), text(positive))));
            let pairs = TrainingPairs::all(store, 0);
            let batch = TrainingBatch::of(&pairs, (0..lengths.len()).collect(), &[]);
            let device = Device::cpu();
            let (whole, micro) = (batch.pack(&device).unwrap(), batch.micro_batches(size, &device).unwrap());
            prop_assert_eq!(micro.parts.len(), lengths.len().div_ceil(size));
            let texts = |batch: &Batch| -> Vec<(Vec<u32>, Vec<u32>, u32)> {
                let tokens = |ids: &Ids, rows: std::ops::Range<usize>| ids.data()[rows].to_vec();
                let of = |(rows, &number): (std::ops::Range<usize>, &u32)| {
                    (tokens(&batch.token_ids, rows.clone()), tokens(&batch.position_ids, rows), number)
                };
                batch.sequences.ranges().zip(batch.sequences.ids().data()).map(of).collect()
            };
            let in_parts: Vec<_> = micro.parts.iter().flat_map(texts).collect();
            let in_order: Vec<_> = micro.rows.data().iter().map(|&row| in_parts[row as usize].clone()).collect();
            prop_assert_eq!(in_order, texts(&whole));
            let sizes: Vec<usize> = micro.parts.iter().map(|part| part.sequences.tokens()).collect();
            let (fewest, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            let longest = lengths.iter().map(|&(query, positive)| query.max(positive)).max().unwrap();
            prop_assert!(most - fewest <= longest, "{sizes:?}");
        }
    }

    #[test]
    fn equal_texts_are_not_contrasted() {
        // Queries 0 and 2 are equal; passages 1 and 3 are; hard negative 4 equals the positive of query 0.
        let pairs = excluded(&[7, 8, 7, 9], &[1, 2, 3, 2, 1]);
        assert_eq!(pairs, [(0, 2), (0, 4), (1, 3), (2, 0), (3, 1)]);
    }
}
