//! Linear maps of one input, with what is before and after them.

use super::math;
use super::matmul::{
    Activated, Depth, Finished, GROUP_COLUMNS, OfGradients, Packed, UnitName, View, multiply, store_plain, with_unit,
};
use super::parallel::SharedMatrix;
use crate::kernels::{Activation, Affine, LinearGradients};
use crate::tensor::Tensor;

fn activated(x: &Tensor, activation: Activation) -> Activated<'_> {
    Activated { x: View::of(x), gelu: activation == Activation::Gelu }
}

pub fn forward(unit: UnitName, x: &Tensor, activation: Activation, parts: &[Affine<'_>], outs: &mut [Tensor]) {
    let device = x.device();
    with_unit!(unit, U => {
        let left = Packed::<U>::left(device, &[activated(x, activation)], Depth::Columns);
        for (part, out) in parts.iter().zip(outs) {
            let right = Packed::<U>::right(device, &[View::of(part.weight)], Depth::Columns);
            let columns = out.columns();
            let out = SharedMatrix::new(out.data_mut(), columns);
            match part.bias {
                None => multiply(&left, &right, store_plain(&out)),
                Some(bias) => multiply(&left, &right, #[inline(always)] |part: Finished<'_>| {
                    // SAFETY: parts of one product are disjoint.
                    let mut block = unsafe { out.block(part.rows.clone(), part.columns.clone()) };
                    let bias = &bias.data()[part.columns.clone()];
                    for (row, place) in part.rows.clone().enumerate() {
                        for ((out, &sum), &bias) in block.row(row).iter_mut().zip(part.row(place)).zip(bias) {
                            *out = sum + bias;
                        }
                    }
                }),
            }
        }
    });
}

pub fn backward(
    unit: UnitName,
    x: &Tensor,
    activation: Activation,
    weights: &[&Tensor],
    douts: &[&Tensor],
    gradients: LinearGradients<'_>,
) {
    let device = x.device();
    let LinearGradients { input, add, weights: dweights, biases } = gradients;
    let views: Vec<View<'_>> = douts.iter().map(|dout| View::of(dout)).collect();
    with_unit!(unit, U => {
        let OfGradients { beside, transposed, sums } = Packed::<U>::of_gradients(device, &views);
        if let Some(dx) = input {
            let weights: Vec<View<'_>> = weights.iter().map(|weight| View::of(weight)).collect();
            let right = Packed::<U>::right(device, &weights, Depth::Rows);
            let (columns, gelu) = (dx.columns(), activation == Activation::Gelu);
            let out = SharedMatrix::new(dx.data_mut(), columns);
            multiply(&beside, &right, #[inline(always)] |part: Finished<'_>| {
                // SAFETY: parts of one product are disjoint.
                let mut block = unsafe { out.block(part.rows.clone(), part.columns.clone()) };
                for (row, place) in part.rows.clone().enumerate() {
                    let x = &x.data()[place * columns..][part.columns.clone()];
                    let out = block.row(row);
                    let mut slopes = [1.0; GROUP_COLUMNS];
                    if gelu {
                        for (slope, &x) in slopes.iter_mut().zip(x) {
                            *slope = math::gelu_slope(x);
                        }
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
        }
        if dweights.iter().any(Option::is_some) {
            let right = Packed::<U>::right(device, &[activated(x, activation)], Depth::Rows);
            for (dweight, left) in dweights.into_iter().zip(&transposed) {
                let Some(dweight) = dweight else { continue };
                let columns = dweight.columns();
                multiply(left, &right, store_plain(&SharedMatrix::new(dweight.data_mut(), columns)));
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
