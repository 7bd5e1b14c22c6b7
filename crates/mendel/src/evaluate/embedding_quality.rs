//! What the embedding space looks like: how near positives are, how far the rest, and whether it has collapsed.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;

/// The percentiles that a [`Distribution`] gives.
pub const PERCENTILES: [u8; 7] = [1, 5, 25, 50, 75, 95, 99];

/// The bins of a [`Distribution`]'s histogram, all of the same width, over [-1, 1].
pub const HISTOGRAM_BINS: usize = 50;

/// Embeddings of queries and passages, and which belong together. They need not be normalised.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings<'a> {
    /// `[Q, H]`, row-major.
    pub queries: &'a [f32],
    /// `[P, H]`, row-major.
    pub passages: &'a [f32],
    /// `H`.
    pub width: usize,
    /// Every query with each of its positives, as (row of `queries`, row of `passages`).
    pub positives: &'a [(usize, usize)],
    /// The Euclidean norms that the vectors had before they were normalised, queries' and passages' alike; may be
    /// empty if they are not known.
    pub norms: &'a [f32],
}

/// What random choices a measurement makes.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// At most so many pairs are looked at for the random pairs, and for each side's uniformity.
    pub pairs: usize,
    /// Decides which.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { pairs: 100_000, seed: 0 }
    }
}

/// The quality of an embedding space. All but the norms is of vectors scaled to length 1; computed in f64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingQuality {
    /// Cosine of each query with each of its positives.
    pub positive_pairs: Distribution,
    /// Cosine of queries with passages that are not their positives, chosen at random; absent if there are none.
    pub random_pairs: Option<Distribution>,
    /// Mean of ‖q − p‖² over the positive pairs, from 0 (together) to 4 (Wang & Isola 2020, arXiv 2005.10242, α = 2).
    pub alignment: f64,
    /// Log of the mean of exp(−2‖x − y‖²) over pairs of queries, and over pairs of passages, averaged: from 0 (all in
    /// one point) down to about −4 (spread over the sphere) (the same paper, t = 2). Absent if a side has less than two.
    pub uniformity: Option<f64>,
    /// The variance of one dimension, averaged over dimensions and over the two sides: at most 1 / H, near 0 if the
    /// space has collapsed.
    pub variance: f64,
    /// The lengths of the vectors before they were normalised; absent if not supplied.
    pub norms: Option<Norms>,
}

/// How values between -1 and 1 are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many values.
    pub count: usize,
    /// Values in each of [`HISTOGRAM_BINS`] bins; a bin holds its lower edge, the last one both.
    pub histogram: Vec<u64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (of the values themselves: the divisor is `count`).
    pub std: f64,
    /// Each of [`PERCENTILES`], interpolated between the two nearest values.
    pub percentiles: BTreeMap<u8, f64>,
}

/// How long vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Norms {
    /// Mean length.
    pub mean: f64,
    /// Standard deviation of the lengths (divisor: their number).
    pub std: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
}

/// Embeddings whose quality cannot be measured.
#[derive(Debug, thiserror::Error, PartialEq)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum QualityError {
    /// A matrix is not made of rows of the width given.
    #[error("{values} values of {side} are not rows of {width}")]
    Ragged { side: &'static str, values: usize, width: usize },
    /// A positive pair names a row that does not exist.
    #[error("a positive pair is of query {query} and passage {passage}, but there are {queries} and {passages}")]
    OutOfRange { query: usize, passage: usize, queries: usize, passages: usize },
    /// There is nothing to measure.
    #[error("there is no positive pair; give the queries' positives among the passages")]
    NoPositives,
    /// A value is infinite or not a number.
    #[error("the embedding in row {row} of {side} has a value that is not finite: the training has diverged")]
    NotFinite { side: &'static str, row: usize },
    /// A norm is infinite or not a number.
    #[error("norm {index} is not finite: the training has diverged")]
    NormNotFinite { index: usize },
}

impl EmbeddingQuality {
    /// Measures embeddings. The result depends on nothing but the arguments.
    ///
    /// # Errors
    /// When the parts do not fit together, there is no positive pair, or a value is not finite.
    pub fn of(embeddings: Embeddings<'_>, sampling: Sampling) -> Result<EmbeddingQuality, QualityError> {
        let queries = Side::new("queries", embeddings.queries, embeddings.width)?;
        let passages = Side::new("passages", embeddings.passages, embeddings.width)?;
        check_pairs(embeddings.positives, queries.len(), passages.len())?;
        let cosine = |&(query, passage): &(usize, usize)| queries.cosine(query, &passages, passage);
        let distance = |&(query, passage): &(usize, usize)| queries.squared_distance(query, &passages, passage);
        let pairs = embeddings.positives;
        let mut random = SplitMix64::keyed(&[sampling.seed]);
        let unrelated = random_pairs(queries.len(), passages.len(), pairs, sampling.pairs, &mut random);
        Ok(EmbeddingQuality {
            positive_pairs: Distribution::of(pairs.par_iter().map(cosine).collect())
                .ok_or(QualityError::NoPositives)?,
            random_pairs: Distribution::of(unrelated.par_iter().map(cosine).collect()),
            alignment: in_order_sum(pairs, distance) / pairs.len() as f64,
            uniformity: queries
                .uniformity(sampling.pairs, &mut random)
                .zip(passages.uniformity(sampling.pairs, &mut random))
                .map(|(of_queries, of_passages)| (of_queries + of_passages) / 2.0),
            variance: (queries.variance() + passages.variance()) / 2.0,
            norms: Norms::of(embeddings.norms)?,
        })
    }
}

fn check_pairs(pairs: &[(usize, usize)], queries: usize, passages: usize) -> Result<(), QualityError> {
    if pairs.is_empty() {
        return Err(QualityError::NoPositives);
    }
    match pairs.iter().find(|&&(query, passage)| query >= queries || passage >= passages) {
        Some(&(query, passage)) => Err(QualityError::OutOfRange { query, passage, queries, passages }),
        None => Ok(()),
    }
}

/// At most `limit` pairs of a query and a passage that is not its positive: all of them if they are few, else drawn
/// with replacement.
fn random_pairs(
    queries: usize,
    passages: usize,
    positives: &[(usize, usize)],
    limit: usize,
    random: &mut SplitMix64,
) -> Vec<(usize, usize)> {
    let positives: HashSet<(usize, usize)> = positives.iter().copied().collect();
    let all = queries.saturating_mul(passages);
    // Where a draw would miss at least every other time, all pairs are few enough to be listed: no more than twice the
    // positives.
    if all <= limit || all / 2 <= positives.len() {
        let each = (0..queries).flat_map(|query| (0..passages).map(move |passage| (query, passage)));
        let mut pairs: Vec<_> = each.filter(|pair| !positives.contains(pair)).collect();
        for place in 0..limit.min(pairs.len()) {
            let other = place + random.below(pairs.len() - place);
            pairs.swap(place, other);
        }
        pairs.truncate(limit);
        return pairs;
    }
    let draws = std::iter::repeat_with(|| (random.below(queries), random.below(passages)));
    draws.filter(|pair| !positives.contains(pair)).take(limit).collect()
}

/// The vectors of one side, seen as scaled to length 1.
struct Side<'a> {
    values: &'a [f32],
    width: usize,
    /// 1 over each vector's length; 0 for a vector of zeros, which so stays one.
    scales: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(side: &'static str, values: &'a [f32], width: usize) -> Result<Side<'a>, QualityError> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(QualityError::Ragged { side, values: values.len(), width });
        }
        let square = |&x: &f32| f64::from(x) * f64::from(x);
        let length = |row: &[f32]| row.iter().map(square).sum::<f64>().sqrt();
        let lengths: Vec<f64> = values.par_chunks_exact(width).map(length).collect();
        // Squares of finite f32 cannot overflow f64, so the length tells.
        if let Some(row) = lengths.iter().position(|length| !length.is_finite()) {
            return Err(QualityError::NotFinite { side, row });
        }
        let scales = lengths.into_iter().map(|length| if length == 0.0 { 0.0 } else { 1.0 / length }).collect();
        Ok(Side { values, width, scales })
    }

    fn len(&self) -> usize {
        self.scales.len()
    }

    fn unit(&self, row: usize) -> impl Iterator<Item = f64> {
        let scale = self.scales[row];
        self.values[row * self.width..][..self.width].iter().map(move |&x| f64::from(x) * scale)
    }

    fn cosine(&self, row: usize, other: &Side<'_>, other_row: usize) -> f64 {
        self.unit(row).zip(other.unit(other_row)).map(|(x, y)| x * y).sum()
    }

    fn squared_distance(&self, row: usize, other: &Side<'_>, other_row: usize) -> f64 {
        self.unit(row).zip(other.unit(other_row)).map(|(x, y)| (x - y) * (x - y)).sum()
    }

    /// Over all pairs of different rows if they are at most `limit`, else over so many drawn with replacement.
    fn uniformity(&self, limit: usize, random: &mut SplitMix64) -> Option<f64> {
        let rows = self.len();
        let pairs: Vec<(usize, usize)> = if rows < 2 || limit == 0 {
            return None;
        } else if rows.saturating_mul(rows - 1) / 2 <= limit {
            (0..rows).flat_map(|row| (0..row).map(move |other| (row, other))).collect()
        } else {
            let mut draw = || {
                let row = random.below(rows);
                // The rows after `row` move down by one, so that none is paired with itself.
                let other = random.below(rows - 1);
                (row, other + usize::from(other >= row))
            };
            (0..limit).map(|_| draw()).collect()
        };
        let potential = |&(row, other): &(usize, usize)| (-2.0 * self.squared_distance(row, self, other)).exp();
        Some((in_order_sum(&pairs, potential) / pairs.len() as f64).ln())
    }

    /// The mean over dimensions of the variance over rows.
    fn variance(&self) -> f64 {
        const ROWS_AT_A_TIME: usize = 1024;
        // Sums of each dimension and of its square, over blocks of rows of a fixed size and then over the blocks in
        // order, so that the number of threads does not change the result.
        let of_block = |block: usize| {
            let mut sums = vec![(0.0, 0.0); self.width];
            for row in block * ROWS_AT_A_TIME..self.len().min((block + 1) * ROWS_AT_A_TIME) {
                for ((sum, squares), x) in sums.iter_mut().zip(self.unit(row)) {
                    *sum += x;
                    *squares += x * x;
                }
            }
            sums
        };
        let blocks: Vec<Vec<(f64, f64)>> =
            (0..self.len().div_ceil(ROWS_AT_A_TIME)).into_par_iter().map(of_block).collect();
        let rows = self.len() as f64;
        let of_dimension = |dimension: usize| {
            let add = |(sum, squares): (f64, f64), block: &Vec<(f64, f64)>| {
                (sum + block[dimension].0, squares + block[dimension].1)
            };
            let (sum, squares) = blocks.iter().fold((0.0, 0.0), add);
            let mean = sum / rows;
            (squares / rows - mean * mean).max(0.0)
        };
        (0..self.width).map(of_dimension).sum::<f64>() / self.width as f64
    }
}

/// The sum of a function over pairs: evaluated in parallel, added in order, so that threads do not change the result.
fn in_order_sum(pairs: &[(usize, usize)], of: impl Fn(&(usize, usize)) -> f64 + Sync + Send) -> f64 {
    pairs.par_iter().map(of).collect::<Vec<f64>>().iter().sum()
}

impl Distribution {
    /// How these values are spread; `None` of none.
    fn of(mut values: Vec<f64>) -> Option<Distribution> {
        if values.is_empty() {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        let mut histogram = vec![0; HISTOGRAM_BINS];
        for value in &values {
            // Rounding can carry a cosine a little beyond 1, and a negative number becomes bin 0.
            let bin = ((value + 1.0) / 2.0 * HISTOGRAM_BINS as f64) as usize;
            histogram[bin.min(HISTOGRAM_BINS - 1)] += 1;
        }
        let (mean, std) = mean_and_std(&values);
        let percentiles = PERCENTILES.into_iter().map(|percent| (percent, percentile(&values, percent))).collect();
        Some(Distribution { count: values.len(), histogram, mean, std, percentiles })
    }
}

/// A percentile of sorted values, of which there is at least one.
fn percentile(sorted: &[f64], percent: u8) -> f64 {
    let place = f64::from(percent) / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

impl Norms {
    fn of(norms: &[f32]) -> Result<Option<Norms>, QualityError> {
        if let Some(index) = norms.iter().position(|norm| !norm.is_finite()) {
            return Err(QualityError::NormNotFinite { index });
        }
        if norms.is_empty() {
            return Ok(None);
        }
        let norms: Vec<f64> = norms.iter().map(|&norm| f64::from(norm)).collect();
        let (mean, std) = mean_and_std(&norms);
        let min = norms.iter().copied().fold(f64::INFINITY, f64::min);
        let max = norms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(Some(Norms { mean, std, min, max }))
    }
}

/// Of at least one value.
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quality(queries: &[f32], passages: &[f32], positives: &[(usize, usize)]) -> EmbeddingQuality {
        let embeddings = Embeddings { queries, passages, width: 2, positives, norms: &[] };
        EmbeddingQuality::of(embeddings, Sampling::default()).unwrap()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-7, "{a} is not {b}");
    }

    #[test]
    fn a_small_space_has_the_values_computed_by_hand() {
        // Queries east and (not normalised) north; passages east, north, west.
        let found = quality(&[1.0, 0.0, 0.0, 3.0], &[1.0, 0.0, 0.0, 1.0, -1.0, 0.0], &[(0, 0), (1, 2)]);
        assert_eq!(found.positive_pairs.count, 2);
        close(found.positive_pairs.mean, 0.5);
        close(found.positive_pairs.std, 0.5);
        close(found.positive_pairs.percentiles[&25], 0.25);
        assert_eq!((found.positive_pairs.histogram[25], found.positive_pairs.histogram[49]), (1, 1));
        // (0,1): 0, (0,2): -1, (1,0): 0, (1,1): 1
        let random = found.random_pairs.unwrap();
        assert_eq!((random.count, random.histogram[0], random.histogram[25], random.histogram[49]), (4, 1, 2, 1));
        close(random.mean, 0.0);
        close(found.alignment, 1.0);
        let of_passages = (2.0 * (-4.0f64).exp() + (-8.0f64).exp()) / 3.0;
        close(found.uniformity.unwrap(), (-4.0 + of_passages.ln()) / 2.0);
        close(found.variance, (0.25 + (2.0 / 3.0 + 2.0 / 9.0) / 2.0) / 2.0);
    }

    #[test]
    fn a_collapsed_space_shows() {
        let found = quality(&[0.6, 0.8].repeat(20), &[0.6, 0.8].repeat(20), &[(0, 0), (3, 4)]);
        close(found.alignment, 0.0);
        close(found.uniformity.unwrap(), 0.0);
        close(found.variance, 0.0);
        close(found.random_pairs.unwrap().mean, 1.0);
    }

    #[test]
    fn what_cannot_be_measured_is_absent() {
        let found = quality(&[1.0, 0.0], &[0.0, 0.0], &[(0, 0)]);
        assert_eq!((found.random_pairs, found.uniformity, found.norms), (None, None, None));
        close(found.positive_pairs.mean, 0.0);
    }

    #[test]
    fn norms_are_of_the_vectors_as_they_were() {
        let norms = Norms::of(&[1.0, 3.0, 5.0, 3.0]).unwrap().unwrap();
        assert_eq!(norms, Norms { mean: 3.0, std: 2f64.sqrt(), min: 1.0, max: 5.0 });
        assert_eq!(Norms::of(&[1.0, f32::NAN]), Err(QualityError::NormNotFinite { index: 1 }));
    }

    #[test]
    fn embeddings_that_do_not_fit_together_are_refused() {
        let good = Embeddings { queries: &[1.0; 4], passages: &[1.0; 6], width: 2, positives: &[(1, 2)], norms: &[] };
        let refused = |embeddings| EmbeddingQuality::of(embeddings, Sampling::default()).unwrap_err();
        let ragged = QualityError::Ragged { side: "queries", values: 4, width: 3 };
        assert_eq!(refused(Embeddings { width: 3, ..good }), ragged);
        assert_eq!(refused(Embeddings { positives: &[], ..good }), QualityError::NoPositives);
        let beyond = QualityError::OutOfRange { query: 1, passage: 3, queries: 2, passages: 3 };
        assert_eq!(refused(Embeddings { positives: &[(1, 3)], ..good }), beyond);
        let diverged = [1.0, 1.0, 1.0, 1.0, f32::INFINITY, 1.0];
        let not_finite = QualityError::NotFinite { side: "passages", row: 2 };
        assert_eq!(refused(Embeddings { passages: &diverged, ..good }), not_finite);
    }

    #[test]
    fn the_json_has_a_key_per_percentile_and_reads_back() {
        let found = quality(&[1.0, 0.0, 0.0, 3.0], &[1.0, 0.0, 0.0, 1.0], &[(0, 0)]);
        let json = serde_json::to_string(&found).unwrap();
        assert!(json.contains(r#""percentiles":{"1":"#), "{json}");
        assert_eq!(serde_json::from_str::<EmbeddingQuality>(&json).unwrap(), found);
    }

    proptest! {
        #[test]
        fn random_pairs_are_in_range_and_never_positives(
            queries in 1usize..12,
            passages in 1usize..12,
            limit in 0usize..60,
            marks in prop::collection::vec(any::<bool>(), 144),
            seed: u64,
        ) {
            let all = (0..queries).flat_map(|query| (0..passages).map(move |passage| (query, passage)));
            let positives: Vec<_> = all.zip(&marks).filter(|(_, mark)| **mark).map(|(pair, _)| pair).collect();
            let draw = || random_pairs(queries, passages, &positives, limit, &mut SplitMix64::keyed(&[seed]));
            let pairs = draw();
            prop_assert!(pairs.iter().all(|&(q, p)| q < queries && p < passages && !positives.contains(&(q, p))));
            prop_assert!(pairs.len() <= limit);
            prop_assert_eq!(pairs.is_empty(), limit == 0 || positives.len() == queries * passages);
            prop_assert_eq!(draw(), pairs);
        }

        #[test]
        fn sampling_estimates_what_all_pairs_give(values in prop::collection::vec(-1f32..1.0, 120), seed: u64) {
            let side = Side::new("queries", &values, 2).unwrap();
            let exact = side.uniformity(usize::MAX, &mut SplitMix64::keyed(&[seed])).unwrap();
            let sampled = side.uniformity(1700, &mut SplitMix64::keyed(&[seed])).unwrap();
            prop_assert!((exact - sampled).abs() < 0.25, "{} {}", exact, sampled);
        }
    }
}
