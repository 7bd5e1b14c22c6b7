//! Section 8 of docs/genetic-attention.md, as far as it concerns the whole module; the evolution's own properties are
//! tested in the engine.

mod reference;

use mendel_engine::ops::attention::Attention as Core;
use mendel_engine::ops::evolve::{Evolve, Population, evolve};
use mendel_engine::ops::gene_fitness::GeneFitness;
use mendel_engine::ops::modulate::Modulate;
use mendel_engine::random::{Stream, fill_normal};
use mendel_engine::{Device, Gradient, Parameters, Sequences, Tape, Tensor};
use proptest::prelude::*;

use super::*;
use crate::default;

const TRAINING: Mode = Mode::Training { seed: 11, step: 3 };

const STANDARD: AttentionConfig = AttentionConfig {
    hidden_size: 16,
    n_heads: 4,
    n_kv_heads: 4,
    in_proj_dim: None,
    qk_norm: false,
    bias: true,
    dropout: 0.0,
    causal: false,
    genetic: None,
};

fn genetic(genetic: Genetic) -> AttentionConfig {
    AttentionConfig { genetic: Some(genetic), ..STANDARD }
}

fn fixed_point() -> Genetic {
    Genetic { num_generations: 0, ..default() }
}

fn mean_field() -> Genetic {
    Genetic { evolution: Evolution::MeanField, ..default() }
}

/// Normal numbers.
fn random(shape: &[usize], deviation: f32, seed: u64, name: &str) -> Tensor {
    let mut tensor = Tensor::empty(&Device::cpu(), shape);
    fill_normal(&Stream::weights(seed, name), deviation, tensor.data_mut());
    tensor
}

/// An attention module with parameters of its own.
struct Module {
    attention: Attention,
    parameters: Parameters,
}

impl Module {
    /// Drawn so that queries, keys and values are of order 1. The same seed draws the same tensors by name.
    fn draw(config: AttentionConfig, seed: u64) -> Module {
        config.validate().unwrap();
        let mut parameters = Parameters::default();
        let (hidden, kv) = (config.hidden_size, config.n_kv_heads * config.head_dim());
        let latent = config.in_proj_dim.unwrap_or(hidden);
        let mut linear = |name: &str, out: usize, width: usize| {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            let deviation = 1.2 / (width as f32).sqrt();
            Linear {
                weight: parameters.insert(&weight, random(&[out, width], deviation, seed, &weight)),
                bias: config.bias.then(|| parameters.insert(&bias, random(&[out], 0.5, seed, &bias))),
            }
        };
        let attention = Attention {
            config,
            layer: 1,
            in_proj: config.in_proj_dim.map(|width| linear("in_proj", width, hidden)),
            query: linear("query", hidden, latent),
            key: linear("key", kv, latent),
            value: linear("value", kv, latent),
            output: linear("output", hidden, hidden),
            qk_norm: None,
        };
        let qk_norm = config.qk_norm.then(|| {
            ["query_norm.weight", "key_norm.weight"].map(|name| {
                let mut gain = random(&[config.head_dim()], 0.3, seed, name);
                gain.data_mut().iter_mut().for_each(|x| *x += 1.0);
                parameters.insert(name, gain)
            })
        });
        Module { attention: Attention { qk_norm, ..attention }, parameters }
    }

    fn pass<'a>(&'a self, tape: &'a Tape, sequences: &'a Sequences, mode: Mode) -> Pass<'a> {
        Pass { tape, parameters: &self.parameters, sequences, mode, probe: None }
    }

    fn forward(&self, pass: &Pass<'_>, x: &Var) -> Var {
        self.attention.output.forward(pass, &self.attention.mix(pass, x).unwrap()).unwrap()
    }

    fn run(&self, x: &Tensor, sequences: &Sequences, mode: Mode) -> Vec<f32> {
        let tape = Tape::inference();
        let x = tape.constant(x.clone());
        self.forward(&self.pass(&tape, sequences, mode), &x).value().to_vec()
    }

    /// The values `V` of an input.
    fn values(&self, x: &Tensor, sequences: &Sequences) -> Tensor {
        let tape = Tape::inference();
        let pass = self.pass(&tape, sequences, Mode::Evaluation);
        let x = tape.constant(x.clone());
        let latent = self.attention.in_proj.map_or(x.clone(), |in_proj| in_proj.forward(&pass, &x).unwrap());
        self.attention.value.forward(&pass, &latent).unwrap().value().clone()
    }

    /// The ancestry that section 3 says for this mode, found without the module.
    fn ancestry(&self, x: &Tensor, sequences: &Sequences, mode: Mode) -> Option<Tensor> {
        let genetic = self.attention.config.genetic.filter(|genetic| genetic.num_generations > 0)?;
        let population = match (mode, genetic.evolution) {
            (Mode::Training { seed, step }, Evolution::Sampled) => {
                Population::Sampled { size: genetic.population_size, seed, step, layer: 1 }
            }
            _ => Population::Infinite,
        };
        let options = Evolve {
            head_dim: self.attention.config.head_dim(),
            num_generations: genetic.num_generations,
            mutation_rate: genetic.mutation_rate as f32,
            crossover_rate: genetic.crossover_rate as f32,
            selection_pressure: genetic.selection_pressure as f32,
            population,
        };
        Some(evolve(&self.values(x, sequences), sequences, options).unwrap().ancestry.shares())
    }
}

/// Sequences numbered from 20.
fn sequences(lengths: &[usize]) -> Sequences {
    let ids: Vec<u32> = (20..).take(lengths.len()).collect();
    Sequences::new(&Device::cpu(), lengths, &ids).unwrap()
}

fn input(tokens: usize, seed: u64) -> Tensor {
    random(&[tokens, STANDARD.hidden_size], 1.0, seed, "x")
}

/// Some rows of a matrix.
fn rows(x: &Tensor, order: impl IntoIterator<Item = usize>) -> Tensor {
    let width = x.columns();
    let data: Vec<f32> = order.into_iter().flat_map(|row| x.data()[row * width..][..width].to_vec()).collect();
    Tensor::from_slice(&Device::cpu(), &[data.len() / width, width], &data).unwrap()
}

/// Absolute, and relative to 1.
#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= bound * b.abs().max(1.0), "element {i}: {a}, expected {b}");
    }
}

/// Every kind of attention module, over the options that can be had together.
fn any_config() -> impl Strategy<Value = AttentionConfig> {
    let kind = prop::sample::select(vec![
        None,
        Some(fixed_point()),
        Some(mean_field()),
        Some(Genetic { selection_pressure: 4.0, num_generations: 3, crossover_rate: 0.4, ..mean_field() }),
        Some(default()),
        Some(Genetic { population_size: 5, mutation_rate: 0.3, fitness_scale: FitnessScale::UnitSum, ..default() }),
        Some(Genetic { fitness_scale: FitnessScale::UnitSum, ..fixed_point() }),
    ]);
    let in_proj = prop::sample::select(vec![None, Some(5), Some(16)]);
    (kind, prop::sample::select(vec![1, 2, 4]), in_proj, any::<[bool; 3]>()).prop_map(
        |(genetic, n_kv_heads, in_proj_dim, [qk_norm, bias, causal])| AttentionConfig {
            n_kv_heads,
            in_proj_dim,
            qk_norm,
            bias,
            causal: causal && genetic.is_none_or(|genetic| genetic.num_generations == 0),
            genetic,
            ..STANDARD
        },
    )
}

/// 16 random cases, or as many as `PROPTEST_CASES` says.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    ProptestConfig { cases, failure_persistence: None, ..default() }
}

/// The module's inputs and parameters in double precision.
fn named(module: &Module, x: &Tensor) -> reference::Named {
    let double = |tensor: &Tensor| tensor.data().iter().map(|&x| f64::from(x)).collect();
    let parameters = module.parameters.iter().map(|(_, name, tensor)| (name.to_owned(), double(tensor)));
    parameters.chain([("x".to_owned(), double(x))]).collect()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_module_is_that_of_the_definition_in_double_precision(
        config in any_config(), lengths in prop::collection::vec(1..12_usize, 1..4), trains: bool, seed in 0..1000_u64,
    ) {
        let mode = if trains { TRAINING } else { Mode::Evaluation };
        let module = Module::draw(config, seed);
        let sequences = sequences(&lengths);
        let x = input(sequences.tokens(), seed);
        let ancestry = module.ancestry(&x, &sequences, mode);
        let shares = ancestry.as_ref().map(|ancestry| ancestry.data());
        let expected = reference::output(&config, &named(&module, &x), &lengths, shares);
        let expected: Vec<f32> = expected.into_iter().map(|x| x as f32).collect();
        assert_close(&module.run(&x, &sequences, mode), &expected, 5e-6);
    }

    /// Every element of the input and of every parameter. The differences are of the double-precision reference, good
    /// to 1e-8, so the bound is single precision's: 1e-4 of the tensor's largest gradient (or of 1); 3e-5 has been seen.
    #[test]
    fn gradients_of_the_module_agree_with_central_differences_with_the_ancestry_held(
        config in any_config(), lengths in prop::collection::vec(1..6_usize, 1..3), trains: bool, seed in 0..1000_u64,
    ) {
        let mode = if trains { TRAINING } else { Mode::Evaluation };
        let module = Module::draw(config, seed);
        let sequences = sequences(&lengths);
        let x = input(sequences.tokens(), seed);
        let weights = input(sequences.tokens(), seed + 1);
        let ancestry = module.ancestry(&x, &sequences, mode);

        let tape = Tape::recording();
        let leaf = tape.leaf(x.clone());
        let out = module.forward(&module.pass(&tape, &sequences, mode), &leaf);
        let loss = out.mul(&tape.constant(weights.clone())).unwrap().sum().unwrap();
        let gradients = tape.backward(&loss).unwrap();

        let inputs = named(&module, &x);
        let loss_of = |inputs: &reference::Named| -> f64 {
            let out = reference::output(&config, inputs, &lengths, ancestry.as_ref().map(|ancestry| ancestry.data()));
            out.iter().zip(weights.data()).map(|(&y, &w)| y * f64::from(w)).sum()
        };
        for name in inputs.keys() {
            let gradient = match module.parameters.id(name) {
                Some(id) => gradients.of_parameter(id).map(Gradient::dense),
                None => gradients.of(&leaf),
            };
            let gradient = gradient.expect("every input and parameter has a gradient").to_vec();
            let step = 1e-5;
            let by_differences: Vec<f64> = (0..gradient.len())
                .map(|element| {
                    let shifted = |by: f64| {
                        let mut inputs = inputs.clone();
                        inputs.get_mut(name).unwrap()[element] += by;
                        loss_of(&inputs)
                    };
                    (shifted(step) - shifted(-step)) / (2.0 * step)
                })
                .collect();
            let largest = by_differences.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
            for (element, (&got, want)) in gradient.iter().zip(&by_differences).enumerate() {
                let error = (f64::from(got) - want).abs() / largest;
                prop_assert!(error < 1e-4, "{name}, element {element}: {got}, by differences {want} ({config:?})");
            }
        }
    }

    /// To the bit: a unit in the last place of the values could change a parent and with it the whole population.
    #[test]
    fn a_sequence_has_the_same_output_alone_and_at_any_place_of_any_batch(
        config in any_config(), lengths in prop::collection::vec(1..40_usize, 1..7), drops: bool, trains: bool,
        seed in 0..1000_u64,
    ) {
        let mode = if trains { TRAINING } else { Mode::Evaluation };
        let module = Module::draw(AttentionConfig { dropout: if drops { 0.1 } else { 0.0 }, ..config }, seed);
        let batch = sequences(&lengths);
        let x = input(batch.tokens(), seed);
        let together = module.run(&x, &batch, mode);
        let width = config.hidden_size;
        for (s, range) in batch.ranges().enumerate() {
            let alone = Sequences::new(&Device::cpu(), &lengths[s..=s], &[20 + s as u32]).unwrap();
            let own = module.run(&rows(&x, range.clone()), &alone, mode);
            prop_assert!(own == together[range.start * width..range.end * width]);
        }
        let reversed: Vec<usize> = batch.ranges().collect::<Vec<_>>().into_iter().rev().flatten().collect();
        let lengths: Vec<usize> = lengths.iter().rev().copied().collect();
        let ids: Vec<u32> = (20..).take(lengths.len()).collect::<Vec<_>>().into_iter().rev().collect();
        let other = Sequences::new(&Device::cpu(), &lengths, &ids).unwrap();
        let elsewhere = module.run(&rows(&x, reversed.iter().copied()), &other, mode);
        let expected: Vec<f32> = reversed.iter().flat_map(|&row| together[row * width..][..width].to_vec()).collect();
        prop_assert!(elsewhere == expected);
    }

    #[test]
    fn permuting_the_tokens_permutes_the_output(
        config in any_config(), length in 1..30_usize, by in 0..30_usize, seed in 0..1000_u64,
    ) {
        let module = Module::draw(AttentionConfig { causal: false, ..config }, seed);
        let x = input(length, seed);
        let order: Vec<usize> = (0..length).map(|i| (i + by) % length).rev().collect();
        let here = module.run(&x, &sequences(&[length]), Mode::Evaluation);
        let there = module.run(&rows(&x, order.iter().copied()), &sequences(&[length]), Mode::Evaluation);
        let width = config.hidden_size;
        let expected: Vec<f32> = order.iter().flat_map(|&row| here[row * width..][..width].to_vec()).collect();
        assert_close(&there, &expected, 1e-5);
    }

    #[test]
    fn no_generations_are_the_mean_field_under_mutation_alone(
        length in 1..30_usize, num_generations in 1..6_usize, crossover_rate in 0.0..1.0_f64, seed in 0..1000_u64,
    ) {
        let x = input(length, seed);
        let run = |kind| Module::draw(genetic(kind), seed).run(&x, &sequences(&[length]), Mode::Evaluation);
        let mutants = Genetic { num_generations, mutation_rate: 1.0, crossover_rate, ..mean_field() };
        assert_close(&run(mutants), &run(fixed_point()), 2e-6);
    }

    #[test]
    fn a_causal_output_does_not_see_later_tokens_and_its_last_position_is_the_fixed_point(
        config in any_config(), length in 1..30_usize, seed in 0..1000_u64,
    ) {
        let genetic = config.genetic.map(|genetic| Genetic { num_generations: 0, ..genetic });
        let config = AttentionConfig { causal: true, genetic, ..config };
        let module = Module::draw(config, seed);
        let width = config.hidden_size;
        let x = input(length, seed);
        let out = module.run(&x, &sequences(&[length]), Mode::Evaluation);
        let all = Module::draw(AttentionConfig { causal: false, ..config }, seed);
        for t in 0..length {
            let mut changed = x.clone();
            changed.data_mut()[(t + 1) * width..].iter_mut().for_each(|x| *x = 3.0 - *x);
            let seen = module.run(&changed, &sequences(&[length]), Mode::Evaluation);
            prop_assert!(out[..(t + 1) * width] == seen[..(t + 1) * width]);
            // To rounding, since the products have another size.
            let prefix = all.run(&rows(&x, 0..=t), &sequences(&[t + 1]), Mode::Evaluation);
            assert_close(&out[t * width..][..width], &prefix[t * width..], 1e-5);
        }
    }

    #[test]
    fn modulating_the_values_before_the_attention_is_modulating_its_output(
        lengths in prop::collection::vec(1..30_usize, 1..4), (kv, group, d) in (1..3_usize, 1..3_usize, 1..20_usize),
        evolves: bool, seed in 0..1000_u64,
    ) {
        let sequences = sequences(&lengths);
        let tape = Tape::inference();
        let draw = |heads: usize, name| tape.constant(random(&[sequences.tokens(), heads * d], 1.5, seed, name));
        let (q, k, v) = (draw(kv * group, "q"), draw(kv, "k"), draw(kv, "v"));
        let evolved = Evolve {
            head_dim: d, num_generations: 5, mutation_rate: 0.1, crossover_rate: 0.8, selection_pressure: 1.0,
            population: Population::Sampled { size: 32, seed, step: 1, layer: 0 },
        };
        let ancestry = evolves.then(|| evolve(v.value(), &sequences, evolved).unwrap().ancestry);
        let fitness = v.gene_fitness(&sequences, GeneFitness { head_dim: d, causal: false, ancestry }).unwrap();
        let modulate = Modulate { head_dim: d, scale: d as f32 };
        let core = Core { n_heads: kv * group, n_kv_heads: kv, causal: false, dropout: None };
        let modulated = v.modulate(&fitness, &sequences, modulate).unwrap();
        let before = Var::attention(&q, &k, &modulated, &sequences, core).unwrap();
        let attended = Var::attention(&q, &k, &v, &sequences, core).unwrap();
        let after = attended.modulate(&fitness, &sequences, modulate).unwrap();
        assert_close(before.value().data(), after.value().data(), 2e-6);
    }
}

#[test]
fn with_equal_gene_means_unit_mean_genetic_attention_is_standard_attention_to_the_bit() {
    for hidden_size in [4, 16, 32, 128, 512] {
        for kind in [fixed_point(), mean_field(), default()] {
            for seed in 0..10 {
                let standard = AttentionConfig { hidden_size, ..STANDARD };
                let mut modules =
                    [None, Some(kind)].map(|genetic| Module::draw(AttentionConfig { genetic, ..standard }, seed));
                for module in &mut modules {
                    // Every gene of a token has the same value, and every token another.
                    let bias = module.attention.value.bias.unwrap();
                    let weight = module.parameters.get_mut(module.attention.value.weight).data_mut();
                    let first = weight[..hidden_size].to_vec();
                    weight.chunks_mut(hidden_size).for_each(|row| row.copy_from_slice(&first));
                    module.parameters.get_mut(bias).data_mut().fill(0.3);
                }
                let x = random(&[23, hidden_size], 1.0, seed, "x");
                let [standard, genetic] = modules.map(|module| module.run(&x, &sequences(&[16, 7]), Mode::Evaluation));
                assert!(standard == genetic, "{hidden_size} {kind:?}: {}", largest_difference(&standard, &genetic));
            }
        }
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn evaluation_never_draws() {
    let x = input(12, 1);
    let evaluate = |kind| Module::draw(genetic(kind), 1).run(&x, &sequences(&[5, 7]), Mode::Evaluation);
    let sampled = evaluate(default());
    assert_eq!(sampled, evaluate(mean_field()));
    assert_eq!(sampled, evaluate(Genetic { population_size: 3, ..default() }));
    let renumbered = Sequences::new(&Device::cpu(), &[5, 7], &[900, 901]).unwrap();
    assert_eq!(sampled, Module::draw(genetic(default()), 1).run(&x, &renumbered, Mode::Evaluation));
}

#[test]
fn training_draws_by_seed_step_and_sequence_number() {
    let module = Module::draw(genetic(default()), 1);
    let x = input(12, 1);
    let train = |seed, step| module.run(&x, &sequences(&[12]), Mode::Training { seed, step });
    assert_eq!(train(1, 1), train(1, 1));
    assert_ne!(train(1, 1), train(2, 1));
    assert_ne!(train(1, 1), train(1, 2));
    let other = Sequences::new(&Device::cpu(), &[12], &[21]).unwrap();
    assert_ne!(train(1, 1), module.run(&x, &other, Mode::Training { seed: 1, step: 1 }));
    // The infinite population and the fixed point draw nothing, in training either.
    for kind in [mean_field(), fixed_point()] {
        let module = Module::draw(genetic(kind), 1);
        let train = |step| module.run(&x, &sequences(&[12]), Mode::Training { seed: 1, step });
        assert_eq!(train(1), train(2));
    }
}

#[test]
fn a_larger_population_trains_on_an_output_nearer_to_evaluation() {
    let x = input(40, 1);
    let distance = |population_size| {
        let module = Module::draw(genetic(Genetic { population_size, ..default() }), 1);
        let exact = module.run(&x, &sequences(&[40]), Mode::Evaluation);
        let squares = (0..20).map(|step| {
            let drawn = module.run(&x, &sequences(&[40]), Mode::Training { seed: 1, step });
            drawn.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        });
        squares.sum::<f64>().sqrt()
    };
    let [few, many] = [16, 4096].map(distance);
    // √256 = 16 but for the limit's own error; half of that is asked for.
    assert!(few > 8.0 * many, "{few} {many}");
}

#[test]
fn one_token_small_and_large_populations_and_rates_of_0_and_1_all_work() {
    for length in [1, 2, 33] {
        for population_size in [1, 8, 100] {
            for (mutation_rate, crossover_rate) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)] {
                for selection_pressure in [0.0, 1.0, 8.0, 100.0] {
                    let kind =
                        Genetic { population_size, mutation_rate, crossover_rate, selection_pressure, ..default() };
                    let module = Module::draw(genetic(kind), 1);
                    for mode in [Mode::Evaluation, TRAINING] {
                        let out = module.run(&input(length, 1), &sequences(&[length]), mode);
                        assert!(out.iter().all(|x| x.is_finite()), "T {length}, {kind:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn values_of_eighty_and_texts_of_512_tokens_give_numbers() {
    for kind in [fixed_point(), mean_field(), default(), Genetic { selection_pressure: 100.0, ..default() }] {
        for length in [1, 4, 512] {
            let module = Module::draw(genetic(kind), 1);
            let mut x = input(length, 1);
            // Values of about ±80 and more.
            x.data_mut().iter_mut().for_each(|x| *x *= 80.0);
            let largest = module.values(&x, &sequences(&[length])).data().iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            assert!(largest > 80.0);
            for mode in [Mode::Evaluation, TRAINING] {
                let out = module.run(&x, &sequences(&[length]), mode);
                assert!(out.iter().all(|x| x.is_finite()), "T {length}, {kind:?}");
            }
        }
    }
}

/// What `validate` says of a genetic part.
fn refusal(change: impl FnOnce(&mut Genetic)) -> String {
    let mut genetic = Genetic::default();
    change(&mut genetic);
    AttentionConfig { genetic: Some(genetic), ..STANDARD }.validate().unwrap_err().to_string()
}

#[test]
fn what_the_genetic_part_cannot_be_is_refused_by_name() {
    for (rate, said) in [(-0.1, "-0.1"), (1.000_001, "1.000001"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        assert_eq!(refusal(|g| g.mutation_rate = rate), format!("mutation_rate is {said}: it must be between 0 and 1"));
        assert_eq!(
            refusal(|g| g.crossover_rate = rate),
            format!("crossover_rate is {said}: it must be between 0 and 1")
        );
    }
    for (pressure, said) in [(-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let expected = format!("selection_pressure is {said}: it must be a finite number of 0 or more");
        assert_eq!(refusal(|g| g.selection_pressure = pressure), expected);
    }
    assert_eq!(refusal(|g| g.population_size = 0), "population_size is 0: it must be between 1 and 1048576");
    let many = refusal(|g| g.population_size = 1_048_577);
    assert_eq!(many, "population_size is 1048577: it must be between 1 and 1048576");
    assert_eq!(refusal(|g| g.num_generations = 4096), "num_generations is 4096: it must be between 0 and 4095");
    for rate in [0.0, 1.0] {
        let edge = Genetic { mutation_rate: rate, crossover_rate: rate, selection_pressure: 0.0, ..default() };
        Genetic { population_size: 1, num_generations: 4095, ..edge }.validate().unwrap();
    }
}

#[test]
fn what_an_attention_module_cannot_be_is_refused_by_name() {
    let refusal = |change: fn(&mut AttentionConfig)| {
        let mut config = genetic(default());
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    let causal = refusal(|config| config.causal = true);
    assert!(causal.contains("causal") && causal.contains("num_generations to 0 (it is 5)"), "{causal}");
    assert_eq!(
        refusal(|c| c.n_heads = 3),
        "n_heads is 3: it must be a divisor of the model's width 16, and at most 256"
    );
    assert!(refusal(|c| c.n_heads = 0).starts_with("n_heads is 0"));
    assert_eq!(refusal(|c| c.n_kv_heads = 3), "n_kv_heads is 3: it must be a divisor of the number of query heads, 4");
    assert_eq!(refusal(|c| c.n_kv_heads = 8), "n_kv_heads is 8: it must be a divisor of the number of query heads, 4");
    assert!(refusal(|c| c.n_kv_heads = 0).starts_with("n_kv_heads is 0"));
    assert_eq!(refusal(|c| c.in_proj_dim = Some(0)), "in_proj_dim is 0: it must be at least 1");
    assert_eq!(refusal(|c| c.dropout = 1.0), "dropout is 1: it must be at least 0 and below 1");
    assert!(refusal(|c| c.dropout = f32::NAN).starts_with("dropout is NaN"));
}
