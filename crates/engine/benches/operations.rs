//! Every operation of a training step, forward and backward, at the size of MiniLM with 32 pairs of MS MARCO.
//!
//! `cargo bench -p mendel-engine`, or one of them: `cargo bench -p mendel-engine -- linear`.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mendel_engine::ops::attention::{Attention, AttentionDropout};
use mendel_engine::ops::evolve::{Evolve, Population, evolve};
use mendel_engine::ops::gene_fitness::GeneFitness;
use mendel_engine::ops::modulate::Modulate;
use mendel_engine::ops::pool::Pooling;
use mendel_engine::ops::residual_norm::{End, Norm, ResidualDropout};
use mendel_engine::optim::{AdamW, Moments};
use mendel_engine::random::{Purpose, Site, Stream, fill_normal};
use mendel_engine::{Device, Parameters, Precision, Sequences, Tape, Tensor, Var};

const HIDDEN: usize = 384;
const INNER: usize = 1536;
const HEADS: usize = 12;
const LENGTHS: [usize; 20] = [6, 7, 8, 8, 9, 9, 10, 11, 12, 15, 35, 50, 60, 68, 75, 82, 92, 105, 125, 170];

struct Workload {
    device: Device,
    sequences: Sequences,
}

impl Workload {
    fn new(precision: Precision) -> Self {
        let device = Device::cpu_with(precision);
        let lengths = LENGTHS.repeat(3);
        let ids: Vec<u32> = (0..lengths.len() as u32).collect();
        let sequences = Sequences::new(&device, &lengths, &ids).expect("the lengths are positive");
        Workload { device, sequences }
    }

    fn random(&self, shape: &[usize]) -> Tensor {
        let mut tensor = Tensor::empty(&self.device, shape);
        fill_normal(&Stream::weights(1, "benchmark"), 0.5, tensor.data_mut());
        tensor
    }

    fn tokens(&self, columns: usize) -> Tensor {
        self.random(&[self.sequences.tokens(), columns])
    }

    fn site(&self, purpose: Purpose) -> Site {
        Site { seed: 1, step: 1, layer: 1, purpose }
    }
}

/// Takes the time of `f` and of its gradients in all inputs.
fn measure(criterion: &mut Criterion, name: &str, inputs: &[Tensor], f: impl Fn(&[Var]) -> mendel_engine::Result<Var>) {
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            let tape = Tape::recording();
            let leaves: Vec<Var> = inputs.iter().map(|input| tape.leaf(input.clone())).collect();
            let loss = f(&leaves).and_then(|out| out.sum()).expect("shapes fit");
            tape.backward(&loss).expect("the loss is a number")
        });
    });
}

fn products(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Bf16] {
        let work = Workload::new(precision);
        let named = |name: &str| format!("{name}, {precision:?}");
        let inner = [work.tokens(HIDDEN), work.random(&[INNER, HIDDEN]), work.random(&[INNER])];
        measure(criterion, &named("linear"), &inner, |v| v[0].linear(&v[1], Some(&v[2])));
        let outer = [work.tokens(INNER), work.random(&[HIDDEN, INNER]), work.random(&[HIDDEN])];
        measure(criterion, &named("gelu_linear"), &outer, |v| v[0].gelu_linear(&v[1], Some(&v[2])));
        let dropout = AttentionDropout { probability: 0.1, site: work.site(Purpose::AttentionDropout) };
        let options = Attention { n_heads: HEADS, n_kv_heads: HEADS, causal: false, dropout: Some(dropout) };
        let qkv = [work.tokens(HIDDEN), work.tokens(HIDDEN), work.tokens(HIDDEN)];
        measure(criterion, &named("attention"), &qkv, |v| {
            Var::attention(&v[0], &v[1], &v[2], &work.sequences, options)
        });
    }
}

fn passes(criterion: &mut Criterion) {
    let work = Workload::new(Precision::F32);
    let row = work.random(&[HIDDEN]);
    let inputs = [work.tokens(HIDDEN), work.tokens(HIDDEN), row.clone(), row];
    let dropout = ResidualDropout { probability: 0.1, site: work.site(Purpose::FeedForwardDropout) };
    measure(criterion, "residual_norm", &inputs, |v| {
        let norm = Norm { gain: &v[2], bias: &v[3], epsilon: 1e-12 };
        v[0].residual_norm(End { residual: &v[1], sequences: &work.sequences, dropout: Some(dropout), norm })
    });
    measure(criterion, "pool", &inputs[..1], |v| v[0].pool(&work.sequences, Pooling::Mean));
}

fn genetic(criterion: &mut Criterion) {
    let work = Workload::new(Precision::F32);
    let head_dim = HIDDEN / HEADS;
    let (values, mixed) = (work.tokens(HIDDEN), work.tokens(HIDDEN));
    for (name, population) in [
        ("evolve, sampled", Population::Sampled { size: 32, seed: 1, step: 1, layer: 1 }),
        ("evolve, infinite", Population::Infinite),
    ] {
        let options = Evolve {
            head_dim,
            num_generations: 5,
            mutation_rate: 0.1,
            crossover_rate: 0.8,
            selection_pressure: 1.0,
            population,
        };
        criterion.bench_function(name, |bencher| bencher.iter(|| evolve(&values, &work.sequences, options)));
    }
    measure(criterion, "gene_fitness and modulate", &[values, mixed], |v| {
        let options = GeneFitness { head_dim, causal: false, ancestry: None };
        let fitness = v[0].gene_fitness(&work.sequences, options)?;
        v[1].modulate(&fitness, &work.sequences, Modulate { head_dim, scale: head_dim as f32 })
    });
}

fn optimizer(criterion: &mut Criterion) {
    let work = Workload::new(Precision::F32);
    let mut parameters = Parameters::default();
    let id = parameters.insert("weight", work.random(&[30522, HIDDEN]));
    let tape = Tape::recording();
    let weight = tape.parameter(&parameters, id);
    let sum = weight.sum().expect("every tensor has a sum");
    let (gradients, loss) = (tape.backward(&sum).expect("a sum is a number"), sum.value().clone());
    drop((weight, sum));
    let mut moments = Moments::new(&parameters);
    criterion.bench_function("adamw", |bencher| {
        bencher.iter(|| AdamW::default().update(&mut parameters, &gradients, &mut moments, 1e-5, 1.0, &loss));
    });
}

criterion_group! {
    name = operations;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2));
    targets = products, passes, genetic, optimizer
}
criterion_main!(operations);
