//! How fast training goes, also as a share of what the machine could do.

use std::hint::black_box;
use std::time::Instant;

use mendel_engine::{Device, Parameters, Tape, Tensor};
use serde::Serialize;

/// Side of the square matrices by which the machine's peak is measured.
const SIDE: usize = 1024;
/// How often it is measured; the fastest counts.
const REPETITIONS: usize = 5;

/// Training speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Pairs per second of training.
    pub pairs_per_second: f64,
    /// Real tokens per second of training.
    pub tokens_per_second: f64,
    /// 6 × encoder parameters × tokens per second, over the machine's measured matrix peak (Chowdhery et al. 2022,
    /// arXiv 2204.02311, appendix B).
    pub model_flop_utilisation: f64,
}

impl Throughput {
    /// From what was trained in so many seconds, and the machine's peak in operations per second.
    pub fn new(pairs: f64, tokens: f64, seconds: f64, parameters: &Parameters, peak: f64) -> Self {
        let tokens_per_second = tokens / seconds;
        Throughput {
            pairs_per_second: pairs / seconds,
            tokens_per_second,
            model_flop_utilisation: 6.0 * encoder_parameters(parameters) as f64 * tokens_per_second / peak,
        }
    }
}

/// Parameters that every token is multiplied with: all but the embedding tables.
pub fn encoder_parameters(parameters: &Parameters) -> usize {
    parameters.iter().filter(|(_, name, _)| !name.starts_with("embeddings.")).map(|(_, _, tensor)| tensor.len()).sum()
}

/// The matrix peak that the device reaches, in operations per second: a large product of the engine's own.
pub fn matrix_peak(device: &Device) -> f64 {
    let tape = Tape::inference();
    let square = |value| tape.constant(Tensor::full(device, &[SIDE, SIDE], value));
    let (a, b) = (square(0.5), square(0.25));
    let seconds = (0..=REPETITIONS).map(|_| {
        let started = Instant::now();
        black_box(a.matmul(&b).ok());
        started.elapsed().as_secs_f64()
    });
    let fastest = seconds.skip(1).fold(f64::INFINITY, f64::min);
    2.0 * (SIDE as f64).powi(3) / fastest
}
