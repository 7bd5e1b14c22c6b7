//! The end of a transformer block: dropout, the residual sum, and its layer norm; and blocks with their end.

use super::layer_norm::affine_gradients;
use super::linear::{constant_affine, ensure_fits};
use crate::error::{Result, ensure_shape};
use crate::kernels::PlainEnd;
use crate::random::Site;
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::Tensor;

/// Dropout of what is added to the residual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResidualDropout {
    /// In (0, 1).
    pub probability: f32,
    /// Where its draws come from.
    pub site: Site,
}

/// The parameters of a layer norm.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// `[columns]`
    pub gain: &'a Var,
    /// `[columns]`
    pub bias: &'a Var,
    /// Added to the variance.
    pub epsilon: f32,
}

/// How a block ends: `layer_norm(residual + dropout(output))`.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// Of the output's shape.
    pub residual: &'a Var,
    /// Whose rows they are.
    pub sequences: &'a Sequences,
    /// What is dropped of the output.
    pub dropout: Option<ResidualDropout>,
    /// Of the sum.
    pub norm: Norm<'a>,
}

impl<'a> End<'a> {
    fn ensure_fits(&self, shape: &[usize]) -> Result<()> {
        let End { residual, sequences, dropout, norm } = self;
        ensure_shape!(
            residual.shape() == shape
                && shape.len() == 2
                && shape[0] == sequences.tokens()
                && norm.gain.shape() == &shape[1..]
                && norm.bias.shape() == &shape[1..]
                && dropout.is_none_or(|dropout| (0.0..1.0).contains(&dropout.probability)),
            "residual_norm",
            "input {shape:?}, residual {:?}, gain {:?}, bias {:?}, {} tokens and {dropout:?} do not fit",
            residual.shape(),
            norm.gain.shape(),
            norm.bias.shape(),
            sequences.tokens()
        );
        Ok(())
    }

    /// What it is for a kernel, if nothing is dropped and no gradient will be asked for of it or of what it follows.
    fn plain_after(&self, x: &Var, maps: &[(&Var, Option<&Var>)]) -> Option<PlainEnd<'a>> {
        let End { residual, norm: Norm { gain, bias, epsilon }, .. } = *self;
        let inputs = maps.iter().flat_map(|&(weight, bias)| [Some(weight), bias]).flatten();
        let plain = inputs.chain([x, residual, gain, bias]).all(|input| input.node().is_none());
        let drops = self.dropout.is_some_and(|dropout| dropout.probability > 0.0);
        let affine = [gain.value(), bias.value()];
        (plain && !drops).then(|| PlainEnd { residual: residual.value(), affine, epsilon })
    }
}

impl Var {
    /// `x Wᵀ + b` and the block's end, as [`Var::linear`] and [`Var::residual_norm`]. Where nothing is recorded, what is
    /// between need not be in memory.
    pub fn linear_norm(&self, map: (&Var, Option<&Var>), end: End<'_>) -> Result<Var> {
        let Some(plain_end) = end.plain_after(self, &[map]) else {
            return self.linear(map.0, map.1)?.residual_norm(end);
        };
        ensure_fits(self.shape(), &map)?;
        end.ensure_fits(&[self.value().rows(), map.0.value().rows()])?;
        let (x, mut y) = (self.value(), Tensor::activation(self.value().device(), end.residual.shape()));
        x.device().kernels().linear_norm(x, constant_affine(map), plain_end, &mut y);
        Ok(Var::record(y, &[self], |_, _| Ok(())))
    }

    /// `gelu(x W₁ᵀ + b₁) W₂ᵀ + b₂` and the block's end, as [`Var::linear`], [`Var::gelu_linear`] and [`Var::residual_norm`].
    /// Where nothing is recorded, what is between need not be in memory.
    pub fn feed_forward_norm(&self, maps: [(&Var, Option<&Var>); 2], end: End<'_>) -> Result<Var> {
        let [inner, outer] = maps;
        let Some(plain_end) = end.plain_after(self, &maps) else {
            return self.linear(inner.0, inner.1)?.gelu_linear(outer.0, outer.1)?.residual_norm(end);
        };
        ensure_fits(self.shape(), &inner)?;
        ensure_fits(&[self.value().rows(), inner.0.value().rows()], &outer)?;
        end.ensure_fits(&[self.value().rows(), outer.0.value().rows()])?;
        let (x, mut y) = (self.value(), Tensor::activation(self.value().device(), end.residual.shape()));
        x.device().kernels().feed_forward_norm(x, maps.map(constant_affine), plain_end, &mut y);
        Ok(Var::record(y, &[self], |_, _| Ok(())))
    }

    /// `layer_norm(residual + dropout(x))`, all `[N, columns]`: the same as [`Var::dropout`], [`Var::add`] and
    /// [`Var::layer_norm`] one after the other, in one pass.
    pub fn residual_norm(&self, end: End<'_>) -> Result<Var> {
        end.ensure_fits(self.shape())?;
        let (x, End { residual, sequences, dropout, norm }) = (self.value(), end);
        let dropout = dropout.filter(|dropout| dropout.probability > 0.0);
        let inputs = [self, residual, norm.gain, norm.bias];
        let mut y = x.empty_like();
        let mut saved = inputs
            .iter()
            .any(|input| input.node().is_some())
            .then(|| [x.empty_like(), Tensor::empty(x.device(), &[x.rows(), 2])]);
        x.device().kernels().residual_norm(
            [x, residual.value()],
            dropout.map(|dropout| (sequences, dropout)),
            [norm.gain.value(), norm.bias.value()],
            norm.epsilon,
            &mut y,
            saved.as_mut().map(<[Tensor; 2]>::each_mut),
        );
        let [x_node, residual_node, gain_node, bias_node] = inputs.map(Var::node);
        let (gain, sequences) = (norm.gain.value().clone(), sequences.clone());
        Ok(Var::record(y, &inputs, move |dy, gradients| {
            let Some([sum, statistics]) = &saved else { return Ok(()) };
            let mut dsum = sum.empty_like();
            let [mut dgain, mut dbias] = affine_gradients(&gain);
            let mut dx = dropout.map(|_| sum.empty_like());
            dy.device().kernels().residual_norm_backward(
                [sum, &gain, statistics],
                dy,
                dropout.map(|dropout| (&sequences, dropout)),
                [&mut dsum, &mut dgain, &mut dbias],
                dx.as_mut(),
            );
            gradients.add(x_node, dx.unwrap_or_else(|| dsum.clone()));
            for (node, gradient) in [(residual_node, dsum), (gain_node, dgain), (bias_node, dbias)] {
                gradients.add(node, gradient);
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;
    use crate::random::Purpose;
    use crate::testing::{check_gradients, random, sequences, with_threads};
    use proptest::prelude::*;

    const SITE: Site = Site { seed: 3, step: 5, layer: 1, purpose: Purpose::FeedForwardDropout };
    const EPSILON: f32 = 1e-3;

    fn dropout(probability: f32) -> Option<ResidualDropout> {
        Some(ResidualDropout { probability, site: SITE })
    }

    fn inputs(rows: usize, columns: usize, seed: u64) -> [Tensor; 4] {
        let whole = [rows, columns];
        [random(&whole, seed), random(&whole, seed + 1), random(&[columns], seed + 2), random(&[columns], seed + 3)]
    }

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn residual_norm_has_the_right_gradient(
            lengths in prop::collection::vec(1..5_usize, 1..4), columns in 3..20_usize, drops: bool, seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            check_gradients(&inputs(sequences.tokens(), columns, seed), |v| {
                let norm = Norm { gain: &v[2], bias: &v[3], epsilon: 0.5 };
                let dropout = if drops { dropout(0.4) } else { None };
                v[0].residual_norm(End { residual: &v[1], sequences: &sequences, dropout, norm })
            });
        }

        #[test]
        fn blocks_with_their_end_are_their_parts_to_the_last_bit_recorded_or_not(
            lengths in prop::collection::vec(1..120_usize, 1..4), columns in 3..200_usize, drops: bool, seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let [x, residual, gain, bias] = inputs(sequences.tokens(), columns, seed);
            let [square, inner] = [columns, 70].map(|out| random(&[out, columns], seed + 4));
            let tensors = [x, residual, gain, bias, square, inner, random(&[columns, 70], seed + 5)];
            let run = |tape: Tape, at_once: bool| {
                let leaves = tensors.each_ref().map(|tensor| tape.leaf(tensor.clone()));
                let [x, residual, gain, bias, square, inner, outer] = &leaves;
                let norm = Norm { gain, bias, epsilon: EPSILON };
                let end = End { residual, sequences: &sequences, dropout: if drops { dropout(0.1) } else { None }, norm };
                let [mapped, fed] = if at_once {
                    let maps = [(inner, None), (outer, Some(bias))];
                    [x.linear_norm((square, Some(bias)), end), x.feed_forward_norm(maps, end)]
                } else {
                    let mapped = x.linear(square, Some(bias)).unwrap().residual_norm(end);
                    let fed = x.linear(inner, None).unwrap().gelu_linear(outer, Some(bias)).unwrap();
                    [mapped, fed.residual_norm(end)]
                };
                let sum = mapped.unwrap().add(&fed.unwrap()).unwrap();
                let mut found = vec![sum.value().to_vec()];
                if sum.node().is_some() {
                    let gradients = tape.backward(&sum.mul(&sum).unwrap().sum().unwrap()).unwrap();
                    found.extend(leaves.iter().map(|leaf| gradients.of(leaf).unwrap().to_vec()));
                }
                found
            };
            let parts = run(Tape::recording(), false);
            prop_assert!(parts.len() == 8 && parts == run(Tape::recording(), true));
            for threads in [1, 3] {
                prop_assert!(with_threads(threads, || run(Tape::inference(), true)) == parts[..1]);
            }
        }

        #[test]
        fn it_is_its_three_parts_to_the_last_bit(
            lengths in prop::collection::vec(1..30_usize, 1..5), columns in 3..400_usize, seed in 0..1000_u64,
        ) {
            let sequences = sequences(&lengths);
            let [x, residual, gain, bias] = inputs(sequences.tokens(), columns, seed);
            let values = |fused: bool| {
                let tape = Tape::recording();
                let [x, residual, gain, bias] =
                    [&x, &residual, &gain, &bias].map(|tensor| tape.leaf(tensor.clone()));
                let y = if fused {
                    let norm = Norm { gain: &gain, bias: &bias, epsilon: EPSILON };
                    let end = End { residual: &residual, sequences: &sequences, dropout: dropout(0.1), norm };
                    x.residual_norm(end).unwrap()
                } else {
                    let sum = residual.add(&x.dropout(&sequences, 0.1, SITE).unwrap()).unwrap();
                    sum.layer_norm(&gain, &bias, EPSILON).unwrap()
                };
                let gradients = tape.backward(&y.mul(&y).unwrap().sum().unwrap()).unwrap();
                let leaves = [&x, &residual, &gain, &bias].map(|leaf| gradients.of(leaf).unwrap().to_vec());
                (y.value().to_vec(), leaves)
            };
            let one = with_threads(1, || values(true));
            prop_assert!(one == values(false));
            prop_assert!(one == with_threads(3, || values(true)));
        }
    }

    #[test]
    fn a_block_whose_end_does_not_fit_is_refused() {
        let (sequences, tape) = (sequences(&[3, 2]), Tape::inference());
        let of = |shape: &[usize]| tape.constant(random(shape, 1));
        let (x, gain) = (of(&[5, 4]), of(&[4]));
        let refused = |residual: &[usize], out: usize, width: usize| {
            let residual = of(residual);
            let norm = Norm { gain: &gain, bias: &gain, epsilon: EPSILON };
            let end = End { residual: &residual, sequences: &sequences, dropout: None, norm };
            let mapped = x.linear_norm((&of(&[out, 4]), None), end).is_err();
            let fed = x.feed_forward_norm([(&of(&[6, 4]), None), (&of(&[out, width]), None)], end).is_err();
            [mapped, fed]
        };
        assert_eq!(refused(&[5, 4], 4, 6), [false, false]);
        assert_eq!(refused(&[5, 4], 4, 7), [false, true]);
        assert_eq!(refused(&[5, 4], 3, 6), [true, true]);
        assert_eq!(refused(&[4, 4], 4, 6), [true, true]);
    }
}
