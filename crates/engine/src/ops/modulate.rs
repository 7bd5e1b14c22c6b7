//! The modulation of attention's output by gene fitness (docs/genetic-attention.md, section 2).

use crate::error::{Result, ensure_shape};
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::Tensor;

/// How the modulation is applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modulate {
    /// Genes: the head dimension `d`.
    pub head_dim: usize,
    /// What the fitness is multiplied by.
    pub scale: f32,
}

/// Fails unless `fitness` is one that [`Var::modulate`] takes for `x`.
pub(super) fn ensure_modulates(x: &Tensor, gamma: &Tensor, sequences: &Sequences, options: Modulate) -> Result<()> {
    let d = options.head_dim;
    ensure_shape!(
        x.rows() == sequences.tokens()
            && [sequences.len(), sequences.tokens()].contains(&gamma.rows())
            && d > 0
            && gamma.columns() > 0
            && gamma.columns().is_multiple_of(d)
            && x.columns().is_multiple_of(gamma.columns()),
        "modulate",
        "{:?} and fitness {:?} do not fit {} tokens in {} sequences, head dimension {d}",
        x.shape(),
        gamma.shape(),
        sequences.tokens(),
        sequences.len()
    );
    Ok(())
}

impl Var {
    /// `scale · γ ⊙ x`: `x` `[N, h·d]`, `fitness` `[S, v·d]` (of each sequence) or `[N, v·d]` (of each position);
    /// query head `i` takes the fitness of its kv head `i / (h / v)`.
    pub fn modulate(&self, fitness: &Var, sequences: &Sequences, options: Modulate) -> Result<Var> {
        let (x, gamma) = (self.value().clone(), fitness.value().clone());
        ensure_modulates(&x, &gamma, sequences, options)?;
        let mut out = x.empty_like();
        x.device().kernels().modulate(&x, &gamma, sequences, &options, &mut out);
        let (nodes, sequences) = ([self.node(), fitness.node()], sequences.clone());
        Ok(Var::record(out, &[self, fitness], move |dout, gradients| {
            let (mut dx, mut dgamma) = (x.empty_like(), gamma.empty_like());
            let kernels = dout.device().kernels();
            kernels.modulate_backward(&x, &gamma, &sequences, &options, dout, [&mut dx, &mut dgamma]);
            gradients.add(nodes[0], dx);
            gradients.add(nodes[1], dgamma);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, random, sequences};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn modulation_has_the_right_gradient(
            lengths in prop::collection::vec(1..7_usize, 1..4),
            (kv, group, d) in (1..3_usize, 1..3_usize, 1..7_usize),
            per_token: bool,
            seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let rows = if per_token { sequences.tokens() } else { sequences.len() };
            let inputs = [random(&[sequences.tokens(), kv * group * d], seed), random(&[rows, kv * d], seed + 1)];
            let options = Modulate { head_dim: d, scale: 1.5 };
            check_gradients(&inputs, |v| v[0].modulate(&v[1], &sequences, options));
        }
    }
}
