//! Exact search: of all passages the best few for each query, a block of passages at a time.

use mendel_engine::{Device, Tape, Tensor};
use rayon::prelude::*;

use super::metrics::by_rank;
use crate::dual_encoder::Embeddings;

/// Similarities that are held at once.
const SCORES_AT_ONCE: usize = 1 << 24;

/// The best passages of each query so far, as trec_eval orders them. Neither texts nor vectors of passages are kept.
#[derive(Debug)]
pub struct Search {
    device: Device,
    /// `[Q, H]`, row by row.
    queries: Vec<f32>,
    /// The passages' ids.
    ids: Vec<String>,
    /// For each query places in `ids` and scores.
    best: Vec<Vec<(u32, f32)>>,
    depth: usize,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Rankings {
    /// The passages' ids.
    pub ids: Vec<String>,
    /// For each query places in `ids` and scores, best first.
    pub of_query: Vec<Vec<(u32, f32)>>,
}

impl Search {
    /// For queries, before any passage; `depth` passages are kept for each.
    pub fn new(device: &Device, queries: &Embeddings, depth: usize) -> mendel_engine::Result<Self> {
        let (count, vectors) = (queries.norms.len(), queries.vectors.clone());
        Ok(Search { device: device.clone(), queries: vectors, ids: Vec::new(), best: vec![Vec::new(); count], depth })
    }

    /// Compares every query with more passages.
    pub fn add(&mut self, ids: &[String], passages: &Embeddings) -> mendel_engine::Result<()> {
        let (first, count, width) = (self.ids.len() as u32, ids.len(), passages.width);
        self.ids.extend_from_slice(ids);
        if count == 0 {
            return Ok(());
        }
        let tape = Tape::inference();
        let block = tape.constant(Tensor::from_slice(&self.device, &[count, width], &passages.vectors)?);
        let rows = (SCORES_AT_ONCE / count).max(1);
        let Search { device, queries, ids, best, depth } = self;
        for (queries, best) in queries.chunks(rows * width).zip(best.chunks_mut(rows)) {
            let queries = tape.constant(Tensor::from_slice(device, &[best.len(), width], queries)?);
            let scores = queries.matmul_transposed(&block)?;
            let floors: Vec<f32> = best.iter().map(|best| floor_of(best, *depth)).collect();
            let found = scores.value().largest(*depth, &floors)?;
            found.into_par_iter().zip(best).for_each(|(found, best)| offer(best, found, first, ids, *depth));
        }
        device.check()
    }

    /// The best of all passages that were added.
    pub fn finish(self) -> Rankings {
        let Search { ids, mut best, depth, .. } = self;
        best.par_iter_mut().for_each(|best| {
            cut(best, &ids, depth);
            Rankings::sort(best, &ids);
        });
        Rankings { ids, of_query: best }
    }
}

fn order(ids: &[String], a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    by_rank((&ids[a.0 as usize], a.1), (&ids[b.0 as usize], b.1))
}

/// Takes of the passages from `first` on those that may be among the `depth` best. Equal scores are decided by the ids; what
/// is not a number ranks last but is ranked.
fn offer(best: &mut Vec<(u32, f32)>, found: Vec<(u32, f32)>, first: u32, ids: &[String], depth: usize) {
    best.extend(found.into_iter().map(|(place, score)| (first + place, score)));
    cut(best, ids, depth);
}

/// Keeps the `depth` best, in no order.
fn cut(best: &mut Vec<(u32, f32)>, ids: &[String], depth: usize) {
    if best.len() > depth {
        best.select_nth_unstable_by(depth - 1, |a, b| order(ids, a, b));
        best.truncate(depth);
    }
}

/// What is below it is not among the best: the least score, once there are `depth`; what is not a number is less than any.
fn floor_of(best: &[(u32, f32)], depth: usize) -> f32 {
    if best.len() < depth {
        return f32::NEG_INFINITY;
    }
    let scores = best.iter().map(|(_, score)| if score.is_nan() { f32::NEG_INFINITY } else { *score });
    scores.fold(f32::INFINITY, f32::min)
}

impl Rankings {
    /// Puts places in `ids` and scores in trec_eval's order.
    pub fn sort(ranking: &mut [(u32, f32)], ids: &[String]) {
        ranking.sort_unstable_by(|a, b| order(ids, a, b));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evaluate::metrics::rank;
    use crate::random::SplitMix64;

    /// Random directions, on a grid so coarse that many similarities are equal.
    fn embeddings(rows: usize, seed: u64) -> Embeddings {
        let mut random = SplitMix64::keyed(&[seed]);
        let vectors = (0..rows * 3).map(|_| random.below(3) as f32 - 1.0).collect();
        Embeddings { vectors, norms: vec![1.0; rows], width: 3 }
    }

    proptest! {
        #[test]
        fn searching_in_blocks_finds_what_sorting_everything_finds(
            blocks in prop::collection::vec(0usize..60, 1..6), depth in 1usize..40, seed: u64,
        ) {
            let queries = embeddings(4, seed);
            let mut search = Search::new(&Device::cpu(), &queries, depth).unwrap();
            let (mut ids, mut vectors) = (Vec::new(), Vec::new());
            for (block, &rows) in blocks.iter().enumerate() {
                let passages = embeddings(rows, seed ^ (block as u64 + 1));
                let of_block: Vec<String> = (0..rows).map(|row| format!("p{}", ids.len() + row)).collect();
                search.add(&of_block, &passages).unwrap();
                ids.extend(of_block);
                vectors.extend(passages.vectors);
            }
            let found = search.finish();
            for (query, found_of) in queries.vectors.chunks(3).zip(&found.of_query) {
                let dot = |passage: &[f32]| query.iter().zip(passage).map(|(x, y)| x * y).sum::<f32>();
                let mut run: Vec<(&str, f32)> = ids.iter().map(String::as_str).zip(vectors.chunks(3).map(dot)).collect();
                rank(&mut run);
                run.truncate(depth);
                let found: Vec<(&str, f32)> = found_of.iter().map(|(place, score)| (found.ids[*place as usize].as_str(), *score)).collect();
                prop_assert_eq!(found, run);
            }
        }
    }

    #[test]
    fn a_similarity_that_is_not_a_number_ranks_last() {
        let mut best = Vec::new();
        let ids: Vec<String> = (0..4).map(|i| format!("p{i}")).collect();
        offer(&mut best, vec![(0, f32::NAN), (1, 0.5), (2, f32::NAN), (3, -2.0)], 0, &ids, 2);
        best.sort_unstable_by(|a, b| order(&ids, a, b));
        assert_eq!(best, [(1, 0.5), (3, -2.0)]);
    }
}
