//! Layer normalisation (Ba, Kiros and Hinton 2016, arXiv 1607.06450).

use crate::error::{Result, ensure_shape};
use crate::tape::Var;
use crate::tensor::Tensor;

/// Room for the gradients of a norm's gain and bias, in one piece where the device has such a layout.
pub(super) fn affine_gradients(gain: &Tensor) -> [Tensor; 2] {
    let shape = gain.shape().to_vec();
    let mut rooms = Tensor::stacked(gain.device(), &[shape.clone(), shape]).into_iter();
    [(); 2].map(|()| rooms.next().unwrap_or_else(|| gain.empty_like()))
}

impl Var {
    /// `(x − mean) / √(variance + ε) ⊙ gain + bias` over the last dimension; `gain` and `bias` are `[columns]`.
    pub fn layer_norm(&self, gain: &Var, bias: &Var, epsilon: f32) -> Result<Var> {
        let x = self.value().clone();
        ensure_shape!(
            gain.shape() == [x.columns()] && bias.shape() == [x.columns()],
            "layer_norm",
            "input {:?}, gain {:?} and bias {:?} do not fit",
            x.shape(),
            gain.shape(),
            bias.shape()
        );
        let mut y = x.empty_like();
        let mut statistics = Tensor::empty(x.device(), &[x.rows(), 2]);
        x.device().kernels().layer_norm(&x, gain.value(), bias.value(), epsilon, &mut y, &mut statistics);
        let nodes = [self.node(), gain.node(), bias.node()];
        let gain_value = gain.value().clone();
        Ok(Var::record(y, &[self, gain, bias], move |dy, gradients| {
            let mut dx = x.empty_like();
            let [mut dgain, mut dbias] = affine_gradients(&gain_value);
            let outputs = [&mut dx, &mut dgain, &mut dbias];
            dy.device().kernels().layer_norm_backward(&x, &gain_value, &statistics, dy, outputs);
            for (node, gradient) in nodes.into_iter().zip([dx, dgain, dbias]) {
                gradients.add(node, gradient);
            }
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
        fn layer_norm_has_the_right_gradient(m in 1..9_usize, n in 3..60_usize, seed in 0..1000_u64) {
            let inputs = [random(&[m, n], seed), random(&[n], seed + 1), random(&[n], seed + 2)];
            check_gradients(&inputs, |v| v[0].layer_norm(&v[1], &v[2], 0.5));
        }
    }

    #[test]
    fn a_normalised_row_has_mean_zero_and_variance_one() {
        let tape = crate::Tape::inference();
        let ones = crate::Tensor::full(&crate::testing::device(), &[50], 1.0);
        let zeros = crate::Tensor::zeros(&crate::testing::device(), &[50]);
        let x = tape.constant(random(&[1, 50], 3));
        let y = x.layer_norm(&tape.constant(ones), &tape.constant(zeros), 0.0).unwrap().value().to_vec();
        let mean = y.iter().sum::<f32>() / 50.0;
        let variance = y.iter().map(|y| y * y).sum::<f32>() / 50.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5);
    }
}
