//! The ancestry against a plain double-precision reading of docs/genetic-attention.md, and against probability theory.

mod reference;

use proptest::prelude::*;

use super::*;
use crate::ops::gene_fitness::GeneFitness;
use crate::random::{Purpose, Site};
use crate::testing::{assert_close, device, random, sequences, with_threads};
use crate::{Sequences, Tape, Tensor};

/// The defaults of the definition's section 3.
const DEFAULTS: Evolve = Evolve {
    head_dim: 8,
    num_generations: 5,
    mutation_rate: 0.1,
    crossover_rate: 0.8,
    selection_pressure: 1.0,
    population: Population::Infinite,
};

fn drawn(size: usize, seed: u64) -> Population {
    Population::Sampled { size, seed, step: 1, layer: 2 }
}

/// The ancestry of one sequence, number 10.
fn ancestry(values: &Tensor, options: Evolve) -> Tensor {
    evolve(values, &sequences(&[values.rows()]), options).unwrap().ancestry.shares()
}

fn flat(rows: &[Vec<f64>]) -> Vec<f32> {
    rows.iter().flatten().map(|&x| x as f32).collect()
}

/// `M` of one sequence and head by a kernel's ancestry.
fn gene_means(values: &Tensor, ancestry: &Tensor) -> Vec<f64> {
    let shares: Vec<Vec<f64>> =
        ancestry.data().chunks(values.columns()).map(|row| row.iter().map(|&a| f64::from(a)).collect()).collect();
    reference::gene_means(&shares, &reference::expression(values))
}

/// Every share is a number of at least 0, and each column's sum is 1 within `bound`.
#[track_caller]
fn assert_shares(ancestry: &Tensor, sequences: &Sequences, bound: f64) {
    let columns = ancestry.columns();
    assert!(ancestry.data().iter().all(|&share| (0.0..=1.0 + 1e-5).contains(&share)), "{ancestry:?}");
    for range in sequences.ranges() {
        for g in 0..columns {
            let sum: f64 = range.clone().map(|i| f64::from(ancestry.data()[i * columns + g])).sum();
            assert!((sum - 1.0).abs() <= bound, "column {g} of tokens {range:?} sums to {sum}");
        }
    }
}

/// γ of one sequence by the kernel.
fn fitness(values: &Tensor, head_dim: usize, ancestry: Option<Tensor>) -> Vec<f32> {
    let options = GeneFitness { head_dim, causal: false, ancestry: ancestry.map(Ancestry::Shares) };
    let values = Tape::inference().constant(values.clone());
    values.gene_fitness(&sequences(&[values.shape()[0]]), options).unwrap().value().to_vec()
}

fn scaled(mut values: Tensor, factor: f32) -> Tensor {
    values.data_mut().iter_mut().for_each(|x| *x *= factor);
    values
}

proptest! {
    #![proptest_config(crate::testing::cases())]

    /// The bound: single precision errs by some 1e-7 in a fitness, β times that in its power, once a generation.
    #[test]
    fn the_mean_field_is_that_of_the_definition_in_double_precision(
        tokens in 1..40_usize, d in 1..40_usize, generations in 0..8_usize,
        mutation_rate in 0.0..1.0_f32, crossover_rate in 0.0..1.0_f32, selection_pressure in 0.0..8.0_f32,
        spread in 0.1..4.0_f32, seed in 0..1000_u64,
    ) {
        let values = scaled(random(&[tokens, d], seed), spread);
        let options = Evolve {
            head_dim: d, num_generations: generations, mutation_rate, crossover_rate, selection_pressure, ..DEFAULTS
        };
        let expected = reference::mean_field(&reference::expression(&values), &options);
        assert_close(ancestry(&values, options).data(), &flat(&expected), 5e-6);
    }

    #[test]
    fn columns_of_the_ancestry_sum_to_one(
        lengths in prop::collection::vec(1..30_usize, 1..4), (heads, d) in (1..3_usize, 1..20_usize),
        generations in 0..6_usize, size in prop_oneof![1..80_usize, 250..260_usize],
        mutation_rate in prop::sample::select(vec![0.0, 0.1, 1.0_f32]),
        crossover_rate in prop::sample::select(vec![0.0, 0.8, 1.0_f32]),
        selection_pressure in prop::sample::select(vec![0.0, 0.5, 1.0, 8.0, 100.0_f32]),
        spread in prop::sample::select(vec![0.0, 1.0, 80.0_f32]),
        seed in 0..1000_u64,
    ) {
        let sequences = sequences(&lengths);
        let values = scaled(random(&[sequences.tokens(), heads * d], seed), spread);
        for population in [Population::Infinite, drawn(size, seed)] {
            let options = Evolve {
                head_dim: d, num_generations: generations, mutation_rate, crossover_rate, selection_pressure, population,
            };
            assert_shares(&evolve(&values, &sequences, options).unwrap().ancestry.shares(), &sequences, 1e-5);
        }
    }

    #[test]
    fn the_fitness_that_evolution_gives_is_that_of_the_values_with_its_ancestry(
        lengths in prop::collection::vec(1..20_usize, 1..4), heads in 1..3_usize, d in 1..40_usize,
        generations in 1..5_usize, size in 1..40_usize, seed in 0..1000_u64,
    ) {
        let sequences = sequences(&lengths);
        let values = random(&[sequences.tokens(), heads * d], seed);
        for population in [Population::Infinite, drawn(size, seed)] {
            let options = Evolve { head_dim: d, num_generations: generations, population, ..DEFAULTS };
            let Evolved { ancestry, fitness: [fitness, inverse] } = evolve(&values, &sequences, options).unwrap();
            let options = GeneFitness { head_dim: d, causal: false, ancestry: Some(ancestry) };
            let expected = Tape::inference().constant(values.clone()).gene_fitness(&sequences, options).unwrap();
            assert_close(fitness.data(), expected.value().data(), 1e-6);
            for (gamma, u) in fitness.data().chunks(d).zip(inverse.data().chunks(d)) {
                let sum: f32 = u.iter().sum();
                let scaled: Vec<f32> = u.iter().map(|u| u / sum).collect();
                assert_close(gamma, &scaled, 1e-6);
            }
        }
    }

    #[test]
    fn permuting_the_tokens_permutes_the_mean_field_and_leaves_the_fitness(
        (tokens, d) in (1..30_usize, 1..20_usize), selection_pressure in 0.0..8.0_f32, by in 0..30_usize, seed in 0..1000_u64,
    ) {
        let options = Evolve { head_dim: d, selection_pressure, ..DEFAULTS };
        let values = random(&[tokens, d], seed);
        // A rotation and a reversal generate enough orders.
        let order: Vec<usize> = (0..tokens).map(|i| (i + by) % tokens).rev().collect();
        let permute = |x: &Tensor| {
            let rows: Vec<f32> = order.iter().flat_map(|&i| x.data()[i * d..(i + 1) * d].to_vec()).collect();
            Tensor::from_slice(&device(), &[tokens, d], &rows).unwrap()
        };
        let permuted = permute(&values);
        let (here, there) = (ancestry(&values, options), ancestry(&permuted, options));
        assert_close(there.data(), permute(&here).data(), 1e-5);
        assert_close(&fitness(&permuted, d, Some(there)), &fitness(&values, d, Some(here)), 2e-6);
        assert_close(&fitness(&permuted, d, None), &fitness(&values, d, None), 1e-6);
    }

    #[test]
    fn the_mean_field_under_mutation_alone_is_the_fixed_point(
        (tokens, d) in (1..30_usize, 1..20_usize), generations in 1..6_usize,
        crossover_rate in 0.0..1.0_f32, selection_pressure in 0.0..20.0_f32, seed in 0..1000_u64,
    ) {
        let options = Evolve {
            head_dim: d, num_generations: generations, mutation_rate: 1.0, crossover_rate, selection_pressure, ..DEFAULTS
        };
        let values = scaled(random(&[tokens, d], seed), 3.0);
        let evolved = ancestry(&values, options);
        prop_assert!(evolved.data().iter().all(|&share| share == 1.0 / tokens as f32));
        assert_close(&fitness(&values, d, Some(evolved)), &fitness(&values, d, None), 1e-6);
        let none = ancestry(&values, Evolve { num_generations: 0, mutation_rate: 0.0, ..options });
        prop_assert!(none.data().iter().all(|&share| share == 1.0 / tokens as f32));
    }
}

/// All that is summed is rounded to whole numbers, in single precision by the kernel and in double here: a child's parent changes
/// only where what is rounded lies between two of them. Seeds are fixed, and a change that met one would show itself as one
/// organism's difference.
#[test]
fn the_sampled_evolution_is_that_of_the_definition_with_the_same_draws() {
    let cases =
        [(7, 32, 8, 5), (32, 32, 16, 5), (50, 20, 7, 4), (1, 5, 3, 2), (3, 64, 33, 3), (12, 1, 4, 3), (7, 300, 5, 3)];
    for (case, (tokens, size, d, generations)) in cases.into_iter().enumerate() {
        for (mutation_rate, crossover_rate, selection_pressure) in
            [(0.1, 0.8, 1.0), (0.0, 0.0, 3.0), (1.0, 1.0, 1.0), (0.3, 1.0, 0.0), (0.0, 1.0, 8.0)]
        {
            let (heads, lengths) = (2, [tokens, 4]);
            let sequences = sequences(&lengths);
            let values = random(&[tokens + 4, heads * d], case as u64);
            let options = Evolve {
                head_dim: d,
                num_generations: generations,
                mutation_rate,
                crossover_rate,
                selection_pressure,
                population: drawn(size, 77 + case as u64),
            };
            let got = evolve(&values, &sequences, options).unwrap().ancestry.shares();
            for (s, range) in sequences.ranges().enumerate() {
                for head in 0..heads {
                    let own = |x: &Tensor| {
                        let row = |i: usize| x.data()[i * heads * d + head * d..][..d].to_vec();
                        let rows: Vec<f32> = range.clone().flat_map(row).collect();
                        Tensor::from_slice(&device(), &[range.len(), d], &rows).unwrap()
                    };
                    let p = reference::expression(&own(&values));
                    let expected = reference::sampled(&p, &options, head as u32, 10 + s as u32);
                    assert_close(own(&got).data(), &flat(&expected), 1e-6);
                }
            }
        }
    }
}

#[test]
fn founders_are_a_systematic_sample() {
    for (tokens, size) in [(5, 5), (1, 9), (7, 32), (32, 7), (13, 1), (512, 512)] {
        for seed in 0..20 {
            let options = Evolve { num_generations: 0, population: drawn(size, seed), ..DEFAULTS };
            let shares = ancestry(&random(&[tokens, 8], 1), options);
            for share in shares.data() {
                // Each token has ⌊N/T⌋ or ⌈N/T⌉ of the organisms.
                let (count, even) = (share * size as f32, size as f32 / tokens as f32);
                assert!((count - even).abs() < 1.0 - 1e-4 || count == even, "{count} organisms, {size} of {tokens}");
            }
        }
    }
}

/// Root mean square error of the sampled gene means over seeds.
fn error_of_means(values: &Tensor, options: Evolve, size: usize, seeds: u64) -> f64 {
    let exact = gene_means(values, &ancestry(values, options));
    let squares = (0..seeds).map(|seed| {
        let sampled = gene_means(values, &ancestry(values, Evolve { population: drawn(size, seed), ..options }));
        sampled.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / exact.len() as f64
    });
    (squares.sum::<f64>() / seeds as f64).sqrt()
}

#[test]
fn without_crossover_and_mutation_sampled_means_approach_the_mean_field_as_one_over_the_root_of_the_size() {
    for (tokens, seed) in [(16, 1), (8, 2)] {
        let options = Evolve { crossover_rate: 0.0, mutation_rate: 0.0, ..DEFAULTS };
        let values = random(&[tokens, 8], seed);
        let [few, many] = [256, 4096].map(|size| error_of_means(&values, options, size, 300));
        eprintln!("T {tokens}: rms error {few:.5} of 256 organisms, {many:.5} of 4096, ratio {:.3}", few / many);
        // √16 = 4; 300 seeds leave about 4 % of chance, and 256 organisms about 1 % of higher order.
        assert!((3.4..4.6).contains(&(few / many)), "{few} {many}");
    }
}

#[test]
fn at_the_defaults_sampled_means_of_65536_organisms_are_within_15_thousandths_of_the_mean_field() {
    for (tokens, d, seed) in [(12, 32, 1), (128, 64, 2), (40, 32, 3), (128, 32, 4)] {
        let values = random(&[tokens, d], seed);
        let options = Evolve { head_dim: d, ..DEFAULTS };
        let exact = gene_means(&values, &ancestry(&values, options));
        let sampled = gene_means(&values, &ancestry(&values, Evolve { population: drawn(65_536, seed), ..options }));
        let error = exact.iter().zip(&sampled).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        eprintln!("T {tokens}, d {d}: gene means of 65536 organisms within {error:.5} of the mean field");
        assert!(error < 0.015, "T {tokens}, d {d}: {error}");
    }
}

/// Counts of a binomial distribution stay within 5 standard deviations but for one in 10⁶; the seeds are fixed.
#[track_caller]
fn assert_binomial(share: f64, expected: f64, trials: usize) {
    let deviation = (expected * (1.0 - expected) / trials as f64).sqrt();
    assert!((share - expected).abs() <= 5.0 * deviation + 1e-6, "{share}, expected {expected} ± {deviation}");
}

#[test]
fn parents_are_selected_in_proportion_to_the_power_of_their_fitness() {
    let (tokens, size) = (8, 65_536);
    for (selection_pressure, seed) in [(0.0, 1), (0.5, 2), (1.0, 3), (3.0, 4), (8.0, 5)] {
        let values = scaled(random(&[tokens, 8], seed), 2.0);
        let options = Evolve {
            num_generations: 1,
            mutation_rate: 0.0,
            crossover_rate: 0.0,
            selection_pressure,
            population: drawn(size, seed),
            ..DEFAULTS
        };
        let children = ancestry(&values, options);
        let p = reference::expression(&values);
        // The founders are each token equally often.
        let gamma = reference::gene_fitness(&reference::gene_means(&vec![vec![1.0 / tokens as f64; 8]; tokens], &p));
        let power = |genes: &Vec<f64>| reference::organism_fitness(genes, &gamma).powf(f64::from(selection_pressure));
        let total: f64 = p.iter().map(power).sum();
        for (genes, share) in p.iter().zip(children.data().chunks(8)) {
            assert!(share.iter().all(|&x| x == share[0]), "a clone has all its parent's genes: {share:?}");
            assert_binomial(f64::from(share[0]), power(genes) / total, size);
        }
    }
}

#[test]
fn mutation_alone_gives_every_token_the_same_chance() {
    for tokens in [2, 7, 31] {
        let size = 20_000;
        let options = Evolve { num_generations: 1, mutation_rate: 1.0, population: drawn(size, 5), ..DEFAULTS };
        let children = ancestry(&random(&[tokens, 8], 1), options);
        for share in children.data() {
            assert_binomial(f64::from(*share), 1.0 / tokens as f64, size);
        }
    }
}

#[test]
fn genes_mutate_at_the_mutation_rate() {
    let (tokens, size, fittest) = (11, 20_000, 4);
    let mut values = Tensor::full(&device(), &[tokens, 8], -3.0);
    values.data_mut()[fittest * 8..][..8].fill(3.0);
    for mutation_rate in [0.0, 0.01, 0.1, 0.5, 0.9] {
        // So great a pressure that every parent is the fittest token: what does not descend from it has mutated.
        let options = Evolve {
            num_generations: 1,
            mutation_rate,
            selection_pressure: 100.0,
            population: drawn(size, 6),
            ..DEFAULTS
        };
        for (token, shares) in ancestry(&values, options).data().chunks(8).enumerate() {
            let replaced = f64::from(mutation_rate) / tokens as f64;
            let expected = if token == fittest { 1.0 - f64::from(mutation_rate) + replaced } else { replaced };
            shares.iter().for_each(|&share| assert_binomial(f64::from(share), expected, size));
        }
    }
}

#[test]
fn a_crossing_child_takes_half_of_its_genes_from_each_parent() {
    // Two organisms of two tokens, neutral: a child's parents are the same (all its genes of one token) or different
    // (half of them), so token 0 has 0, ¼, ½, ¾ or all of both children's genes, as often as heads in four tosses.
    let (d, runs) = (4096, 1600);
    let values = Tensor::zeros(&device(), &[2, d]);
    let mut counts = [0; 5];
    for seed in 0..runs {
        let options = Evolve {
            head_dim: d,
            num_generations: 1,
            mutation_rate: 0.0,
            crossover_rate: 1.0,
            population: drawn(2, seed as u64),
            ..DEFAULTS
        };
        let share = ancestry(&values, options).data()[..d].iter().sum::<f32>() / d as f32;
        let quarters = (4.0 * share).round();
        // The standard deviation of the mean of two children's 4096 fair coins is 0.0055.
        assert!((share - quarters / 4.0).abs() < 0.028, "{share}");
        counts[quarters as usize] += 1;
    }
    for (count, sixteenths) in counts.into_iter().zip([1.0, 4.0, 6.0, 4.0, 1.0]) {
        assert_binomial(f64::from(count) / f64::from(runs), sixteenths / 16.0, runs as usize);
    }
}

#[test]
fn genes_stay_linked_but_for_half_of_the_crossover_rate() {
    // The correlation of two genes' descent after one neutral generation is 1 − c/2, as in the mean field's `r`.
    let (d, runs) = (32, 4000);
    let values = Tensor::zeros(&device(), &[2, d]);
    for crossover_rate in [0.0, 0.5, 0.8, 1.0] {
        let (mut of_sums, mut of_genes) = (0.0, 0.0);
        for seed in 0..runs {
            let options = Evolve {
                head_dim: d,
                num_generations: 1,
                mutation_rate: 0.0,
                crossover_rate,
                population: drawn(2, seed),
                ..DEFAULTS
            };
            let shares = ancestry(&values, options);
            let centred = || shares.data()[..d].iter().map(|&share| f64::from(share) - 0.5);
            of_sums += centred().sum::<f64>().powi(2);
            of_genes += centred().map(|x| x * x).sum::<f64>();
        }
        let correlation = (of_sums / of_genes - 1.0) / (d - 1) as f64;
        assert!(
            (correlation - (1.0 - f64::from(crossover_rate) / 2.0)).abs() < 0.03,
            "{crossover_rate}: {correlation}"
        );
    }
}

#[test]
fn the_ancestry_has_the_same_bits_whatever_the_threads_and_the_batch() {
    let lengths = [9, 1, 40, 3, 17];
    let ids = [4, 9, 2, 100, 7];
    let (heads, d) = (3, 16);
    let total: usize = lengths.iter().sum();
    let values = random(&[total, heads * d], 1);
    for population in [Population::Infinite, drawn(32, 8), drawn(300, 8)] {
        let options = Evolve { head_dim: d, population, ..DEFAULTS };
        let batch = Sequences::new(&device(), &lengths, &ids).unwrap();
        let run = || evolve(&values, &batch, options).unwrap().ancestry.shares().to_vec();
        let together = with_threads(1, run);
        assert!(together == with_threads(2, run) && together == with_threads(5, run));
        for (s, range) in batch.ranges().enumerate() {
            let rows = range.start * heads * d..range.end * heads * d;
            let own = Tensor::from_slice(&device(), &[lengths[s], heads * d], &values.data()[rows.clone()]).unwrap();
            let alone = Sequences::new(&device(), &[lengths[s]], &[ids[s]]).unwrap();
            assert!(evolve(&own, &alone, options).unwrap().ancestry.shares().data() == &together[rows]);
        }
    }
}

#[test]
fn seed_step_layer_sequence_and_head_each_draw_their_own_population() {
    // Every head and sequence has the same values.
    let values = Tensor::zeros(&device(), &[20, 16]);
    let of = |seed, step, layer, id| {
        let options = Evolve { population: Population::Sampled { size: 16, seed, step, layer }, ..DEFAULTS };
        let sequences = Sequences::new(&device(), &[20], &[id]).unwrap();
        evolve(&values, &sequences, options).unwrap().ancestry.shares().to_vec()
    };
    let first = of(1, 1, 1, 1);
    assert_eq!(first, of(1, 1, 1, 1));
    for other in [of(2, 1, 1, 1), of(1 << 32, 1, 1, 1), of(1, 2, 1, 1), of(1, 1, 2, 1), of(1, 1, 1, 2)] {
        assert_ne!(first, other);
    }
    let head = |begin: usize| first.chunks(16).flat_map(|row| row[begin..begin + 8].to_vec()).collect::<Vec<_>>();
    assert_ne!(head(0), head(8));
}

/// Ancestry and fitness are numbers, shares sum to 1 and γ to 1.
#[track_caller]
fn assert_sound(values: &Tensor, options: Evolve) {
    let evolved = ancestry(values, options);
    let what = format!("T {}, {options:?}", values.rows());
    assert!(evolved.data().iter().all(|share| share.is_finite()), "{what}");
    assert_shares(&evolved, &sequences(&[values.rows()]), 1e-4);
    let gamma = fitness(values, options.head_dim, Some(evolved));
    assert!(gamma.iter().all(|&x| x > 0.0 && (x < 1.0 || options.head_dim == 1)), "{what}: {gamma:?}");
    assert!((gamma.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{what}");
}

#[test]
fn no_pressure_and_no_value_makes_anything_but_numbers() {
    for (tokens, d) in [(1, 1), (2, 3), (5, 64), (512, 32)] {
        for extreme in [1.0, 80.0, 100.0, 1e4, 1e30] {
            // Random signs, so that each column has both extremes; and a column and a whole matrix of one sign.
            let mixed = scaled(random(&[tokens, d], 3), 1e3);
            let mut clamped = mixed;
            clamped.data_mut().iter_mut().for_each(|x| *x = x.clamp(-extreme, extreme));
            let lowest = Tensor::full(&device(), &[tokens, d], -extreme);
            let highest = Tensor::full(&device(), &[tokens, d], extreme);
            for values in [clamped, lowest, highest] {
                for selection_pressure in [0.0, 0.5, 1.0, 8.0, 100.0, 1e6] {
                    for rate in [0.0, 0.5, 1.0] {
                        for population in [Population::Infinite, drawn(16, 1)] {
                            let options = Evolve {
                                head_dim: d,
                                mutation_rate: rate,
                                crossover_rate: 1.0 - rate,
                                selection_pressure,
                                population,
                                ..DEFAULTS
                            };
                            assert_sound(&values, options);
                            assert_sound(&values, Evolve { crossover_rate: rate, ..options });
                        }
                    }
                }
            }
        }
    }
}

/// Pressure first drives a token out that would be the fittest once genes are unlinked: its share is then too small for
/// a number, and the others' fitness must be compared with each other, not with that of the dead.
#[test]
fn a_token_that_has_died_out_does_not_take_the_others_along() {
    let (tokens, d) = (10, 3);
    let mut values = Tensor::full(&device(), &[tokens, d], -20.0);
    for (token, row) in values.data_mut().chunks_mut(d).enumerate() {
        if token == 0 { row[1..].fill(20.0) } else { row[0] = 20.0 }
    }
    for selection_pressure in [50.0, 100.0, 200.0, 1000.0] {
        let options = Evolve {
            head_dim: d,
            num_generations: 8,
            mutation_rate: 0.0,
            crossover_rate: 1.0,
            selection_pressure,
            ..DEFAULTS
        };
        assert_sound(&values, options);
    }
}

#[test]
fn a_single_token_keeps_all_of_the_ancestry() {
    for population in [Population::Infinite, drawn(1, 1), drawn(32, 1)] {
        for (mutation_rate, crossover_rate) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.1, 0.8)] {
            let options = Evolve { mutation_rate, crossover_rate, population, ..DEFAULTS };
            assert!(ancestry(&random(&[1, 8], 1), options).data().iter().all(|&share| (share - 1.0).abs() < 1e-6));
        }
    }
}

#[test]
fn more_tokens_than_a_gene_can_name_are_refused_of_a_sampled_population() {
    let (few, many) = (Tensor::zeros(&device(), &[MOST_TOKENS, 1]), Tensor::zeros(&device(), &[MOST_TOKENS + 1, 1]));
    let options = Evolve { head_dim: 1, num_generations: 2, mutation_rate: 1.0, population: drawn(50, 1), ..DEFAULTS };
    let shares = ancestry(&few, options);
    assert!(shares.data()[MOST_TOKENS / 2..].iter().any(|&share| share > 0.0));
    assert_shares(&shares, &sequences(&[MOST_TOKENS]), 1e-5);
    let error = evolve(&many, &sequences(&[MOST_TOKENS + 1]), options).unwrap_err();
    assert_eq!(error.to_string(), "evolve: a sequence of 65537 tokens, of which a population can name 65536");
    assert!(
        evolve(&many, &sequences(&[MOST_TOKENS + 1]), Evolve { population: Population::Infinite, ..options }).is_ok()
    );
}

#[test]
fn a_value_that_is_not_a_number_is_met() {
    let mut values = random(&[7, 16], 1);
    values.data_mut()[..20].fill(f32::NAN);
    let options = Evolve { head_dim: 16, population: drawn(32, 1), ..DEFAULTS };
    assert_shares(&ancestry(&values, options), &sequences(&[7]), 1e-5);
}

#[test]
fn a_population_of_no_organisms_is_refused() {
    let error = evolve(&random(&[3, 8], 1), &sequences(&[3]), Evolve { population: drawn(0, 1), ..DEFAULTS });
    assert_eq!(error.unwrap_err().to_string(), "evolve: a population of no organisms");
}
