//! Linear maps.

use crate::device::Device;
use crate::error::{Result, ensure_shape};
use crate::kernels::{Activation, Affine, LinearGradients};
use crate::tape::Var;
use crate::tensor::Tensor;

/// Room for the gradients at those nodes that want one, in one piece where the device has such a layout.
fn wanted(device: &Device, places: impl Iterator<Item = (Option<usize>, Vec<usize>)>) -> Vec<Option<Tensor>> {
    let (nodes, shapes): (Vec<_>, Vec<_>) = places.unzip();
    let shapes: Vec<Vec<usize>> = nodes.iter().zip(shapes).filter_map(|(node, shape)| node.map(|_| shape)).collect();
    let mut rooms = Tensor::stacked(device, &shapes).into_iter();
    nodes.into_iter().map(|node| node.and_then(|_| rooms.next())).collect()
}

pub(super) fn ensure_fits(input: &[usize], (weight, bias): &(&Var, Option<&Var>)) -> Result<()> {
    let shape = weight.shape();
    ensure_shape!(
        shape.len() == 2 && input.last() == shape.last() && bias.is_none_or(|bias| bias.shape() == [shape[0]]),
        "linear",
        "input {input:?}, weight {shape:?} and bias {:?} do not fit",
        bias.map(Var::shape)
    );
    Ok(())
}

pub(super) fn constant_affine<'a>((weight, bias): (&'a Var, Option<&'a Var>)) -> Affine<'a> {
    Affine { weight: weight.value(), bias: bias.map(Var::value), constant: true }
}

impl Var {
    /// `x Wᵀ + b`: `x` `[rows, in]`, `W` `[out, in]` as PyTorch keeps it, `b` `[out]`; the result is `[rows, out]`.
    pub fn linear(&self, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        self.one_linear(Activation::Identity, weight, bias)
    }

    /// `gelu(x) Wᵀ + b`, shapes as for [`Var::linear`]: GELU is taken when the product reads its input, and again when
    /// the gradient does, so that its values are never in memory.
    pub fn gelu_linear(&self, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        self.one_linear(Activation::Gelu, weight, bias)
    }

    fn one_linear(&self, activation: Activation, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        let mut results = self.linear_maps(activation, &[(weight, bias)])?;
        Ok(results.remove(0))
    }

    /// Several linear maps `[out_k, in]` of one input: it is read once, and so is its gradient written.
    pub fn linears(&self, parts: &[(&Var, Option<&Var>)]) -> Result<Vec<Var>> {
        self.linear_maps(Activation::Identity, parts)
    }

    fn linear_maps(&self, activation: Activation, parts: &[(&Var, Option<&Var>)]) -> Result<Vec<Var>> {
        let x = self.value().clone();
        for part in parts {
            ensure_fits(x.shape(), part)?;
        }
        let affine = |(weight, bias): &(&Var, Option<&Var>)| (weight.value().clone(), bias.map(|b| b.value().clone()));
        let kept: Vec<(Tensor, Option<Tensor>)> = parts.iter().map(affine).collect();
        let inputs: Vec<&Var> = std::iter::once(self)
            .chain(parts.iter().flat_map(|&(weight, bias)| [Some(weight), bias]).flatten())
            .collect();
        let constant = inputs.iter().all(|input| input.node().is_none());
        let maps = kept.iter().map(|(weight, bias)| Affine { weight, bias: bias.as_ref(), constant });
        let maps: Vec<Affine<'_>> = maps.collect();
        let columns: Vec<usize> = maps.iter().map(|map| map.weight.rows()).collect();
        let mut outs = Tensor::side_by_side(x.device(), x.rows(), &columns);
        x.device().kernels().linear(&x, activation, &maps, &mut outs);
        let node = self.node();
        let nodes: Vec<_> = parts.iter().map(|(weight, bias)| (weight.node(), bias.and_then(Var::node))).collect();
        let weights: Vec<Tensor> = kept.into_iter().map(|(weight, _)| weight).collect();
        Ok(Var::record_many(outs, &inputs, move |douts, gradients| {
            let device = x.device().clone();
            let reached: Vec<usize> = (0..douts.len()).filter(|&part| douts[part].is_some()).collect();
            let douts: Vec<&Tensor> = douts.iter().flatten().collect();
            let weights: Vec<&Tensor> = reached.iter().map(|&part| &weights[part]).collect();
            let before = gradients.take(node);
            let add = before.is_some();
            let mut dx = node.map(|_| before.unwrap_or_else(|| x.empty_like()));
            let of_weights =
                reached.iter().zip(&weights).map(|(&part, weight)| (nodes[part].0, weight.shape().to_vec()));
            let of_biases = reached.iter().zip(&weights).map(|(&part, weight)| (nodes[part].1, vec![weight.rows()]));
            let (mut dweights, mut dbiases) = (wanted(&device, of_weights), wanted(&device, of_biases));
            let outputs = LinearGradients {
                input: dx.as_mut(),
                add,
                weights: dweights.iter_mut().map(Option::as_mut).collect(),
                biases: dbiases.iter_mut().map(Option::as_mut).collect(),
            };
            device.kernels().linear_backward(x, activation, &weights, &douts, outputs);
            if let Some(dx) = dx {
                gradients.put(node, dx);
            }
            for (part, (dweight, dbias)) in reached.into_iter().zip(dweights.into_iter().zip(dbiases)) {
                let (w_node, b_node) = nodes[part];
                dweight.into_iter().for_each(|gradient| gradients.add(w_node, gradient));
                dbias.into_iter().for_each(|gradient| gradients.add(b_node, gradient));
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_gradients, random};
    use crate::{Tape, Tensor, Var};
    use proptest::prelude::*;

    #[test]
    fn what_is_kept_of_a_weight_is_never_that_of_another_content_or_shape() {
        let (x, mut weight) = (random(&[5, 6], 1), random(&[4, 6], 2));
        let narrow = random(&[5, 4], 3);
        let product = |x: &Tensor, weight: Var| Tape::inference().constant(x.clone()).linear(&weight, None).unwrap();
        let mut check = |change: f32| {
            weight.data_mut()[0] += change;
            for _ in 0..2 {
                let of = Tape::inference().constant(weight.clone());
                let wide = product(&x, of.clone()).value().to_vec();
                let turned = product(&narrow, of.reshape(&[6, 4]).unwrap()).value().to_vec();
                // Nothing is kept of a copy.
                let fresh = Tensor::from_slice(weight.device(), &[4, 6], weight.data()).unwrap();
                let of = Tape::inference().constant(fresh);
                assert_eq!(product(&narrow, of.reshape(&[6, 4]).unwrap()).value().to_vec(), turned);
                let fresh = Tensor::from_slice(weight.device(), &[4, 6], weight.data()).unwrap();
                assert_eq!(product(&x, Tape::inference().constant(fresh)).value().to_vec(), wide);
            }
        };
        check(0.0);
        check(1.0);
    }

    #[test]
    fn the_gradient_of_a_weight_through_no_rows_is_zero() {
        for rows in [50, 0] {
            let tape = Tape::recording();
            let weight = tape.leaf(random(&[4, 6], 1));
            let product = tape.constant(random(&[rows, 6], 2)).linear(&weight, None).unwrap();
            let gradient = tape.backward(&product.sum().unwrap()).unwrap().of(&weight).unwrap();
            assert_eq!(gradient.to_vec().iter().all(|&x| x == 0.0), rows == 0, "{rows} rows");
        }
    }

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn linear_has_the_right_gradient(m in 1..9_usize, n in 1..9_usize, k in 1..40_usize, seed in 0..1000_u64) {
            let inputs = [random(&[m, k], seed), random(&[n, k], seed + 1), random(&[n], seed + 2)];
            check_gradients(&inputs, |v| v[0].linear(&v[1], Some(&v[2])));
            check_gradients(&inputs[..2], |v| v[0].linear(&v[1], None));
            check_gradients(&inputs, |v| v[0].gelu_linear(&v[1], Some(&v[2])));
        }

        #[test]
        fn several_maps_of_one_input_have_the_right_gradient(m in 1..9_usize, k in 1..40_usize, seed in 0..1000_u64) {
            let inputs = [random(&[m, k], seed), random(&[5, k], seed + 1), random(&[3, k], seed + 2), random(&[3], seed)];
            check_gradients(&inputs, |v| {
                let maps = v[0].linears(&[(&v[1], None), (&v[2], Some(&v[3]))])?;
                // The input is used once more, so that its gradient is added to.
                maps[0].matmul_transposed(&maps[0])?.sum()?.add(&maps[1].sum()?)?.add(&v[0].sum()?)
            });
            check_gradients(&inputs, |v| v[0].linears(&[(&v[1], None), (&v[2], Some(&v[3]))]).map(|mut maps| maps.remove(1))?.add(&v[1].sum()?.add(&v[0].sum()?)?));
        }
    }
}
