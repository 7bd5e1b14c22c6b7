//! Rows brought to unit length, so that inner products are cosines.

use crate::error::Result;
use crate::tape::Var;
use crate::tensor::Tensor;

impl Var {
    /// Each row divided by its Euclidean norm, taken to be at least 1e-12.
    pub fn l2_normalize(&self) -> Result<Var> {
        let x = self.value();
        let mut y = x.empty_like();
        let mut norms = Tensor::empty(x.device(), &[x.rows(), 1]);
        x.device().kernels().l2_normalize(x, &mut y, &mut norms);
        let (node, kept) = (self.node(), y.clone());
        Ok(Var::record(y, &[self], move |dy, gradients| {
            let mut dx = kept.empty_like();
            dy.device().kernels().l2_normalize_backward(&kept, &norms, dy, &mut dx);
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
        fn l2_normalize_has_the_right_gradient(m in 1..9_usize, n in 2..50_usize, seed in 0..1000_u64) {
            // Near the origin the function bends too sharply for differences: one feature is kept away from 0.
            let mut x = random(&[m, n], seed);
            x.data_mut().iter_mut().step_by(n).for_each(|x| *x = x.abs() + 1.0);
            check_gradients(&[x], |v| v[0].l2_normalize());
        }
    }
}
