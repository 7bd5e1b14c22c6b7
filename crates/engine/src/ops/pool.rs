//! One vector per sequence from its tokens' vectors.

use crate::error::{Result, ensure_shape};
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::{Ids, Tensor};

/// What of a sequence's tokens is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the tokens.
    Mean,
    /// The first token.
    Cls,
    /// The largest value of each feature.
    Max,
}

impl Var {
    /// `[N, H] → [S, H]`
    pub fn pool(&self, sequences: &Sequences, pooling: Pooling) -> Result<Var> {
        let x = self.value();
        ensure_shape!(
            x.rows() == sequences.tokens(),
            "pool",
            "{:?} does not have {} tokens",
            x.shape(),
            sequences.tokens()
        );
        let node = self.node();
        let mut out = Tensor::empty(x.device(), &[sequences.len(), x.columns()]);
        let mut argmax = Ids::empty(x.device(), out.shape());
        x.device().kernels().pool(x, sequences, pooling, &mut out, &mut argmax);
        let (sequences, room) = (sequences.clone(), x.room());
        Ok(Var::record(out, &[self], move |dout, gradients| {
            let mut dx = room();
            dout.device().kernels().pool_backward(dout, &sequences, pooling, &argmax, &mut dx);
            gradients.add(node, dx);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradients, distinct, sequences};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn pooling_has_the_right_gradient(lengths in prop::collection::vec(1..6_usize, 1..5), n in 1..20_usize, seed in 0..1000_u64) {
            let sequences = sequences(&lengths);
            for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Max] {
                check_gradients(&[distinct(&[sequences.tokens(), n], seed)], |v| v[0].pool(&sequences, pooling));
            }
        }
    }
}
