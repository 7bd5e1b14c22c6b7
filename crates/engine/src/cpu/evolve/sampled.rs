//! Section 3a of docs/genetic-attention.md: a finite population, bred by lot.
//!
//! A gene is known by its place in the expression, `token·d + g`. Beside its place each gene carries its expression, so
//! that only mutated genes, which are few, have to look theirs up.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::pressed;
use crate::cpu::gene_fitness::fitness_of_means;
use crate::cpu::math;
use crate::cpu::parallel::Block;
use crate::ops::evolve::Evolve;
use crate::random::{self, Purpose, Site, Stream, unit};

/// Whose random numbers.
pub struct Draws {
    pub site: Site,
    pub sequence: u32,
    pub head: u32,
}

impl Draws {
    #[inline(always)]
    fn stream(&self, purpose: Purpose, generation: usize) -> Stream {
        Site { purpose, ..self.site }.stream(self.sequence, self.head, generation as u32)
    }
}

/// Children whose draws are taken together.
pub const SIBLINGS: usize = 16;

/// Organisms side by side, `[N, d]`: the place of each gene and its expression.
pub struct Organisms<'a> {
    pub places: &'a mut [u32],
    pub carried: &'a mut [f32],
}

/// The two parents of each of some siblings, by the places of their first genes; a clone's are one.
pub struct Couples(pub [[u32; SIBLINGS]; 2]);

/// How much memory each thing takes that a population is bred in.
pub struct Room([usize; 9]);

impl Room {
    /// For `size` organisms of `d` genes and an expression of `cells`.
    pub fn of(size: usize, d: usize, cells: usize) -> Self {
        let (genes, group) = (size * d, SIBLINGS * d.next_multiple_of(4));
        // The mutants of a group are listed by whole vectors, which may end in what does not count.
        Room([genes, genes, genes, genes, size, 2 * d, group / 2, group + SIBLINGS, cells])
    }

    /// Of all together.
    pub fn len(&self) -> usize {
        self.0.iter().sum()
    }
}

/// The ancestry and the gene means of one sequence and head from its expression `[T, d]`, bred in [`Room::len`] numbers.
#[inline(always)]
pub fn sample(
    options: &Evolve,
    size: usize,
    draws: &Draws,
    expression: &[f32],
    mut room: &mut [f32],
    ancestry: &mut Block<'_>,
    means: &mut [f32],
) {
    let d = options.head_dim;
    let [places, carried, child_places, child_carried, wheel, of_genes, gene_draws, mutants, counts] =
        Room::of(size, d, expression.len()).0.map(|len| {
            let (taken, left) = std::mem::take(&mut room).split_at_mut(len);
            room = left;
            taken
        });
    let [places, child_places, gene_draws, mutants, counts] =
        [places, child_places, gene_draws, mutants, counts].map(bytemuck::cast_slice_mut);
    let mut living = Organisms { places, carried };
    let mut children = Organisms { places: child_places, carried: child_carried };
    found(draws, size, d, expression, &mut living);
    let mutation = Mutation::new(options.mutation_rate, d, expression);
    for generation in 0..options.num_generations {
        turn_wheel(options, living.carried, of_genes, wheel);
        let parents = draws.stream(Purpose::Parents, generation);
        let genes = draws.stream(Purpose::Genes, generation);
        for first in (0..size).step_by(SIBLINGS) {
            let siblings = SIBLINGS.min(size - first);
            let mut draws_of_pairs = [0; 4 * SIBLINGS];
            parents.fill(first as u32, &mut draws_of_pairs);
            let couples = pair(&draws_of_pairs, options.crossover_rate, d, wheel);
            let blocks = d.div_ceil(4);
            let gene_draws = &mut gene_draws[..4 * blocks * siblings.div_ceil(2)];
            genes.fill((first / 2 * blocks) as u32, gene_draws);
            let range = first * d..(first + siblings) * d;
            let (places, carried) = (&mut children.places[range.clone()], &mut children.carried[range]);
            mutation.breed(&couples, siblings, &living, gene_draws, Organisms { places, carried }, mutants);
        }
        std::mem::swap(&mut living, &mut children);
    }
    gene_means(living.carried, size, means);
    count(living.places, size, counts, ancestry);
}

/// `M[g]`, the mean of what the organisms' genes carry.
#[inline(always)]
fn gene_means(carried: &[f32], size: usize, means: &mut [f32]) {
    math::sums_of_columns(carried, means.len(), means);
    means.iter_mut().for_each(|mean| *mean /= size as f32);
}

/// Systematic sampling: each founder's genes are those of its token.
#[inline(always)]
fn found(draws: &Draws, size: usize, d: usize, expression: &[f32], organisms: &mut Organisms<'_>) {
    let tokens = expression.len() / d;
    let offset = f64::from(unit(draws.stream(Purpose::Founders, 0).block(0)[0]));
    let founders = organisms.places.chunks_exact_mut(d).zip(organisms.carried.chunks_exact_mut(d));
    for (n, (places, carried)) in founders.enumerate() {
        let token = ((n as f64 + offset) * tokens as f64 / size as f64) as usize;
        let first = token.min(tokens - 1) * d;
        places.iter_mut().enumerate().for_each(|(g, place)| *place = (first + g) as u32);
        carried.copy_from_slice(&expression[first..first + d]);
    }
}

/// The roulette wheel: `wheel[n] = Σ_{m ≤ n} φ[m]^β`.
#[inline(always)]
fn turn_wheel(options: &Evolve, carried: &[f32], of_genes: &mut [f32], wheel: &mut [f32]) {
    let d = options.head_dim;
    let (means, fitness) = of_genes.split_at_mut(d);
    gene_means(carried, wheel.len(), means);
    fitness_of_means(d, means, fitness);
    organism_fitness(carried, fitness, wheel);
    let largest = math::max(wheel);
    wheel.iter_mut().for_each(|phi| *phi = pressed(options.selection_pressure, *phi, largest));
    let mut sum = 0.0_f64;
    for phi in wheel {
        sum += f64::from(*phi);
        *phi = sum as f32;
    }
}

/// `φ[n] = Σ_g P[n, g] γ[g]`
#[inline(always)]
fn organism_fitness(carried: &[f32], fitness: &[f32], phi: &mut [f32]) {
    let d = fitness.len();
    #[cfg(target_arch = "x86_64")]
    if d.is_multiple_of(math::LANES) && is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions, and rows are whole registers.
        return unsafe { avx512::dots(carried, fitness, phi) };
    }
    for (phi, genes) in phi.iter_mut().zip(carried.chunks_exact(d)) {
        *phi = dot(genes, fitness);
    }
}

/// `Σ a[i]·b[i]` in an order that stays: the last bit of a wheel may decide who is a parent.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; math::LANES];
    let (rows_a, rows_b) = (a.chunks_exact(math::LANES), b.chunks_exact(math::LANES));
    let tail: f32 = rows_a.remainder().iter().zip(rows_b.remainder()).map(|(&a, &b)| a * b).sum();
    for (a, b) in rows_a.zip(rows_b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (&a, &b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + tail
}

/// The parents of some siblings, from four draws for each: of the two the organism at whose share the wheel stops.
#[inline(always)]
fn pair(draws: &[u32; 4 * SIBLINGS], crossover_rate: f32, d: usize, wheel: &[f32]) -> Couples {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::pair(draws, crossover_rate, d, wheel) };
    }
    pair_anywhere(draws, crossover_rate, d, wheel)
}

#[inline(always)]
fn pair_anywhere(draws: &[u32; 4 * SIBLINGS], crossover_rate: f32, d: usize, wheel: &[f32]) -> Couples {
    let (&turn, before) = wheel.split_last().expect("a wheel has an organism");
    let stop = |draw: u32| {
        let mark = unit(draw) * turn;
        before.partition_point(|&sum| sum <= mark)
    };
    let mut couples = Couples([[0; SIBLINGS]; 2]);
    for (child, draws) in draws.chunks_exact(4).enumerate() {
        let a = stop(draws[0]);
        let b = if unit(draws[2]) < crossover_rate { stop(draws[1]) } else { a };
        (couples.0[0][child], couples.0[1][child]) = ((a * d) as u32, (b * d) as u32);
    }
    couples
}

/// By how many bits a child's draws are turned: two siblings share a word of random bits for each gene, which one reads
/// from its beginning and the other from its middle. Their first 16 bits, which decide all but one in 2¹⁴, are independent.
#[inline(always)]
pub fn turn_of(child: usize) -> u32 {
    16 * (child % 2) as u32
}

/// What a draw's share of the tokens is multiplied by, so that no rounding makes it all of them.
const BELOW_ONE: f32 = 1.0 - 1.0 / 4_194_304.0;

/// A gene's draw is one of 2³²: below the threshold it mutates, and the draw names the token that it is replaced by; of
/// the others the lower half inherit from the first parent. (Where all mutate, one in 2³² does not.)
pub struct Mutation<'a> {
    pub expression: &'a [f32],
    pub d: usize,
    pub threshold: u32,
    pub middle: u32,
    pub tokens_per_draw: f32,
}

impl<'a> Mutation<'a> {
    #[inline(always)]
    fn new(rate: f32, d: usize, expression: &'a [f32]) -> Self {
        let tokens = expression.len() / d;
        let threshold = random::threshold(rate);
        let middle = threshold + (u32::MAX - threshold) / 2;
        let tokens_per_draw = BELOW_ONE * tokens as f32 / threshold.max(1) as f32;
        Mutation { expression, d, threshold, middle, tokens_per_draw }
    }

    /// Some siblings from their parents; `mutants` is room for a list of their genes.
    #[inline(always)]
    fn breed(
        &self,
        couples: &Couples,
        siblings: usize,
        living: &Organisms<'_>,
        draws: &[u32],
        children: Organisms<'_>,
        mutants: &mut [u32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has the instructions.
            return unsafe { avx512::breed(self, couples, siblings, living, draws, children, mutants) };
        }
        let _ = mutants;
        self.breed_anywhere(couples, siblings, living, draws, children);
    }

    #[inline(always)]
    fn breed_anywhere(
        &self,
        couples: &Couples,
        siblings: usize,
        living: &Organisms<'_>,
        draws: &[u32],
        children: Organisms<'_>,
    ) {
        let d = self.d;
        let outs = children.places.chunks_exact_mut(d).zip(children.carried.chunks_exact_mut(d));
        for (child, (places, carried)) in outs.take(siblings).enumerate() {
            let words = &draws[child / 2 * d.next_multiple_of(4)..];
            let [of_a, of_b] = couples.0.map(|parents| &living.places[parents[child] as usize..][..d]);
            let parents = of_a.iter().zip(of_b);
            for (g, ((place, &word), (&a, &b))) in places.iter_mut().zip(words).zip(parents).enumerate() {
                let draw = word.rotate_left(turn_of(child));
                let token = (draw as f32 * self.tokens_per_draw) as usize;
                let inherited = if draw < self.middle { a } else { b };
                *place = if draw < self.threshold { (token * d + g) as u32 } else { inherited };
            }
            for (carried, &place) in carried.iter_mut().zip(&*places) {
                *carried = self.expression[place as usize];
            }
        }
    }
}

/// The share of the population whose gene descends from each token.
#[inline(always)]
fn count(places: &[u32], size: usize, counts: &mut [u32], ancestry: &mut Block<'_>) {
    counts.fill(0);
    places.iter().for_each(|&place| counts[place as usize] += 1);
    let share = 1.0 / size as f32;
    for (token, counts) in counts.chunks_exact(ancestry.columns()).enumerate() {
        ancestry.row(token).iter_mut().zip(counts).for_each(|(out, &count)| *out = count as f32 * share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn vector_instructions_breed_the_same_children(
            (tokens, size, d) in (1..40_usize, 1..=SIBLINGS, 1..70_usize), rate in 0.0..=1.0_f32, seed in 0..1000_u64,
        ) {
            let stream = Stream::weights(seed, "children");
            let expression: Vec<f32> = (0..tokens * d).map(|i| i as f32).collect();
            let mut places = vec![0; size * d];
            stream.fill(0, &mut places);
            places.iter_mut().for_each(|place| *place %= (tokens * d) as u32);
            let mut carried: Vec<f32> = places.iter().map(|&place| place as f32).collect();
            let living = Organisms { places: &mut places, carried: &mut carried };
            let mut draws = vec![0; size.div_ceil(2) * d.next_multiple_of(4)];
            stream.fill(1000, &mut draws);
            let parent = |n: usize| (n.min(size - 1) * d) as u32;
            let couples = Couples([std::array::from_fn(parent), std::array::from_fn(|n| parent(SIBLINGS - 1 - n))]);
            let mutation = Mutation::new(rate, d, &expression);
            let children = |anywhere: bool| {
                let (mut places, mut carried) = (vec![0; size * d], vec![0.0; size * d]);
                let children = Organisms { places: &mut places, carried: &mut carried };
                if anywhere {
                    mutation.breed_anywhere(&couples, size, &living, &draws, children);
                } else {
                    let mut mutants = vec![0; SIBLINGS * (d.next_multiple_of(4) + 1)];
                    mutation.breed(&couples, size, &living, &draws, children, &mut mutants);
                }
                (places, carried)
            };
            prop_assert_eq!(children(true), children(false));
        }

        #[test]
        fn vector_instructions_choose_the_same_parents(
            parts in prop::collection::vec(0..4_u32, 1..200), d in 1..70_usize, rate in 0.0..=1.0_f32, seed in 0..1000_u64,
        ) {
            let mut wheel: Vec<f32> = parts.iter().scan(0, |sum, part| { *sum += part; Some(*sum as f32) }).collect();
            // Of marks in sixteenths of a turn many are sums of the wheel, where the turn is a multiple of 16.
            let turn = &mut wheel[parts.len() - 1];
            *turn = (*turn / 16.0).ceil() * 16.0;
            let mut draws = [0; 4 * SIBLINGS];
            Stream::weights(seed, "wheel").fill(0, &mut draws);
            draws.iter_mut().for_each(|draw| *draw &= 0xF000_0000);
            prop_assert_eq!(pair(&draws, rate, d, &wheel).0, pair_anywhere(&draws, rate, d, &wheel).0);
        }

        #[test]
        fn organism_fitness_is_a_product_of_rows(n in 1..40_usize, d in 1..70_usize, seed in 0..1000_u64) {
            let mut numbers = vec![0.0; (n + 1) * d];
            crate::random::fill_normal(&Stream::weights(seed, "fitness"), 1.0, &mut numbers);
            let (fitness, carried) = numbers.split_at(d);
            let mut phi = vec![0.0; n];
            organism_fitness(carried, fitness, &mut phi);
            let each: Vec<f32> = carried.chunks(d).map(|genes| dot(genes, fitness)).collect();
            prop_assert_eq!(phi, each);
        }
    }
}
