//! Who is a parent: the fitness of a population's genes and organisms, and the roulette wheel.

use super::genes::{MOST_CARRIED, carried, rounded};
use super::pressed;
#[cfg(target_arch = "x86_64")]
use super::{avx512, has_avx512};
use crate::cpu::math::LANES;
use crate::random::unit;

/// Children whose draws are taken together.
pub const SIBLINGS: usize = 32;

/// Organisms whose genes are added up in 32 bits.
pub const SUMMED: usize = 1 << 16;

/// The whole number that stands for a gene fitness of 1 up to its factor, `u = 1`: of the greatest, 2, it has 15 bits.
const ONE: f64 = 16_383.5;

/// The roulette wheel of organisms `[N, words]`: `wheel[n] ∝ Σ_{m ≤ n} φ[m]^β`, all of it below 2³¹ or that itself.
/// `weights` is room for an organism's genes.
#[inline(always)]
pub fn turn_wheel(pressure: f32, organisms: &[u32], d: usize, weights: &mut [u32], wheel: &mut [u32]) {
    weigh_genes(organisms, wheel.len(), weights);
    // Products have 30 bits.
    let shift = d.next_power_of_two().trailing_zeros().saturating_sub(1);
    weigh_organisms(organisms, weights, shift, wheel);
    let largest = wheel.iter().fold(0, |a, &b| b.max(a));
    if pressure != 1.0 {
        let whole = (1_u32 << 31) as f32;
        wheel.iter_mut().for_each(|phi| *phi = (pressed(pressure, *phi as f32, largest as f32) * whole) as u32);
    }
    // The largest share has 31 bits, of which as many go as there are in the number of organisms.
    let up = if pressure == 1.0 { largest.leading_zeros().saturating_sub(1) } else { 0 };
    add_up(wheel, [up, wheel.len().next_power_of_two().trailing_zeros()]);
    if wheel[wheel.len() - 1] == 0 {
        wheel.iter_mut().zip(1..).for_each(|(sum, number)| *sum = number);
    }
}

/// `u[g] = 1 / (M[g] + ½)` of the gene means of `size` organisms, in whole numbers of 15 bits.
#[inline(always)]
fn weigh_genes(organisms: &[u32], size: usize, weights: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::weigh_genes(organisms, size, weights) };
    }
    weigh_genes_anywhere(organisms, size, weights);
}

/// Of `size` organisms what half of them could carry at most, and the weight of a sum of 1.
pub fn half_and_one(size: usize) -> [f32; 2] {
    let all = size as f64 * f64::from(MOST_CARRIED);
    [all / 2.0, all * ONE].map(|x| x as f32)
}

#[inline(always)]
fn weigh_genes_anywhere(organisms: &[u32], size: usize, weights: &mut [u32]) {
    let words = weights.len();
    let [half, one] = half_and_one(size);
    for (block, weights) in weights.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut totals = [half; LANES];
        for first in (0..size).step_by(SUMMED) {
            let mut sums = [0; LANES];
            for n in first..size.min(first + SUMMED) {
                let genes = &organisms[n * words + block * LANES..][..LANES];
                sums.iter_mut().zip(genes).for_each(|(sum, &gene)| *sum += carried(gene));
            }
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum as f32);
        }
        *weights = totals.map(|total| rounded(one / total));
    }
}

/// `φ[n] ∝ Σ_g P[n, g] u[g]`, of each product without its last `shift` bits.
#[inline(always)]
fn weigh_organisms(organisms: &[u32], weights: &[u32], shift: u32, phi: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::weigh_organisms(organisms, weights, shift, phi) };
    }
    weigh_organisms_anywhere(organisms, weights, shift, phi);
}

#[inline(always)]
fn weigh_organisms_anywhere(organisms: &[u32], weights: &[u32], shift: u32, phi: &mut [u32]) {
    for (phi, genes) in phi.iter_mut().zip(organisms.chunks_exact(weights.len())) {
        *phi = genes.iter().zip(weights).map(|(&gene, &weight)| (carried(gene) * weight) >> shift).sum();
    }
}

/// The sums up to each of some numbers, in place of the numbers: moved up and then down by so many bits.
#[inline(always)]
fn add_up(numbers: &mut [u32], by: [u32; 2]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::add_up(numbers, by) };
    }
    add_up_anywhere(numbers, by);
}

#[inline(always)]
fn add_up_anywhere(numbers: &mut [u32], [up, down]: [u32; 2]) {
    let mut sum = 0;
    for number in numbers {
        sum += *number << up >> down;
        *number = sum;
    }
}

/// The two parents of each of some siblings, by the places of their first genes; a clone's are one.
pub struct Couples(pub [[u32; SIBLINGS]; 2]);

/// The parents of some siblings, from four draws for each: of the two the organism at whose share the wheel stops, and
/// whether they mix. An organism has `words`.
#[inline(always)]
pub fn pair(draws: &[u32; 4 * SIBLINGS], crossover_rate: f32, words: usize, wheel: &[u32]) -> Couples {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::pair(draws, crossover_rate, words, wheel) };
    }
    pair_anywhere(draws, crossover_rate, words, wheel)
}

#[inline(always)]
fn pair_anywhere(draws: &[u32; 4 * SIBLINGS], crossover_rate: f32, words: usize, wheel: &[u32]) -> Couples {
    let (&turn, before) = wheel.split_last().expect("a wheel has an organism");
    let stop = |draw: u32| {
        let mark = (u64::from(draw) * u64::from(turn)) >> 32;
        (before.partition_point(|&sum| u64::from(sum) <= mark) * words) as u32
    };
    let mut couples = Couples([[0; SIBLINGS]; 2]);
    for (child, draws) in draws.chunks_exact(4).enumerate() {
        let a = stop(draws[0]);
        let b = if unit(draws[2]) < crossover_rate { stop(draws[1]) } else { a };
        (couples.0[0][child], couples.0[1][child]) = (a, b);
    }
    couples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::evolve::genes::words_of;
    use crate::random::Stream;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vector_instructions_choose_the_same_parents(
            parts in prop::collection::vec(0..4_u32, 1..200), rate in 0.0..=1.0_f32, seed in 0..1000_u64,
        ) {
            let mut wheel: Vec<u32> = parts.iter().scan(0, |sum, part| { *sum += part; Some(*sum) }).collect();
            // Of marks in sixteenths of a turn many are sums of the wheel, where the turn is a multiple of 16.
            let turn = &mut wheel[parts.len() - 1];
            *turn = turn.next_multiple_of(16);
            let mut draws = [0; 4 * SIBLINGS];
            Stream::weights(seed, "wheel").fill(0, &mut draws);
            draws.iter_mut().for_each(|draw| *draw &= 0xF000_0000);
            prop_assert_eq!(pair(&draws, rate, 48, &wheel).0, pair_anywhere(&draws, rate, 48, &wheel).0);
            // Sums of all their bits, and draws of all theirs.
            wheel.iter_mut().for_each(|sum| *sum <<= 22);
            Stream::weights(seed, "wheel").fill(16, &mut draws);
            prop_assert_eq!(pair(&draws, rate, 48, &wheel).0, pair_anywhere(&draws, rate, 48, &wheel).0);
        }

        #[test]
        fn vector_instructions_find_the_same_fitness(n in 1..40_usize, d in 1..70_usize, seed in 0..1000_u64) {
            let mut organisms = vec![0; n * words_of(d)];
            Stream::weights(seed, "fitness").fill(0, &mut organisms);
            organisms.iter_mut().for_each(|gene| *gene &= !(MOST_CARRIED + 1));
            let (mut weights, mut expected) = (vec![0; words_of(d)], vec![1; words_of(d)]);
            weigh_genes(&organisms, n, &mut weights);
            weigh_genes_anywhere(&organisms, n, &mut expected);
            prop_assert_eq!(&weights, &expected);
            let shift = d.next_power_of_two().trailing_zeros().saturating_sub(1);
            let (mut phi, mut expected) = (vec![0; n], vec![0; n]);
            weigh_organisms(&organisms, &weights, shift, &mut phi);
            weigh_organisms_anywhere(&organisms, &weights, shift, &mut expected);
            prop_assert_eq!(&phi, &expected);
            add_up(&mut phi, [1, 7]);
            add_up_anywhere(&mut expected, [1, 7]);
            prop_assert_eq!(phi, expected);
        }
    }

    #[test]
    fn genes_of_more_organisms_than_are_summed_at_once_weigh_the_same() {
        let organisms = vec![MOST_CARRIED - 1; (2 * SUMMED + 3) * words_of(1)];
        let (mut weights, mut expected) = ([0; LANES], [1; LANES]);
        weigh_genes(&organisms, 2 * SUMMED + 3, &mut weights);
        weigh_genes_anywhere(&organisms, 2 * SUMMED + 3, &mut expected);
        let exact = ONE / (f64::from(MOST_CARRIED - 1) / f64::from(MOST_CARRIED) + 0.5);
        assert_eq!((weights, weights[0]), (expected, exact.round() as u32));
    }

    #[test]
    fn however_little_is_expressed_a_wheel_of_many_organisms_is_turned_by_their_fitness() {
        for size in [2, 3, 1000, 1 << 16, 1 << 20] {
            // Of what they express 0.0003 and 0.0006.
            let organisms: Vec<u32> = (0..size).flat_map(|n| [[10_u32; LANES], [20; LANES]][n % 2]).collect();
            let (mut weights, mut wheel) = ([0; LANES], vec![0; size]);
            turn_wheel(1.0, &organisms, LANES, &mut weights, &mut wheel);
            let turn = f64::from(wheel[size - 1]);
            let odd: u32 = wheel.windows(2).step_by(2).map(|sums| sums[1] - sums[0]).sum();
            let share = 2.0 * (size / 2) as f64 / (size + size / 2) as f64;
            assert!((f64::from(odd) / turn - share).abs() < 2e-3 * share, "{size}: {odd} of {turn}");
        }
    }
}
