//! Linear maps of one input, with what is before and after them.

use std::sync::Arc;

use super::adamw::Squares;
use super::layer_norm::{ROWS_AT_ONCE, normalise};
use super::math;
use super::matmul::{
    Activated, Depth, Finished, GROUP_COLUMNS, Packed, Panels, ROWS_AHEAD, Source, Turned, Unit, UnitName, View,
    multiply, multiply_gradients, multiply_rows, multiply_twice, multiply_whole_rows, store_past, with_unit,
};
use super::parallel::{SharedMatrix, prefetch};
use super::rows;
use crate::arena::Arena;
use crate::kernels::{Activation, Affine, LinearGradients, PlainEnd};
use crate::tensor::Tensor;

fn activated<U: Unit>(x: &Tensor, activation: Activation) -> Activated<'_> {
    Activated { x: View::of(x), gelu: (activation == Activation::Gelu).then_some(U::PRECISION) }
}

/// A weight as the right operand of products, kept where it is constant.
fn packed<U: Unit>(arena: &Arc<Arena>, part: &Affine<'_>) -> Arc<Packed<U>> {
    part.weight.derived(part.constant, || Packed::right(arena, &[View::of(part.weight)], Depth::Columns))
}

pub fn forward(unit: UnitName, x: &Tensor, activation: Activation, parts: &[Affine<'_>], outs: &mut [Tensor]) {
    let arena = x.device().arena();
    with_unit!(unit, U => {
        let rights: Vec<Arc<Packed<U>>> = parts.iter().map(|part| packed(arena, part)).collect();
        let rights: Vec<Panels<'_, U>> = rights.iter().map(|right| right.panels()).collect();
        let outs: Vec<SharedMatrix<'_>> = outs.iter_mut().map(SharedMatrix::of).collect();
        multiply_rows(&activated::<U>(x, activation), &rights, #[inline(always)] |index: usize, part: Finished<'_>| {
            store(part, parts[index].bias, &outs[index]);
        });
    });
}

/// A map with the residual and the norm that follow, which are taken of its sums before they leave the cache.
pub fn linear_norm(unit: UnitName, x: &Tensor, map: Affine<'_>, end: PlainEnd<'_>, out: &mut Tensor) {
    let arena = x.device().arena();
    with_unit!(unit, U => {
        let (right, out) = (packed::<U>(arena, &map), SharedMatrix::of(out));
        let source = activated::<U>(x, Activation::Identity);
        multiply_whole_rows(&source, right.panels(), #[inline(always)] |part: Finished<'_>| {
            store_norm(part, map.bias, end, &out);
        });
    });
}

/// The same of a feed-forward block.
pub fn feed_forward_norm(unit: UnitName, x: &Tensor, maps: [Affine<'_>; 2], end: PlainEnd<'_>, out: &mut Tensor) {
    let arena = x.device().arena();
    with_unit!(unit, U => {
        let [inner, outer] = maps.map(|map| packed::<U>(arena, &map));
        let [inner_bias, outer_bias] = maps.map(|map| map.bias);
        let (out, bias) = (SharedMatrix::of(out), inner_bias.map(Tensor::data));
        multiply_twice(&View::of(x), (inner.panels(), bias), outer.panels(), #[inline(always)] |part: Finished<'_>| {
            store_norm(part, outer_bias, end, &out);
        });
    });
}

/// Stores the norm of a residual and a product with its bias, of whole rows.
#[inline(always)]
fn store_norm(part: Finished<'_>, bias: Option<&Tensor>, end: PlainEnd<'_>, out: &SharedMatrix<'_>) {
    // SAFETY: parts of one product are disjoint.
    let mut block = unsafe { out.block(part.rows.clone(), part.columns.clone()) };
    let (residual, affine) = (View::of(end.residual), end.affine.map(Tensor::data));
    let (columns, len) = (part.columns.len(), part.rows.len());
    let mut sums = vec![0.0; ROWS_AT_ONCE * columns];
    for begin in (0..len).step_by(ROWS_AT_ONCE) {
        let rows = begin..len.min(begin + ROWS_AT_ONCE);
        let sums = &mut sums[..rows.len() * columns];
        for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(columns)) {
            let place = part.rows.start + row;
            block.prefetch(row + ROWS_AHEAD);
            residual.prefetch(place + ROWS_AHEAD, 0, columns);
            match bias {
                None => math::add(residual.row(place), part.row(place), sums),
                Some(bias) => {
                    let terms = residual.row(place).iter().zip(part.row(place)).zip(bias.data());
                    sums.iter_mut().zip(terms).for_each(|(sum, ((&residual, &x), &bias))| *sum = residual + (x + bias));
                }
            }
        }
        normalise(sums, affine, end.epsilon, block.whole_rows(rows));
    }
}

/// Stores a product with its bias.
#[inline(always)]
fn store(part: Finished<'_>, bias: Option<&Tensor>, out: &SharedMatrix<'_>) {
    // SAFETY: parts of one product are disjoint.
    let mut block = unsafe { out.block(part.rows.clone(), part.columns.clone()) };
    let bias = bias.map(|bias| &bias.data()[part.columns.clone()]);
    for (row, place) in part.rows.clone().enumerate() {
        block.prefetch(row + ROWS_AHEAD);
        let (out, sums) = (block.row(row), part.row(place));
        match bias {
            None => out.copy_from_slice(sums),
            Some(bias) => out.iter_mut().zip(sums).zip(bias).for_each(|((out, &sum), &bias)| *out = sum + bias),
        }
    }
}

pub fn backward(
    unit: UnitName,
    x: &Tensor,
    activation: Activation,
    weights: &[&Tensor],
    douts: &[&Tensor],
    gradients: LinearGradients<'_>,
) {
    let arena = x.device().arena();
    let LinearGradients { input, add, weights: dweights, biases } = gradients;
    let views: Vec<View<'_>> = douts.iter().map(|dout| View::of(dout)).collect();
    with_unit!(unit, U => {
        let (dx, columns, gelu) = (input.map(SharedMatrix::of), x.columns(), activation == Activation::Gelu);
        let right = dx.is_some().then(|| {
            let weights: Vec<View<'_>> = weights.iter().map(|weight| View::of(weight)).collect();
            Packed::<U>::right(arena, &weights, Depth::Rows)
        });
        let Turned { transposed, sums } = multiply_gradients(arena, &views, right.as_ref(), #[inline(always)] |part: Finished<'_>| {
            let Some(dx) = &dx else { return };
            // SAFETY: parts of one product are disjoint.
            let mut block = unsafe { dx.block(part.rows.clone(), part.columns.clone()) };
            for (row, place) in part.rows.clone().enumerate() {
                let x = &x.data()[place * columns..][part.columns.clone()];
                block.prefetch(row + ROWS_AHEAD);
                let out = block.row(row);
                let mut slopes = [1.0; GROUP_COLUMNS];
                if gelu {
                    prefetch(x.as_ptr().wrapping_add(ROWS_AHEAD * columns), x.len());
                    rows::gelu_slopes(x, U::PRECISION, &mut slopes);
                }
                let terms = part.row(place).iter().zip(&slopes);
                if add {
                    for (out, (&sum, &slope)) in out.iter_mut().zip(terms) {
                        *out += sum * slope;
                    }
                } else {
                    for (out, (&sum, &slope)) in out.iter_mut().zip(terms) {
                        *out = sum * slope;
                    }
                }
            }
        });
        // Its memory serves the other operand.
        drop(right);
        if dweights.iter().any(Option::is_some) {
            let right = Packed::<U>::right(arena, &[activated::<U>(x, activation)], Depth::Rows);
            for (dweight, left) in dweights.into_iter().zip(&transposed) {
                let Some(dweight) = dweight else { continue };
                let columns = dweight.columns();
                let squares = multiply(left, &right, store_past(&SharedMatrix::new(dweight.data_mut(), columns)));
                dweight.derived(true, || Squares(squares.into_iter().sum()));
            }
        }
        for (dbias, parts) in biases.into_iter().zip(sums) {
            let Some(dbias) = dbias else { continue };
            let dbias = dbias.data_mut();
            dbias.fill(0.0);
            for part in parts {
                for (total, sum) in dbias.iter_mut().zip(part) {
                    *total += sum;
                }
            }
        }
    });
}
