//! The Gaussian error linear unit (Hendrycks and Gimpel 2016, arXiv 1606.08415), in the exact form that BERT uses.

use crate::error::Result;
use crate::kernels::Unary;
use crate::tape::Var;

impl Var {
    /// `x · Φ(x)`, with `Φ(x) = (1 + erf(x / √2)) / 2`.
    pub fn gelu(&self) -> Result<Var> {
        self.unary(Unary::Gelu)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_gradients, random};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn gelu_has_the_right_gradient(m in 1..9_usize, n in 1..50_usize, seed in 0..1000_u64) {
            check_gradients(&[random(&[m, n], seed)], |v| v[0].gelu());
        }
    }
}
