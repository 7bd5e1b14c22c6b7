//! Training pairs as tokens, and the batch of a step.

use std::collections::HashMap;

use mendel_engine::Device;

use crate::data::{Pair, Sampler};
use crate::layers::Batch;
use crate::texts::TextEncoder;

/// A tokenised text and a number that equal texts share.
#[derive(Clone, Debug)]
struct Text {
    tokens: Vec<u32>,
    key: u32,
}

/// Training pairs as tokens.
#[derive(Clone, Debug)]
pub struct TrainingPairs {
    queries: Vec<Text>,
    positives: Vec<Text>,
    /// Empty where no hard negatives are wanted.
    negatives: Vec<Vec<Text>>,
    hard_negatives: usize,
}

/// Gives equal texts equal numbers.
#[derive(Default)]
struct Keys<'a>(HashMap<&'a str, u32>);

impl<'a> Keys<'a> {
    fn of(&mut self, text: &'a str) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(text).or_insert(next)
    }

    fn texts(&mut self, texts: &[&'a str], tokens: Vec<Vec<u32>>) -> Vec<Text> {
        texts.iter().zip(tokens).map(|(text, tokens)| Text { tokens, key: self.of(text) }).collect()
    }
}

impl TrainingPairs {
    /// Tokenises pairs; their negatives only if some are wanted.
    pub fn new(pairs: &[Pair], encoder: &TextEncoder, hard_negatives: usize) -> Self {
        let (mut query_keys, mut passage_keys) = (Keys::default(), Keys::default());
        let queries: Vec<&str> = pairs.iter().map(|pair| pair.query.as_str()).collect();
        let positives: Vec<&str> = pairs.iter().map(|pair| pair.positive.as_str()).collect();
        let wanted = if hard_negatives > 0 { pairs } else { &[] };
        let negatives = wanted.iter().map(|pair| {
            let texts: Vec<&str> = pair.negatives.iter().map(String::as_str).collect();
            (encoder.passages(&texts), texts)
        });
        let negatives: Vec<(Vec<Vec<u32>>, Vec<&str>)> = negatives.collect();
        TrainingPairs {
            queries: query_keys.texts(&queries, encoder.queries(&queries)),
            positives: passage_keys.texts(&positives, encoder.passages(&positives)),
            negatives: negatives.into_iter().map(|(tokens, texts)| passage_keys.texts(&texts, tokens)).collect(),
            hard_negatives,
        }
    }

    /// Pairs of a query's and a positive's tokens, all taken to be different, without hard negatives.
    pub fn from_tokens(pairs: impl IntoIterator<Item = (Vec<u32>, Vec<u32>)>) -> Self {
        let numbered = pairs.into_iter().enumerate();
        let (queries, positives) = numbered
            .map(|(key, (query, positive))| {
                let text = |tokens| Text { tokens, key: key as u32 };
                (text(query), text(positive))
            })
            .unzip();
        TrainingPairs { queries, positives, negatives: Vec::new(), hard_negatives: 0 }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
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
            let available = pairs.negatives.get(pair).map_or(0, Vec::len);
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
        let queries = members.iter().map(|&pair| (&pairs.queries[pair], number(pair, 0)));
        let positives = members.iter().map(|&pair| (&pairs.positives[pair], number(pair, 1)));
        let hard = negatives.iter().flat_map(|(pair, chosen)| {
            chosen.iter().enumerate().map(|(place, &which)| (&pairs.negatives[*pair][which], number(*pair, 2 + place)))
        });
        let candidates: Vec<(&Text, u32)> = positives.chain(hard).collect();
        let query_keys: Vec<u32> = members.iter().map(|&pair| pairs.queries[pair].key).collect();
        let candidate_keys: Vec<u32> = candidates.iter().map(|(text, _)| text.key).collect();
        let (texts, ids): (Vec<&[u32]>, Vec<u32>) =
            queries.chain(candidates).map(|(text, number)| (text.tokens.as_slice(), number)).unzip();
        Ok(TrainingBatch {
            texts: Batch::pack(device, &texts, &ids)?,
            queries: members.len(),
            excluded: excluded(&query_keys, &candidate_keys),
            pairs: members,
        })
    }
}

/// Texts that are equal are never each other's negatives: a candidate equal to the query's own positive, or the
/// positive of an equal query.
fn excluded(queries: &[u32], candidates: &[u32]) -> Vec<(u32, u32)> {
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
