//! Paired statistics of a comparison: intervals and tests of the mean of differences, one difference a query. They are
//! in the units of the differences. The random numbers come from constant keys, so the same differences always give the
//! same result, on any number of threads.

use std::array;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::random::SplitMix64;

/// How many bootstrap samples or sign patterns are drawn.
pub const RESAMPLES: usize = 10_000;

/// Up to this many differences every sign pattern is tried: `2^12` are fewer than `RESAMPLES`.
const EXACT_UP_TO: usize = 12;

const BOOTSTRAP_KEY: u64 = 1;
const SIGNS_KEY: u64 = 2;

/// A 95% confidence interval, in the units of what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The 95% interval of the mean of `differences` by the percentile bootstrap (Efron and Tibshirani 1993, An
/// Introduction to the Bootstrap, chapter 13), from [`RESAMPLES`] samples. Percentiles are interpolated linearly. It is
/// from 0 to 0 when there are no differences.
pub fn bootstrap_interval(differences: &[f64]) -> Interval {
    if differences.is_empty() {
        return Interval { low: 0.0, high: 0.0 };
    }
    let mut means: Vec<f64> = (0..RESAMPLES as u64)
        .into_par_iter()
        .map(|sample| resampled_mean(differences, &mut SplitMix64::keyed(&[BOOTSTRAP_KEY, sample])))
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    Interval { low: percentile(&means, 0.025), high: percentile(&means, 0.975) }
}

/// The mean of as many of the differences as there are, drawn with replacement.
fn resampled_mean(differences: &[f64], random: &mut SplitMix64) -> f64 {
    let count = differences.len();
    (0..count).map(|_| differences[random.below(count)]).sum::<f64>() / count as f64
}

/// The value below which this fraction of `sorted` lies, interpolated linearly.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let position = fraction * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// The two-sided p-value of the randomisation test that the mean of `differences` is 0 (Smucker, Allan and Carterette
/// 2007, A Comparison of Statistical Significance Tests for Information Retrieval Evaluation): how often random signs
/// bring the mean as far from 0. Up to 12 differences that are not 0, every sign pattern is tried and p is exact; with
/// more, [`RESAMPLES`] patterns are drawn and the observed one is added to them. It is 1 when all differences are 0.
pub fn randomisation_p(differences: &[f64]) -> f64 {
    let nonzero: Vec<f64> = differences.iter().copied().filter(|&difference| difference != 0.0).collect();
    // Sums that differ only by rounding are ties, and a tie counts.
    let tolerance = 1e-12 * nonzero.iter().map(|difference| difference.abs()).sum::<f64>();
    let threshold = nonzero.iter().sum::<f64>().abs() - tolerance;
    let is_hit = |sum: f64| sum.abs() >= threshold;
    if nonzero.len() <= EXACT_UP_TO {
        let patterns = 1 << nonzero.len();
        let hits = (0..patterns).filter(|&signs| is_hit(signed_sum(&nonzero, signs))).count();
        return hits as f64 / patterns as f64;
    }
    let table = sums_of_four(&nonzero);
    let hits = (0..RESAMPLES as u64)
        .into_par_iter()
        .filter(|&pattern| is_hit(randomly_signed_sum(&table, &mut SplitMix64::keyed(&[SIGNS_KEY, pattern]))))
        .count();
    (1 + hits) as f64 / (1 + RESAMPLES) as f64
}

/// The sum of the differences after those whose bit is set in `signs` change sign.
fn signed_sum(differences: &[f64], signs: usize) -> f64 {
    differences.iter().enumerate().map(|(bit, &x)| if signs >> bit & 1 == 1 { -x } else { x }).sum()
}

/// For every four differences, their sum under each of the 16 sign patterns: four times fewer additions per pattern.
fn sums_of_four(differences: &[f64]) -> Vec<[f64; 16]> {
    differences.chunks(4).map(|four| array::from_fn(|signs| signed_sum(four, signs))).collect()
}

/// The sum of all differences under random signs, from their [`sums_of_four`]; 64 random bits serve 16 of these.
fn randomly_signed_sum(table: &[[f64; 16]], random: &mut SplitMix64) -> f64 {
    let of_chunk = |chunk: &[[f64; 16]]| {
        let bits = random.next();
        chunk.iter().enumerate().map(|(four, sums)| sums[(bits >> (4 * four) & 15) as usize]).sum::<f64>()
    };
    table.chunks(16).map(of_chunk).sum()
}

/// The mean difference over queries and seeds that are both samples, as [`mixed`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    /// The mean of all differences.
    pub mean: f64,
    /// The 95% interval of the mean, for other queries and other seeds.
    pub interval: Interval,
    /// The two-sided p-value of the test that the mean is 0.
    pub p: f64,
    /// Satterthwaite's degrees of freedom of the variance of the mean.
    pub degrees_of_freedom: f64,
    /// The standard deviation (by n - 1) over seeds of each seed's mean difference.
    pub seed_deviation: f64,
}

/// Analyses differences `[seed][query]` as a mean plus an effect of the query, an effect of the seed and a rest, all
/// three random (Clark 1973, The Language-as-Fixed-Effect Fallacy). The result speaks of other queries and other seeds,
/// which a test over queries alone does not. None with fewer than two seeds or two queries, or when a seed lacks
/// queries.
///
/// In simulations without a difference p is below 0.05 in at most about 6% with 5 seeds or more, but in up to 8% with 3
/// seeds and 11% with 2: so few tell too little of how much seeds vary.
pub fn mixed(by_seed: &[Vec<f64>]) -> Option<Mixed> {
    let (seeds, queries) = (by_seed.len(), by_seed.first()?.len());
    if seeds < 2 || queries < 2 || by_seed.iter().any(|row| row.len() != queries) {
        return None;
    }
    let seed_means: Vec<f64> = by_seed.iter().map(|row| mean(row)).collect();
    let query_means: Vec<f64> =
        (0..queries).map(|query| by_seed.iter().map(|row| row[query]).sum::<f64>() / seeds as f64).collect();
    let mean = mean(&seed_means);
    let (variance, degrees_of_freedom) = variance_of_mean(by_seed, &seed_means, &query_means, mean);
    // Means of equal numbers are equal but for rounding.
    let largest = by_seed.iter().flatten().fold(0.0, |largest: f64, difference| largest.max(difference.abs()));
    let error = if variance.sqrt() > 1e-14 * largest { variance.sqrt() } else { 0.0 };
    let (p, margin) = if error > 0.0 {
        let t = StudentsT::new(0.0, 1.0, degrees_of_freedom).ok()?;
        (2.0 * t.sf((mean / error).abs()), t.inverse_cdf(0.975) * error)
    } else {
        (if mean == 0.0 { 1.0 } else { 0.0 }, 0.0)
    };
    let interval = Interval { low: mean - margin, high: mean + margin };
    let seed_deviation = (squares_around(&seed_means, mean) / (seeds - 1) as f64).sqrt();
    Some(Mixed { mean, interval, p, degrees_of_freedom, seed_deviation })
}

/// The estimated variance of the mean of all differences, and its degrees of freedom (Satterthwaite 1946, An
/// Approximate Distribution of Estimates of Variance Components).
///
/// The variance is `(MSQ + MSS - MSE) / (queries * seeds)` by the mean squares of queries, seeds and the rest. A mean
/// square below MSE estimates a negative variance of its effect. Such an effect is taken to be 0, and its mean square
/// to be MSE: the variance is then larger than the formula's and never negative. Its few degrees of freedom stay: that
/// seeds happened to agree is not to be taken for knowledge that they do.
fn variance_of_mean(by_seed: &[Vec<f64>], seed_means: &[f64], query_means: &[f64], mean: f64) -> (f64, f64) {
    let (seeds, queries) = (seed_means.len() as f64, query_means.len() as f64);
    let rest = |seed_mean: f64, row: &[f64]| {
        row.iter().zip(query_means).map(|(x, query_mean)| (x - seed_mean - query_mean + mean).powi(2)).sum::<f64>()
    };
    let rests: f64 = by_seed.iter().zip(seed_means).map(|(row, &seed_mean)| rest(seed_mean, row)).sum();
    let (of_queries, of_seeds) = (queries - 1.0, seeds - 1.0);
    let of_rest = of_queries * of_seeds;
    let msq = seeds * squares_around(query_means, mean) / of_queries;
    let mss = queries * squares_around(seed_means, mean) / of_seeds;
    let mse = rests / of_rest;
    let (msq, mss) = (msq.max(mse), mss.max(mse));
    let sum = msq + mss - mse;
    let degrees_of_freedom = sum * sum / (msq * msq / of_queries + mss * mss / of_seeds + mse * mse / of_rest);
    (sum / (queries * seeds), degrees_of_freedom)
}

/// The mean of numbers that are not empty.
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// The sum of squared distances from `centre`.
fn squares_around(numbers: &[f64], centre: f64) -> f64 {
    numbers.iter().map(|x| (x - centre).powi(2)).sum()
}

/// The p-values of several tests, adjusted so that the chance of any false discovery among them is bounded (Holm 1979,
/// A Simple Sequentially Rejective Multiple Test Procedure). They come in the order given, each at most 1.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * p[index]).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        paired: Vec<(Vec<f64>, f64, Interval, Interval)>,
        mixed: Vec<(Vec<Vec<f64>>, Mixed)>,
        holm: Vec<(Vec<f64>, Vec<f64>)>,
    }

    fn fixture() -> Fixture {
        serde_json::from_str(include_str!("../../tests/fixtures/statistics.json")).unwrap()
    }

    fn assert_close(ours: f64, theirs: f64, tolerance: f64) {
        assert!((ours - theirs).abs() <= tolerance, "{ours} against {theirs}");
    }

    /// About normal, with mean 0 and variance 1: the sum of 12 uniform numbers less 6.
    fn normal(random: &mut SplitMix64) -> f64 {
        (0..12).map(|_| random.next() as f64 / 2f64.powi(64)).sum::<f64>() - 6.0
    }

    fn normals(random: &mut SplitMix64, count: usize, mean: f64) -> Vec<f64> {
        (0..count).map(|_| mean + normal(random)).collect()
    }

    /// Differences `[seed][query]` of mean 0; the effects of queries and the rest have a standard deviation of 1.
    fn crossed(random: &mut SplitMix64, seeds: usize, queries: usize, seed_effect: f64) -> Vec<Vec<f64>> {
        let of_queries = normals(random, queries, 0.0);
        let mut row = || {
            let of_seed = seed_effect * normal(random);
            of_queries.iter().map(|of_query| of_query + of_seed + normal(random)).collect()
        };
        (0..seeds).map(|_| row()).collect()
    }

    /// In how many of the repetitions, each with random numbers of its own, something holds, in percent.
    fn percent(repetitions: u64, holds: impl Fn(&mut SplitMix64) -> bool) -> f64 {
        let held = (0..repetitions).filter(|&repetition| holds(&mut SplitMix64::keyed(&[repetition]))).count();
        100.0 * held as f64 / repetitions as f64
    }

    #[test]
    fn p_and_interval_are_those_of_scipy() {
        for (differences, p, low, high) in fixture().paired {
            let exact = differences.iter().filter(|&&x| x != 0.0).count() <= EXACT_UP_TO;
            let monte_carlo = 4.0 * (p * (1.0 - p) / RESAMPLES as f64).sqrt() + 1e-3;
            assert_close(randomisation_p(&differences), p, if exact { 1e-12 } else { monte_carlo });
            let ours = bootstrap_interval(&differences);
            for (end, range) in [(ours.low, low), (ours.high, high)] {
                assert!(range.low - 1e-12 <= end && end <= range.high + 1e-12, "{end} outside {range:?}");
            }
        }
    }

    #[test]
    fn mixed_is_the_analysis_of_variance_in_numpy() {
        for (by_seed, result) in fixture().mixed {
            let ours = mixed(&by_seed).unwrap();
            assert_close(ours.mean, result.mean, 1e-12);
            assert_close(ours.interval.low, result.interval.low, 1e-8);
            assert_close(ours.interval.high, result.interval.high, 1e-8);
            assert_close(ours.p, result.p, 1e-10);
            assert_close(ours.degrees_of_freedom, result.degrees_of_freedom, 1e-8);
            assert_close(ours.seed_deviation, result.seed_deviation, 1e-12);
        }
    }

    #[test]
    fn holm_is_that_of_statsmodels_and_keeps_the_order() {
        for (p, theirs) in fixture().holm {
            let ours = holm(&p);
            ours.iter().zip(&theirs).for_each(|(&ours, &theirs)| assert_close(ours, theirs, 1e-12));
            let mut pairs: Vec<(f64, f64)> = p.into_iter().zip(ours).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(pairs.is_sorted_by(|a, b| a.1 <= b.1) && pairs.iter().all(|&(p, adjusted)| adjusted >= p));
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn an_arm_differs_from_itself_no_more_often_than_chance() {
        let found = percent(400, |random| randomisation_p(&normals(random, 40, 0.0)) < 0.05);
        assert!((2.0..=8.0).contains(&found), "{found}%");
        for seed_effect in [0.0, 0.2, 1.0] {
            let found = percent(2000, |random| mixed(&crossed(random, 5, 50, seed_effect)).unwrap().p < 0.05);
            assert!(found <= 7.0, "{found}% at {seed_effect}");
        }
    }

    #[test]
    fn a_planted_difference_is_found() {
        assert!(percent(400, |random| randomisation_p(&normals(random, 50, 0.6)) < 0.05) > 95.0);
        let planted = |random: &mut SplitMix64| {
            let rows = crossed(random, 5, 50, 0.2);
            rows.into_iter().map(|row| row.into_iter().map(|x| x + 1.0).collect()).collect::<Vec<_>>()
        };
        assert!(percent(2000, |random| mixed(&planted(random)).unwrap().p < 0.05) > 95.0);
    }

    #[test]
    fn about_95_percent_of_the_intervals_hold_the_mean() {
        let holds = |interval: Interval, mean: f64| interval.low <= mean && mean <= interval.high;
        let held = percent(400, |random| holds(bootstrap_interval(&normals(random, 50, 0.3)), 0.3));
        assert!((92.0..=98.0).contains(&held), "{held}%");
        let held = percent(2000, |random| holds(mixed(&crossed(random, 5, 50, 1.0)).unwrap().interval, 0.0));
        assert!((92.0..=98.0).contains(&held), "{held}%");
    }

    #[test]
    fn what_only_some_seeds_show_is_significant_over_queries_but_not_over_seeds() {
        let random = &mut SplitMix64::keyed(&[7]);
        let by_seed: Vec<Vec<f64>> = [3.0, -1.0, 1.5].map(|of_seed| normals(random, 100, of_seed)).to_vec();
        let of_queries: Vec<f64> = (0..100).map(|query| by_seed.iter().map(|row| row[query]).sum()).collect();
        assert!(randomisation_p(&of_queries) < 0.001);
        let mixed = mixed(&by_seed).unwrap();
        assert!(mixed.p > 0.2 && mixed.interval.low < 0.0 && mixed.seed_deviation > 1.0);
    }

    #[test]
    fn swapping_the_arms_mirrors_the_interval_and_neither_that_nor_zeros_change_p() {
        let random = &mut SplitMix64::keyed(&[8]);
        for count in [1, 2, 7, 12, 13, 100] {
            let differences = normals(random, count, 0.3);
            let swapped: Vec<f64> = differences.iter().map(|x| -x).collect();
            assert_eq!(randomisation_p(&differences), randomisation_p(&swapped));
            assert_eq!(randomisation_p(&differences), randomisation_p(&[&differences[..], &[0.0; 30]].concat()));
            let (one, other) = (bootstrap_interval(&differences), bootstrap_interval(&swapped));
            assert_close(one.low, -other.high, 1e-12);
            assert_close(one.high, -other.low, 1e-12);
        }
    }

    #[test]
    fn differences_that_do_not_vary_give_a_point() {
        assert_eq!((bootstrap_interval(&[]), randomisation_p(&[])), (Interval { low: 0.0, high: 0.0 }, 1.0));
        assert_eq!(randomisation_p(&[0.0; 50]), 1.0);
        // Only the two patterns with all signs alike bring the mean as far.
        assert_eq!(randomisation_p(&[0.1; 10]), 2.0 / 1024.0);
        assert_eq!(bootstrap_interval(&[0.25; 20]), Interval { low: 0.25, high: 0.25 });
        let still = mixed(&[vec![0.0; 3], vec![0.0; 3]]).unwrap();
        assert_eq!((still.p, still.interval), (1.0, Interval { low: 0.0, high: 0.0 }));
        let moved = mixed(&[vec![0.1; 3], vec![0.1; 3], vec![0.1; 3]]).unwrap();
        assert_eq!((moved.p, moved.interval), (0.0, Interval { low: moved.mean, high: moved.mean }));
    }

    #[test]
    fn mixed_needs_two_seeds_and_two_queries_and_equal_rows() {
        for by_seed in [vec![], vec![vec![1.0, 2.0]], vec![vec![1.0], vec![2.0]], vec![vec![1.0, 2.0], vec![1.0]]] {
            assert_eq!(mixed(&by_seed), None);
        }
    }
}
