//! Products of matrices, for what is no linear map.

use super::context::Context;
use super::linear::{operand, unlike};
use super::products::{Epilogue, Operand, multiply};
use crate::kernels::Matrix;
use crate::tensor::Tensor;

pub fn matmul(context: &Context, a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor) {
    out.slice_mut();
    let kind = out.slice().kind();
    let (left, right) = (unlike(context, a.tensor, kind), unlike(context, b.tensor, kind));
    let read = |x: &Tensor, transposed: bool| Operand { transposed, ..operand(x) };
    let (left, right) = (read(&left, a.transposed), read(&right, b.transposed));
    context.keep(multiply(context, context.stream(), left, right, operand(out), false, Epilogue::None));
}
