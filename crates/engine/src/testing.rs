//! What the engine's tests share.

use crate::random::{Stream, fill_normal};
use crate::{Device, Result, Sequences, Tape, Tensor, Var};

/// A CPU device.
pub fn device() -> Device {
    Device::cpu()
}

/// Standard normal numbers.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut tensor = Tensor::empty(&device(), shape);
    fill_normal(&Stream::weights(seed, "test"), 1.0, tensor.data_mut());
    tensor
}

/// Random numbers at least 1/4 apart within each column, so that small changes keep their order.
pub fn distinct(shape: &[usize], seed: u64) -> Tensor {
    let noise = random(shape, seed);
    let (rows, columns) = (noise.rows(), noise.columns());
    let mut tensor = noise.empty_like();
    for column in 0..columns {
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|&a, &b| noise.data()[a * columns + column].total_cmp(&noise.data()[b * columns + column]));
        for (rank, row) in order.into_iter().enumerate() {
            tensor.data_mut()[row * columns + column] = (rank as f32 - rows as f32 / 2.0 + 0.3) * 0.25;
        }
    }
    tensor
}

/// Packed sequences of these lengths, numbered from 10.
pub fn sequences(lengths: &[usize]) -> Sequences {
    let ids: Vec<u32> = (10..).take(lengths.len()).collect();
    Sequences::new(&device(), lengths, &ids).unwrap()
}

/// Runs `f` in a thread pool of its own.
pub fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// Every pair within `bound`, absolute and relative to 1.
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= bound * b.abs().max(1.0), "element {i}: {a}, expected {b}");
    }
}

/// The step of the central differences, and the error allowed relative to the largest gradient (or 1).
///
/// The five-point rule's own error is h⁴·f⁽⁵⁾/30 ≈ 5e-7 times the fifth derivative, and single precision adds about
/// 1e-6 times the outputs' norm: 2e-3 leaves room for the sharpest functions here, and a wrong gradient errs by far more.
const STEP: f32 = 1.0 / 16.0;
const BOUND: f64 = 2e-3;

/// Compares the gradients of a random weighting of `f`'s outputs with five-point central differences, in every element
/// of every input.
#[track_caller]
pub fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Var]) -> Result<Var>) {
    let evaluate = |inputs: &[Tensor]| {
        let tape = Tape::inference();
        let inputs: Vec<Var> = inputs.iter().map(|x| tape.constant(x.clone())).collect();
        f(&inputs).unwrap().value().clone()
    };
    let weights = random(evaluate(inputs).shape(), 999);
    let weighted = |inputs: &[Tensor]| -> f64 {
        let y = evaluate(inputs);
        y.data().iter().zip(weights.data()).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum()
    };
    let tape = Tape::recording();
    let leaves: Vec<Var> = inputs.iter().map(|x| tape.leaf(x.clone())).collect();
    let loss = f(&leaves).unwrap().mul(&tape.constant(weights.clone())).unwrap().sum().unwrap();
    let gradients = tape.backward(&loss).unwrap();
    for (which, leaf) in leaves.iter().enumerate() {
        let gradient = gradients.of(leaf).expect("every input has a gradient").to_vec();
        let numeric: Vec<f64> = (0..gradient.len())
            .map(|element| {
                let shifted = |steps: f32| {
                    let mut inputs = inputs.to_vec();
                    inputs[which].data_mut()[element] += steps * STEP;
                    weighted(&inputs)
                };
                (shifted(-2.0) - 8.0 * shifted(-1.0) + 8.0 * shifted(1.0) - shifted(2.0)) / (12.0 * f64::from(STEP))
            })
            .collect();
        let largest = numeric.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
        for (element, (&got, want)) in gradient.iter().zip(numeric).enumerate() {
            let error = (f64::from(got) - want).abs() / largest;
            assert!(error < BOUND, "input {which}, element {element}: {got}, by differences {want}");
        }
    }
}

/// How many random shapes a gradient check takes: 16, or as `PROPTEST_CASES` says.
pub fn cases() -> proptest::test_runner::Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}
