//! How fast training goes, also as a share of what the machine could do.

use mendel_engine::Parameters;
use serde::{Deserialize, Serialize};

/// Training speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
