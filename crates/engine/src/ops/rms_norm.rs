//! Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).

use crate::error::{Result, ensure_shape};
use crate::tape::Var;
use crate::tensor::Tensor;

impl Var {
    /// `x / √(mean(x²) + ε) ⊙ gain` over groups of as many columns as `gain` `[d]` has: the heads of `[N, h·d]`.
    pub fn rms_norm(&self, gain: &Var, epsilon: f32) -> Result<Var> {
        let d = gain.value().len();
        ensure_shape!(
            gain.shape().len() == 1 && d > 0 && self.value().columns().is_multiple_of(d),
            "rms_norm",
            "input {:?} is not made of groups of gain {:?}",
            self.shape(),
            gain.shape()
        );
        let shape = self.shape().to_vec();
        let x = self.value().reshape(&[self.value().len() / d, d])?;
        let mut y = x.empty_like();
        let mut inverse_rms = Tensor::empty(x.device(), &[x.rows(), 1]);
        x.device().kernels().rms_norm(&x, gain.value(), epsilon, &mut y, &mut inverse_rms);
        let nodes = [self.node(), gain.node()];
        let gain_value = gain.value().clone();
        Ok(Var::record(y.reshape(&shape)?, &[self, gain], move |dy, gradients| {
            let (mut dx, mut dgain) = (x.empty_like(), gain_value.empty_like());
            let dy = dy.reshape(x.shape())?;
            dy.device().kernels().rms_norm_backward(&x, &gain_value, &inverse_rms, &dy, [&mut dx, &mut dgain]);
            gradients.add(nodes[0], dx.reshape(&shape)?);
            gradients.add(nodes[1], dgain);
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
        fn rms_norm_has_the_right_gradient(m in 1..9_usize, heads in 1..4_usize, d in 1..40_usize, seed in 0..1000_u64) {
            let inputs = [random(&[m, heads * d], seed), random(&[d], seed + 1)];
            check_gradients(&inputs, |v| v[0].rms_norm(&v[1], 0.5));
        }
    }
}
