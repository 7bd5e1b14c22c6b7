//! Evolution of each sequence and head (docs/genetic-attention.md, section 3).

use super::context::{Context, Grid, arguments};
use super::gene_fitness;
use super::programs::Program;
use super::slice::{Kind, Slice};
use super::suffix;
use crate::ops::evolve::{Ancestry, Evolve, Population};
use crate::ops::gene_fitness::GeneFitness;
use crate::random::{Purpose, Site};
use crate::sequences::Sequences;
use crate::tensor::Tensor;

const THREADS: usize = 128;
/// Shared memory of a block that leaves room for several blocks on a multiprocessor.
const MOST_SHARED: usize = 96 * 1024;

pub fn evolve(
    context: &Context,
    values: &Tensor,
    sequences: &Sequences,
    options: &Evolve,
    mut fitness: [&mut Tensor; 2],
) -> Ancestry {
    // Shares of a population of at most 256 = 2⁸ are exact even in 8 bits of significand, where activations have them.
    let exact = matches!(options.population, Population::Sampled { size, .. } if size.is_power_of_two() && size <= 256);
    let mut shares = if exact { values.empty_like() } else { Tensor::empty(values.device(), values.shape()) };
    let gives_fitness = match options.population {
        Population::Infinite => {
            mean_field(context, values, sequences, options, &mut shares);
            false
        }
        Population::Sampled { size, seed, step, layer } => {
            let site = Site { seed, step, layer, purpose: Purpose::Weights };
            sampled(context, values, sequences, options, (size, site), &mut shares, &mut fitness)
        }
    };
    let ancestry = Ancestry::Shares(shares);
    if !gives_fitness {
        let options = GeneFitness { head_dim: options.head_dim, causal: false, ancestry: Some(ancestry.clone()) };
        gene_fitness::forward(context, values, sequences, &options, fitness);
    }
    ancestry
}

/// Organisms of the default population, and the tokens that its genes can name.
const ORGANISMS: usize = 32;
const MOST_TOKENS: usize = 512;

/// A population of the default size and a common number of genes: words of shared memory for them, and in their place for
/// the tokens' counts; `None` where they do not fit.
fn words_of_few(options: &Evolve, size: usize, longest: usize, values: &Slice) -> Option<usize> {
    let d = options.head_dim;
    let words = (ORGANISMS * d).max(longest * d / 4);
    let four_at_once = values.address().is_multiple_of(4 * values.kind().size() as u64);
    (size == ORGANISMS && matches!(d, 32 | 64) && 4 * words <= MOST_SHARED && longest <= MOST_TOKENS && four_at_once)
        .then_some(words)
}

/// Whether it has given the fitness too. The purposes of the draws are the kernel's: the site's own is 0.
fn sampled(
    context: &Context,
    values: &Tensor,
    sequences: &Sequences,
    options: &Evolve,
    (size, site): (usize, Site),
    ancestry: &mut Tensor,
    fitness: &mut [&mut Tensor; 2],
) -> bool {
    let (d, slice, device) = (options.head_dim, values.slice(), values.device());
    let (count, heads) = (sequences.len(), values.columns() / d);
    let longest = sequences.ranges().map(|range| range.len()).max().unwrap_or(0);
    let kinds = format!("{}_{}", suffix(slice.kind()), suffix(ancestry.slice().kind()));
    let [begins, ids] = [sequences.cu_seqlens(), sequences.ids()].map(|ids| ids.slice().address());
    let (stride, out) = (slice.stride(values.columns()) as i32, ancestry.slice_mut().address());
    let Evolve { num_generations, mutation_rate, crossover_rate, selection_pressure, .. } = *options;
    let (generations, site) = (num_generations as i32, site.words());
    if let Some(words) = words_of_few(options, size, longest, slice).filter(|_| stride % 4 == 0) {
        // What genes carry is good to 2^-15: enough for the fitness where activations have less.
        let gives_fitness = slice.kind() == Kind::Bf16;
        let [fitness, inverse] = fitness.each_mut().map(|x| if gives_fitness { x.slice_mut().address() } else { 0 });
        #[rustfmt::skip]
        let arguments = arguments![
            slice.address(), stride, begins, ids, heads as i32, site, generations, mutation_rate, crossover_rate,
            selection_pressure, out, fitness, inverse
        ];
        let grid = Grid { shared: 4 * words, ..Grid::line(count * heads, d) };
        let program = if d == 32 { Program::EvolveFew32 } else { Program::EvolveFew64 };
        context.launch_yielding(program, &format!("evolve_few_{kinds}"), grid, arguments, fitness);
        return gives_fitness;
    }
    let genes = size * d;
    // As the kernel lays it out, in words: weights of genes, the wheel with its parents and the ancestors, and what they
    // carry, in whose place the tokens are counted in the end.
    let (weights, population, carried) = (d, 4 * size + genes, 2 * genes);
    let in_shared = 4 * (weights + population + carried) <= MOST_SHARED;
    let room = (!in_shared).then(|| Tensor::empty(device, &[count * heads * (population + carried)]));
    let (before, carried) = if in_shared { (weights + population, carried) } else { (weights, 0) };
    let counts = (2 * longest * d).div_ceil(4);
    // Counts have 16 bits.
    let counted = size < 1 << 16 && 4 * (before + counts) <= MOST_SHARED;
    let words = before + carried.max(if counted { counts } else { 0 });
    let room = room.as_ref().map_or(0, |room| room.slice().address());
    #[rustfmt::skip]
    let arguments = arguments![
        slice.address(), stride, begins, ids, site, d as i32, size as i32, generations, mutation_rate,
        crossover_rate, selection_pressure, room, i32::from(counted), out
    ];
    let grid = Grid { blocks: [count, heads, 1], threads: THREADS, shared: 4 * words };
    context.launch(Program::Evolve, &format!("evolve_sampled_{kinds}"), grid, arguments);
    false
}

fn mean_field(context: &Context, values: &Tensor, sequences: &Sequences, options: &Evolve, ancestry: &mut Tensor) {
    let (d, slice) = (options.head_dim, values.slice());
    let longest = sequences.ranges().map(|range| range.len()).max().unwrap_or(0);
    let (begins, out) = (sequences.cu_seqlens().slice().address(), ancestry.slice_mut().address());
    let stride = slice.stride(values.columns()) as i32;
    let blocks = [sequences.len(), values.columns() / d, 1];
    let arguments = arguments![
        slice.address(),
        stride,
        begins,
        d as i32,
        options.num_generations as i32,
        options.mutation_rate,
        options.crossover_rate,
        options.selection_pressure,
        out,
    ];
    let grid = Grid { blocks, threads: THREADS, shared: 4 * (2 * d + longest) };
    context.launch(Program::Evolve, &format!("evolve_mean_field_{}", suffix(slice.kind())), grid, arguments);
}
