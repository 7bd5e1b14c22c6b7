//! The affine map.

use crate::error::{Result, ensure_shape};
use crate::kernels::Matrix;
use crate::tape::Var;
use crate::tensor::Tensor;

impl Var {
    /// `x Wᵀ + b`: `x` `[rows, in]`, `W` `[out, in]` as PyTorch keeps it, `b` `[out]`; the result is `[rows, out]`.
    pub fn linear(&self, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        let (x, w) = (self.value().clone(), weight.value().clone());
        ensure_shape!(
            w.shape().len() == 2 && x.columns() == w.columns() && bias.is_none_or(|b| b.shape() == [w.rows()]),
            "linear",
            "input {:?}, weight {:?} and bias {:?} do not fit",
            x.shape(),
            w.shape(),
            bias.map(Var::shape)
        );
        let mut y = Tensor::empty(x.device(), &[x.rows(), w.rows()]);
        x.device().kernels().matmul(Matrix::plain(&x), Matrix::transposed(&w), bias.map(Var::value), &mut y);
        let (x_node, w_node, b_node) = (self.node(), weight.node(), bias.and_then(Var::node));
        let inputs = [Some(self), Some(weight), bias];
        let inputs: Vec<&Var> = inputs.into_iter().flatten().collect();
        Ok(Var::record(y, &inputs, move |dy, gradients| {
            let kernels = dy.device().kernels();
            if x_node.is_some() {
                let mut dx = x.empty_like();
                kernels.matmul(Matrix::plain(dy), Matrix::plain(&w), None, &mut dx);
                gradients.add(x_node, dx);
            }
            if w_node.is_some() {
                let mut dw = w.empty_like();
                kernels.matmul(Matrix::transposed(dy), Matrix::plain(&x), None, &mut dw);
                gradients.add(w_node, dw);
            }
            if b_node.is_some() {
                let mut db = Tensor::empty(dy.device(), &[w.rows()]);
                kernels.reduce(dy, &mut db);
                gradients.add(b_node, db);
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
        fn linear_has_the_right_gradient(m in 1..9_usize, n in 1..9_usize, k in 1..40_usize, seed in 0..1000_u64) {
            let inputs = [random(&[m, k], seed), random(&[n, k], seed + 1), random(&[n], seed + 2)];
            check_gradients(&inputs, |v| v[0].linear(&v[1], Some(&v[2])));
            check_gradients(&inputs[..2], |v| v[0].linear(&v[1], None));
        }
    }
}
