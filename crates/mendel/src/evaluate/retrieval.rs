//! Retrieval by exact search over the whole evaluation corpus.

use std::collections::BTreeMap;
use std::time::Instant;

use mendel_engine::Device;
use serde::{Deserialize, Serialize};

use super::embedding_quality;
use super::embedding_quality::{EmbeddingQuality, QualityError, Sampling};
use super::metrics::{Batch, BatchError, Grade, Measures, in_batch};
use super::search::{Rankings, Search};
use crate::data::EvaluationSet;
use crate::dual_encoder::{DualEncoder, Embeddings};
use crate::progress::{Event, Observer};

/// Queries and passages ready to be encoded, and which belong together.
#[derive(Clone, Debug)]
pub struct Evaluator {
    /// The texts.
    pub set: EvaluationSet,
    /// Queries to a batch in the in-batch measures.
    pub batch_size: usize,
    /// Similarities are divided by it in the loss.
    pub temperature: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Means over queries, against the whole corpus.
    #[serde(flatten)]
    pub retrieval: Measures,
    /// Means over queries, each against the positives of its batch alone.
    pub in_batch: Measures,
    /// The InfoNCE loss of the same batches, without dropout.
    pub loss: f64,
}

/// An evaluation's result.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The means.
    pub measured: Measured,
    /// Each query's measures, in the queries' order.
    pub per_query: Vec<Measures>,
    /// The best passages for each query.
    pub rankings: Rankings,
    /// What the embedding space looks like.
    pub quality: EmbeddingQuality,
    /// Time taken.
    pub seconds: f64,
    /// The queries' vectors.
    pub queries: Embeddings,
    /// The passages' vectors.
    pub passages: Embeddings,
}

/// Why an evaluation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// There is nothing to evaluate.
    #[error("there is no held-out query: give pairs to evaluate with --eval-dataset")]
    NoQueries,
    /// An operation failed.
    #[error(transparent)]
    Engine(#[from] mendel_engine::Error),
    /// The embeddings have no quality.
    #[error(transparent)]
    Quality(#[from] QualityError),
    /// The in-batch measures failed.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Measured {
    /// Every measure by name; those within a batch under `in_batch/`.
    pub fn by_name(&self) -> BTreeMap<String, f64> {
        let within = self.in_batch.iter().map(|(name, value)| (format!("in_batch/{name}"), value));
        let own = self.retrieval.iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(within).chain([("loss".to_owned(), self.loss)]).collect()
    }
}

impl Evaluator {
    /// Encodes the corpus and the queries, searches, and measures.
    pub fn evaluate(&self, encoder: &DualEncoder, observer: &mut dyn Observer) -> Result<Evaluation, EvaluationError> {
        if self.set.queries.is_empty() {
            return Err(EvaluationError::NoQueries);
        }
        let started = Instant::now();
        let total = Some((self.set.queries.len() + self.set.passages.len()) as u64);
        observer.observe(Event::StageStarted { what: "Evaluating".into(), unit: "texts", total });
        let queries =
            encoder.embed(&self.set.queries, |done| observer.observe(Event::StageAdvanced { done: done as u64 }))?;
        let before = self.set.queries.len();
        let passages = encoder.embed(&self.set.passages, |done| {
            observer.observe(Event::StageAdvanced { done: (before + done) as u64 })
        })?;
        let rankings = self.search(encoder.bert.device(), &queries, &passages)?;
        let per_query = self.measure(&rankings);
        let (in_batch, loss) = self.within_batches(&queries, &passages)?;
        let quality = self.quality(&queries, &passages)?;
        observer.observe(Event::StageFinished);
        let mean = |measures: &[Measures]| Measures::mean(measures).ok_or(EvaluationError::NoQueries);
        Ok(Evaluation {
            measured: Measured { retrieval: mean(&per_query)?, in_batch: mean(&in_batch)?, loss },
            per_query,
            rankings,
            quality,
            seconds: started.elapsed().as_secs_f64(),
            queries,
            passages,
        })
    }

    /// The best passages for each query among all.
    fn search(
        &self,
        device: &Device,
        queries: &Embeddings,
        passages: &Embeddings,
    ) -> Result<Rankings, EvaluationError> {
        let mut search = Search::new(device, queries, Measures::DEPTH)?;
        search.add(&self.set.passage_ids, passages)?;
        Ok(search.finish())
    }

    /// Each query's measures.
    fn measure(&self, rankings: &Rankings) -> Vec<Measures> {
        let of_query = |(ranking, relevant): (&Vec<(u32, f32)>, &Vec<usize>)| {
            let is_relevant = |(passage, _): &(u32, f32)| relevant.binary_search(&(*passage as usize)).is_ok();
            let ranked: Vec<Grade> = ranking.iter().map(|passage| Grade::from(is_relevant(passage))).collect();
            Measures::of(&ranked, &vec![1; relevant.len()], 1)
        };
        rankings.of_query.iter().zip(&self.set.relevant).map(of_query).collect()
    }

    /// The published ablation's measures: each query against the first positives of its batch. The last batch takes
    /// in what does not fill one of its own.
    fn within_batches(
        &self,
        queries: &Embeddings,
        passages: &Embeddings,
    ) -> Result<(Vec<Measures>, f64), EvaluationError> {
        let width = queries.width;
        let first = |query: usize| self.set.relevant[query][0];
        let vector =
            |embeddings: &'_ Embeddings, row: usize| embeddings.vectors[row * width..(row + 1) * width].to_vec();
        let count = self.set.queries.len();
        let batches = (count / self.batch_size).max(1);
        let (mut measures, mut losses) = (Vec::with_capacity(count), 0.0);
        for batch in 0..batches {
            let begin = batch * self.batch_size;
            let end = if batch + 1 == batches { count } else { begin + self.batch_size };
            let positives: Vec<Vec<f32>> = (begin..end).map(|query| vector(passages, first(query))).collect();
            let mut similarities = Vec::with_capacity((end - begin).pow(2));
            let mut excluded = Vec::with_capacity(similarities.capacity());
            for query in begin..end {
                let own = vector(queries, query);
                similarities.extend(positives.iter().map(|other| dot(&own, other)));
                let relevant = &self.set.relevant[query];
                excluded.extend((begin..end).map(|other| other != query && relevant.contains(&first(other))));
            }
            for (row, (similarities, excluded)) in
                similarities.chunks(end - begin).zip(excluded.chunks(end - begin)).enumerate()
            {
                losses += info_nce(similarities, excluded, row, self.temperature);
            }
            let targets: Vec<usize> = (0..end - begin).collect();
            measures.extend(in_batch(Batch { similarities: &similarities, targets: &targets, excluded: &excluded })?);
        }
        Ok((measures, losses / count as f64))
    }

    fn quality(&self, queries: &Embeddings, passages: &Embeddings) -> Result<EmbeddingQuality, QualityError> {
        let relevant = self.set.relevant.iter().enumerate();
        let positives: Vec<(usize, usize)> =
            relevant.flat_map(|(query, passages)| passages.iter().map(move |&passage| (query, passage))).collect();
        let norms = [queries.norms.as_slice(), &passages.norms].concat();
        let embeddings = embedding_quality::Embeddings {
            queries: &queries.vectors,
            passages: &passages.vectors,
            width: queries.width,
            positives: &positives,
            norms: &norms,
        };
        EmbeddingQuality::of(embeddings, Sampling::default())
    }
}

/// `ln Σ exp(s/τ) − s_target/τ` over the passages that are contrasted.
fn info_nce(similarities: &[f32], excluded: &[bool], target: usize, temperature: f64) -> f64 {
    let logit = |similarity: f32| f64::from(similarity) / temperature;
    let contrasted = || similarities.iter().zip(excluded).filter(|(_, excluded)| !**excluded).map(|(&s, _)| logit(s));
    let most = contrasted().fold(f64::NEG_INFINITY, f64::max);
    most + contrasted().map(|x| (x - most).exp()).sum::<f64>().ln() - logit(similarities[target])
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metrics::rank;
    use crate::random::SplitMix64;

    /// Random directions, on a grid so coarse that many similarities are equal.
    fn embeddings(rows: usize, seed: u64) -> Embeddings {
        let mut random = SplitMix64::keyed(&[seed]);
        let vectors = (0..rows * 3).map(|_| random.below(3) as f32 - 1.0).collect();
        Embeddings { vectors, norms: vec![1.0; rows], width: 3 }
    }

    fn evaluator(queries: usize, passages: usize) -> Evaluator {
        let ids = |letter: char, count: usize| (0..count).map(|index| format!("{letter}{index}")).collect();
        let relevant = (0..queries).map(|query| vec![query * 7 % passages, passages - 1]).collect();
        let set = EvaluationSet {
            query_ids: ids('q', queries),
            passage_ids: ids('p', passages),
            queries: vec![vec![1]; queries],
            passages: vec![vec![1]; passages],
            relevant,
            ..Default::default()
        };
        Evaluator { set, batch_size: 4, temperature: 0.05 }
    }

    #[test]
    fn the_measures_are_those_of_sorting_everything() {
        let evaluator = evaluator(10, 1500);
        let (queries, passages) = (embeddings(10, 1), embeddings(1500, 2));
        let found = evaluator.measure(&evaluator.search(&Device::cpu(), &queries, &passages).unwrap());
        for (query, found) in found.iter().enumerate() {
            let own = &queries.vectors[query * 3..query * 3 + 3];
            let scores = passages.vectors.chunks(3).map(|passage| dot(own, passage));
            let mut run: Vec<(&str, f32)> = evaluator.set.passage_ids.iter().map(String::as_str).zip(scores).collect();
            rank(&mut run);
            let relevant = |id: &str| evaluator.set.relevant[query].iter().any(|p| evaluator.set.passage_ids[*p] == id);
            let ranked: Vec<Grade> = run[..Measures::DEPTH].iter().map(|(id, _)| Grade::from(relevant(id))).collect();
            assert_eq!(*found, Measures::of(&ranked, &[1, 1], 1), "query {query}");
        }
    }

    #[test]
    fn within_a_batch_a_query_meets_only_the_batchs_positives() {
        // Ten queries in batches of four: the last takes in the two that are left. Each is nearest to its positive.
        let mut evaluator = evaluator(10, 10);
        evaluator.set.relevant = (0..10).map(|query| vec![query]).collect();
        let one_hot = |row: usize| (0..10).map(move |column| f32::from(u8::from(row == column)));
        let vectors: Vec<f32> = (0..10).flat_map(one_hot).collect();
        let embeddings = Embeddings { vectors, norms: vec![1.0; 10], width: 10 };
        let (measures, loss) = evaluator.within_batches(&embeddings, &embeddings).unwrap();
        // A batch of 4 and one of 6: each query's own passage at 1, the others at 0.
        let expected = (4.0 * (1.0 + 3.0 * (-20f64).exp()).ln() + 6.0 * (1.0 + 5.0 * (-20f64).exp()).ln()) / 10.0;
        assert!((loss - expected).abs() < 1e-12, "{loss} {expected}");
        assert_eq!(measures.len(), 10);
        assert!(measures.iter().all(|measures| measures.recall_at_1 == 1.0));
    }
}
