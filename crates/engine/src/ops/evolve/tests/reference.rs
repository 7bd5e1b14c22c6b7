//! Sections 1 and 3 of docs/genetic-attention.md in double precision, for one sequence and head. Matrices are lists of rows.

use super::*;

pub fn expression(values: &Tensor) -> Vec<Vec<f64>> {
    let sigmoid = |&x: &f32| 1.0 / (1.0 + f64::from(-x).exp());
    values.data().chunks(values.columns()).map(|row| row.iter().map(sigmoid).collect()).collect()
}

/// The definition itself, in `O(d²)`.
pub fn gene_fitness(means: &[f64]) -> Vec<f64> {
    means.iter().map(|m| 1.0 / means.iter().map(|other| (m + 0.5) / (other + 0.5)).sum::<f64>()).collect()
}

pub fn organism_fitness(genes: &[f64], gene_fitness: &[f64]) -> f64 {
    genes.iter().zip(gene_fitness).map(|(p, gamma)| p * gamma).sum()
}

pub fn gene_means(ancestry: &[Vec<f64>], p: &[Vec<f64>]) -> Vec<f64> {
    (0..p[0].len()).map(|g| (0..p.len()).map(|i| ancestry[i][g] * p[i][g]).sum()).collect()
}

/// Section 3b.
pub fn mean_field(p: &[Vec<f64>], options: &Evolve) -> Vec<Vec<f64>> {
    let (tokens, d) = (p.len(), p[0].len());
    let [mutation, crossover, pressure] =
        [options.mutation_rate, options.crossover_rate, options.selection_pressure].map(f64::from);
    let even = 1.0 / tokens as f64;
    let mut shares = vec![vec![even; d]; tokens];
    for t in 0..options.num_generations {
        let means = gene_means(&shares, p);
        let gamma = gene_fitness(&means);
        let average = organism_fitness(&means, &gamma);
        let linkage = ((1.0 - crossover / 2.0) * (1.0 - mutation)).powi(t as i32);
        for g in 0..d {
            let fitness = |i: usize| {
                let unlinked = p[i][g] * gamma[g] + average - means[g] * gamma[g];
                linkage * organism_fitness(&p[i], &gamma) + (1.0 - linkage) * unlinked
            };
            let selected: Vec<f64> = (0..tokens).map(|i| shares[i][g] * fitness(i).powf(pressure)).collect();
            let sum: f64 = selected.iter().sum();
            (0..tokens).for_each(|i| shares[i][g] = (1.0 - mutation) * selected[i] / sum + mutation * even);
        }
    }
    shares
}

/// Section 3a with the random numbers that its draws are named after: one head, number `head`, of sequence `id`.
pub fn sampled(p: &[Vec<f64>], options: &Evolve, head: u32, id: u32) -> Vec<Vec<f64>> {
    let Population::Sampled { size, seed, step, layer } = options.population else { unreachable!() };
    let (tokens, d) = (p.len(), p[0].len());
    let stream = |purpose, t| Site { seed, step, layer, purpose }.stream(id, head, t);
    let unit = |draw: u32| f64::from(draw >> 8) / f64::from(1 << 24);
    let offset = unit(stream(Purpose::Founders, 0).block(0)[0]);
    let founder = |n: usize| ((n as f64 + offset) * tokens as f64 / size as f64).floor() as usize;
    let mut population: Vec<Vec<usize>> = (0..size).map(|n| vec![founder(n); d]).collect();
    for t in 0..options.num_generations as u32 {
        // What an organism carries and a gene's fitness are rounded, and so are products and shares of the wheel.
        let carried = |n: usize, g: usize| (p[population[n][g]][g] * 32767.0).round();
        let mean = |g: usize| (0..size).map(|n| carried(n, g)).sum::<f64>() / 32767.0 / size as f64;
        let weights: Vec<f64> = (0..d).map(|g| (16383.5 / (mean(g) + 0.5)).round()).collect();
        let product_bits = (d as f64).log2().ceil() as i32 - 1;
        let product = |n: usize, g: usize| (carried(n, g) * weights[g] / 2.0_f64.powi(product_bits.max(0))).floor();
        let phi: Vec<f64> = (0..size).map(|n| (0..d).map(|g| product(n, g)).sum()).collect();
        let largest = phi.iter().copied().fold(0.0, f64::max);
        let pressure = f64::from(options.selection_pressure);
        let powers = phi.iter().map(|&phi| match pressure {
            1.0 => phi * 2.0_f64.powf(30.0 - largest.log2().floor()),
            pressure => (phi / largest).powf(pressure) * 2.0_f64.powi(31),
        });
        let parts: Vec<f64> = powers.map(|x| (x / 2.0_f64.powf((size as f64).log2().ceil())).floor()).collect();
        let total: f64 = parts.iter().sum();
        let parent = |draw: u32| {
            let mark = (f64::from(draw) / 2.0_f64.powi(32) * total).floor();
            (0..size).find(|&n| parts[..=n].iter().sum::<f64>() > mark).unwrap_or(size - 1)
        };
        let child = |n: usize| {
            let [a, b, mixes, _] = stream(Purpose::Parents, t).block(n as u32);
            let (a, b) = (parent(a), parent(b));
            let mixes = unit(mixes) < f64::from(options.crossover_rate);
            let gene = |g: usize| {
                let block = stream(Purpose::Genes, t).block((n / 2 * d.div_ceil(4) + g / 4) as u32);
                let draw = f64::from(block[g % 4].rotate_left(16 * (n as u32 % 2))) / 2.0_f64.powi(32);
                let rate = f64::from(options.mutation_rate);
                if draw < rate {
                    (draw / rate * tokens as f64) as usize
                } else if mixes && draw >= (1.0 + rate) / 2.0 {
                    population[b][g]
                } else {
                    population[a][g]
                }
            };
            (0..d).map(gene).collect()
        };
        population = (0..size).map(child).collect();
    }
    let share = |i: usize, g: usize| population.iter().filter(|genes| genes[g] == i).count() as f64 / size as f64;
    (0..tokens).map(|i| (0..d).map(|g| share(i, g)).collect()).collect()
}
