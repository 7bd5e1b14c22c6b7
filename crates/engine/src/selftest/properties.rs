//! What no single operation shows: the optimizer, evolution, and the properties of docs/genetic-attention.md, section 8.

use super::{as_activation, distance, normal};
use crate::device::Device;
use crate::error::Result;
use crate::ops::attention::Attention;
use crate::ops::evolve::{Evolve, Population, evolve};
use crate::ops::gene_fitness::GeneFitness;
use crate::ops::residual_norm::{End, Norm};
use crate::optim::{AdamW, Moments};
use crate::parameters::Parameters;
use crate::sequences::Sequences;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// How far a device is off, and how far it may be.
type Found = (f64, f64);

/// What is checked of a device.
type Property = fn(&Device) -> Result<Found>;

/// Every property by name.
pub const ALL: &[(&str, Property)] = &[
    ("AdamW with clipping, three updates", updates_are_the_cpus),
    (
        "linear map and feed-forward block to their norms, with and without a gradient",
        blocks_are_the_same_without_a_gradient,
    ),
    ("largest entries of rows, share unlike the CPU's", largest_entries_are_the_cpus),
    ("evolution: share of ancestry unlike the CPU's", ancestry_is_drawn_as_on_the_cpu),
    ("evolution of the infinite population", the_infinite_population_is_the_cpus),
    ("evolution: shares sum to 1, rates 0 and 1, sizes 1 and up", rates_and_sizes_at_their_ends_work),
    ("gene fitness sums to 1", fitness_sums_to_one),
    ("equal gene means give 1/d exactly", equal_means_have_equal_fitness),
    ("biases' gradients of scores far below 0 that are no numbers", gradients_of_low_scores_are_numbers),
    ("attention of a text alone and in a batch", a_text_is_the_same_alone_and_in_a_batch),
    ("gene means of 4096 organisms are the infinite population's", a_large_population_comes_near_the_infinite_one),
];

const GENES: usize = 32;

fn sequences(device: &Device, lengths: &[usize]) -> Result<Sequences> {
    let ids: Vec<u32> = (10..).take(lengths.len()).collect();
    Sequences::new(device, lengths, &ids)
}

fn values(device: &Device, tokens: usize, columns: usize) -> Result<Tensor> {
    let numbers: Vec<f32> = normal(tokens * columns, 5).into_iter().map(super::to_bf16).collect();
    as_activation(&Tensor::from_slice(device, &[tokens, columns], &numbers)?)
}

fn blocks_are_the_same_without_a_gradient(device: &Device) -> Result<Found> {
    let shapes = [vec![96, 64], vec![96], vec![64, 96], vec![64], vec![64, 64], vec![64], vec![64], vec![64]];
    let parameters = shapes
        .iter()
        .zip(0..)
        .map(|(shape, seed)| Tensor::from_slice(device, shape, &normal(shape.iter().product(), seed)));
    let (x, parameters) = (values(device, 70, 64)?, parameters.collect::<Result<Vec<_>>>()?);
    let sequences = &sequences(device, &[70])?;
    let run = |tape: &Tape| -> Result<Vec<f32>> {
        let p: Vec<Var> = parameters.iter().map(|parameter| tape.leaf(parameter.clone())).collect();
        let norm = Norm { gain: &p[6], bias: &p[7], epsilon: 1e-12 };
        let end = |residual| End { residual, sequences, dropout: None, norm };
        let x = tape.constant(x.clone());
        let x = x.linear_norm((&p[4], Some(&p[5])), end(&x))?;
        let fed = x.feed_forward_norm([(&p[0], Some(&p[1])), (&p[2], Some(&p[3]))], end(&x))?;
        Ok(fed.value().to_vec())
    };
    Ok((distance(&run(&Tape::inference())?, &run(&Tape::recording())?), 0.0))
}

/// Rows with few ties, with many at the last entry, of one number, and with what is not a number.
fn largest_entries_are_the_cpus(device: &Device) -> Result<Found> {
    const COLUMNS: usize = 3000;
    let mut numbers: Vec<f32> = normal(4 * COLUMNS, 3);
    numbers[COLUMNS..2 * COLUMNS].iter_mut().for_each(|x| *x = x.round());
    numbers[2 * COLUMNS..3 * COLUMNS].fill(-0.5);
    numbers[3 * COLUMNS..].iter_mut().step_by(2).for_each(|x| *x = f32::NAN);
    let run = |device: &Device, count| -> Result<Vec<Vec<(u32, u32)>>> {
        let floors = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 1.5];
        let found = Tensor::from_slice(device, &[4, COLUMNS], &numbers)?.largest(count, &floors)?;
        let sorted = found.into_iter().map(|row| {
            let mut row: Vec<(u32, u32)> = row.into_iter().map(|(place, value)| (place, value.to_bits())).collect();
            row.sort_unstable();
            row
        });
        Ok(sorted.collect())
    };
    let mut unlike = 0;
    for count in [1, 100, 1000, COLUMNS] {
        let (ours, cpus) = (run(device, count)?, run(&Device::cpu(), count)?);
        unlike += ours.iter().zip(&cpus).filter(|(ours, cpus)| ours != cpus).count();
    }
    Ok((unlike as f64 / 16.0, 0.0))
}

/// Where all scores are about -150, powers of what stands behind a sequence's end would be infinite.
fn gradients_of_low_scores_are_numbers(device: &Device) -> Result<Found> {
    const COLUMNS: usize = 2 * GENES;
    let sequences = sequences(device, &[17, 5, 3])?;
    let tape = Tape::recording();
    let x = tape.constant(values(device, sequences.tokens(), COLUMNS)?);
    let weights: Vec<f32> = normal(COLUMNS * COLUMNS, 8).into_iter().map(|x| 0.05 * x).collect();
    let weight = tape.leaf(Tensor::from_slice(device, &[COLUMNS, COLUMNS], &weights)?);
    let biases = [5.15, -5.15, 0.0].map(|bias| tape.leaf(Tensor::full(device, &[COLUMNS], bias)));
    let maps = x.linears(&biases.each_ref().map(|bias| (&weight, Some(bias))))?;
    let options = Attention { n_heads: 2, n_kv_heads: 2, causal: false, dropout: None };
    let out = Var::attention(&maps[0], &maps[1], &maps[2], &sequences, options)?;
    let gradients = tape.backward(&out.mul(&out)?.sum()?)?;
    let all = biases.iter().filter_map(|bias| gradients.of(bias)).flat_map(|gradient| gradient.to_vec());
    Ok((all.filter(|x| !x.is_finite()).count() as f64, 0.0))
}

fn updates_are_the_cpus(device: &Device) -> Result<Found> {
    let run = |device: &Device| -> Result<Vec<f32>> {
        let mut parameters = Parameters::default();
        for (place, shape) in [vec![70, 100], vec![33], vec![3, 5000]].into_iter().enumerate() {
            let numbers = normal(shape.iter().product(), place as u64);
            parameters.insert(&format!("{place}"), Tensor::from_slice(device, &shape, &numbers)?);
        }
        let mut moments = Moments::new(&parameters);
        for step in 0..3 {
            let tape = Tape::recording();
            let mut loss: Option<Var> = None;
            let ids: Vec<_> = parameters.iter().map(|(id, ..)| id).collect();
            for id in ids {
                let x = tape.parameter(&parameters, id);
                let term = x.mul(&x)?.scale(1.0 + step as f32)?.sum()?;
                loss = Some(loss.map_or(Ok(term.clone()), |loss| loss.add(&term))?);
            }
            let Some(loss) = loss else { continue };
            let (gradients, value) = (tape.backward(&loss)?, loss.value().clone());
            drop(loss);
            AdamW::default().update(&mut parameters, &gradients, &mut moments, 0.01, 1.0, &value);
        }
        Ok(parameters.iter().flat_map(|(_, _, x)| x.to_vec()).collect())
    };
    let error = distance(&run(device)?, &run(&Device::cpu())?);
    Ok((error, 2e-5))
}

fn options(population: Population) -> Evolve {
    Evolve {
        head_dim: GENES,
        num_generations: 5,
        mutation_rate: 0.1,
        crossover_rate: 0.8,
        selection_pressure: 1.0,
        population,
    }
}

fn sampled(size: usize) -> Population {
    Population::Sampled { size, seed: 3, step: 9, layer: 1 }
}

const LENGTHS: [usize; 5] = [1, 9, 32, 70, 150];

fn ancestry(device: &Device, options: Evolve) -> Result<Vec<f32>> {
    let tokens = LENGTHS.iter().sum();
    Ok(evolve(&values(device, tokens, 2 * GENES)?, &sequences(device, &LENGTHS)?, options)?.ancestry.shares().to_vec())
}

/// The draws are the same; where a wheel's mark falls between two sums that differ by rounding, a parent is another.
fn ancestry_is_drawn_as_on_the_cpu(device: &Device) -> Result<Found> {
    let mut error: f64 = 0.0;
    for size in [1, 32, 50, 1000] {
        let (got, expected) =
            (ancestry(device, options(sampled(size)))?, ancestry(&Device::cpu(), options(sampled(size)))?);
        let moved: f64 = got.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).sum();
        error = error.max(moved / expected.iter().map(|x| f64::from(*x)).sum::<f64>());
    }
    Ok((error, 0.02))
}

fn the_infinite_population_is_the_cpus(device: &Device) -> Result<Found> {
    let mut error: f64 = 0.0;
    for selection_pressure in [1.0, 4.0] {
        let options = Evolve { selection_pressure, ..options(Population::Infinite) };
        error = error.max(distance(&ancestry(device, options)?, &ancestry(&Device::cpu(), options)?));
    }
    Ok((error, 1e-4))
}

fn rates_and_sizes_at_their_ends_work(device: &Device) -> Result<Found> {
    let mut error: f64 = 0.0;
    for (mutation_rate, crossover_rate) in [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)] {
        for population in [sampled(1), sampled(40), Population::Infinite] {
            let options = Evolve { mutation_rate, crossover_rate, ..options(population) };
            let (ancestry, columns) = (ancestry(device, options)?, 2 * GENES);
            let mut begin = 0;
            for length in LENGTHS {
                for column in 0..columns {
                    let shares = (begin..begin + length).map(|token| f64::from(ancestry[token * columns + column]));
                    error = error.max((shares.sum::<f64>() - 1.0).abs());
                }
                begin += length;
            }
        }
    }
    Ok((error, 1e-5))
}

fn fitness_of(device: &Device, values: &Tensor, lengths: &[usize]) -> Result<Vec<f32>> {
    let tape = Tape::inference();
    let options = GeneFitness { head_dim: GENES, causal: false, ancestry: None };
    Ok(tape.constant(values.clone()).gene_fitness(&sequences(device, lengths)?, options)?.value().to_vec())
}

fn fitness_sums_to_one(device: &Device) -> Result<Found> {
    let fitness = fitness_of(device, &values(device, LENGTHS.iter().sum(), 2 * GENES)?, &LENGTHS)?;
    let of_head = fitness.chunks(GENES).map(|head| (head.iter().map(|x| f64::from(*x)).sum::<f64>() - 1.0).abs());
    Ok((of_head.fold(0.0, f64::max), 1e-5))
}

fn equal_means_have_equal_fitness(device: &Device) -> Result<Found> {
    let equal = as_activation(&Tensor::full(device, &[7, GENES], 0.5))?;
    let fitness = fitness_of(device, &equal, &[7])?;
    let error = fitness.iter().map(|x| f64::from((x - 1.0 / GENES as f32).abs())).fold(0.0, f64::max);
    Ok((error, 0.0))
}

fn a_text_is_the_same_alone_and_in_a_batch(device: &Device) -> Result<Found> {
    let (lengths, columns) = ([5, 80, 33], 64);
    let all = values(device, lengths.iter().sum(), columns)?;
    let attend = |values: &Tensor, lengths: &[usize]| -> Result<Vec<f32>> {
        let tape = Tape::inference();
        let x = tape.constant(values.clone());
        let core = Attention { n_heads: 2, n_kv_heads: 2, causal: false, dropout: None };
        Ok(Var::attention(&x, &x, &x, &sequences(device, lengths)?, core)?.value().to_vec())
    };
    let together = attend(&all, &lengths)?;
    let mut alone = as_activation(&Tensor::zeros(device, &[80, columns]))?;
    device.kernels().copy_rows(&all, 5..85, &mut alone, 0);
    let error = distance(&attend(&alone, &[80])?, &together[5 * columns..85 * columns]);
    Ok((error, 0.0))
}

fn a_large_population_comes_near_the_infinite_one(device: &Device) -> Result<Found> {
    let (lengths, columns) = ([40], GENES);
    let values = values(device, 40, columns)?;
    let means = |population| -> Result<Vec<f64>> {
        let options = Evolve { crossover_rate: 0.0, mutation_rate: 0.0, ..options(population) };
        let ancestry = evolve(&values, &sequences(device, &lengths)?, options)?.ancestry.shares().to_vec();
        let expressed: Vec<f64> = values.to_vec().iter().map(|v| 1.0 / (1.0 + (-f64::from(*v)).exp())).collect();
        let of_gene = |g| (0..40).map(|i| f64::from(ancestry[i * columns + g]) * expressed[i * columns + g]).sum();
        Ok((0..columns).map(of_gene).collect())
    };
    let (large, infinite) = (means(sampled(4096))?, means(Population::Infinite)?);
    let error = large.iter().zip(&infinite).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    // The sampling noise of 4096 organisms over five generations: five times its deviation.
    let noise = 5.0 * (5.0_f64 / 4096.0).sqrt() * 0.25;
    Ok((error, noise))
}
