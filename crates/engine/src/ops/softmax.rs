//! Softmax over the last dimension.

use crate::error::Result;
use crate::tape::Var;

impl Var {
    /// `softmax(x)[r, c] = exp(x[r, c]) / Σ_s exp(x[r, s])`
    pub fn softmax(&self) -> Result<Var> {
        let node = self.node();
        let mut y = self.value().empty_like();
        y.device().clone().kernels().softmax(self.value(), &mut y);
        let kept = y.clone();
        Ok(Var::record(y, &[self], move |dy, gradients| {
            let mut dx = kept.empty_like();
            dy.device().kernels().softmax_backward(&kept, dy, &mut dx);
            gradients.add(node, dx);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_gradients, random};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn softmax_has_the_right_gradient(m in 1..9_usize, n in 1..50_usize, seed in 0..1000_u64) {
            check_gradients(&[random(&[m, n], seed)], |v| v[0].softmax());
        }
    }
}
