//! The pieces from which new operations are composed: sums, products, sigmoid, reshape.

use crate::error::{Result, ensure_shape};
use crate::kernels::{Binary, Matrix, Unary};
use crate::tape::Var;
use crate::tensor::Tensor;

/// `x` summed to the shape of a smaller operand.
fn reduced(x: Tensor, shape: &[usize]) -> Tensor {
    if x.shape() == shape {
        return x;
    }
    let mut out = Tensor::empty(x.device(), shape);
    x.device().kernels().reduce(&x, &mut out);
    out
}

fn binary(function: Binary, a: &Tensor, b: &Tensor) -> Tensor {
    let mut out = a.empty_like();
    a.device().kernels().binary(function, a, b, &mut out);
    out
}

impl Var {
    /// Fails unless `other` has this shape, or is one row `[columns]`, one column `[rows, 1]` or one number `[1]`.
    fn ensure_broadcasts(&self, other: &Var, operation: &'static str) -> Result<()> {
        let (rows, columns) = (self.value().rows(), self.value().columns());
        let shape = other.shape();
        ensure_shape!(
            shape == self.shape() || shape == [1] || shape == [columns] || shape == [rows, 1],
            operation,
            "{shape:?} neither has the shape {:?} nor is a row, a column or a number of it",
            self.shape()
        );
        Ok(())
    }

    /// `self + other`; `other` may be one row `[columns]`, one column `[rows, 1]` or one number `[1]`.
    pub fn add(&self, other: &Var) -> Result<Var> {
        self.ensure_broadcasts(other, "add")?;
        let (a, b, b_shape) = (self.node(), other.node(), other.shape().to_vec());
        Ok(Var::record(binary(Binary::Add, self.value(), other.value()), &[self, other], move |dy, gradients| {
            gradients.add(a, dy.clone());
            if b.is_some() {
                gradients.add(b, reduced(dy.clone(), &b_shape));
            }
            Ok(())
        }))
    }

    /// `self · other`, element by element, with the shapes of [`Var::add`].
    pub fn mul(&self, other: &Var) -> Result<Var> {
        self.ensure_broadcasts(other, "mul")?;
        let (a, b) = (self.node(), other.node());
        let (x, factor) = (self.value().clone(), other.value().clone());
        Ok(Var::record(binary(Binary::Mul, self.value(), other.value()), &[self, other], move |dy, gradients| {
            if a.is_some() {
                gradients.add(a, binary(Binary::Mul, dy, &factor));
            }
            if b.is_some() {
                gradients.add(b, reduced(binary(Binary::Mul, dy, &x), factor.shape()));
            }
            Ok(())
        }))
    }

    /// `factor · self`
    pub fn scale(&self, factor: f32) -> Result<Var> {
        let scaled = move |x: &Tensor| {
            let mut out = x.empty_like();
            x.device().kernels().scale(x, factor, &mut out);
            out
        };
        let x = self.node();
        Ok(Var::record(scaled(self.value()), &[self], move |dy, gradients| {
            gradients.add(x, scaled(dy));
            Ok(())
        }))
    }

    /// The matrix product `[m, k] · [k, n] → [m, n]`.
    pub fn matmul(&self, other: &Var) -> Result<Var> {
        self.product(other, false)
    }

    /// The matrix product with the other's transpose, `[m, k] · [n, k]ᵀ → [m, n]`.
    pub fn matmul_transposed(&self, other: &Var) -> Result<Var> {
        self.product(other, true)
    }

    fn product(&self, other: &Var, transposed: bool) -> Result<Var> {
        let (a, b) = (self.value().clone(), other.value().clone());
        let (inner, columns) = if transposed { (b.columns(), b.rows()) } else { (b.rows(), b.columns()) };
        ensure_shape!(
            a.shape().len() == 2 && b.shape().len() == 2 && a.columns() == inner,
            "matmul",
            "{:?} and {:?}{} do not fit",
            a.shape(),
            b.shape(),
            if transposed { " transposed" } else { "" }
        );
        let mut out = Tensor::empty(a.device(), &[a.rows(), columns]);
        a.device().kernels().matmul(Matrix::plain(&a), Matrix { tensor: &b, transposed }, &mut out);
        let (a_node, b_node) = (self.node(), other.node());
        Ok(Var::record(out, &[self, other], move |dy, gradients| {
            let kernels = dy.device().kernels();
            if a_node.is_some() {
                let mut da = a.empty_like();
                kernels.matmul(Matrix::plain(dy), Matrix { tensor: &b, transposed: !transposed }, &mut da);
                gradients.add(a_node, da);
            }
            if b_node.is_some() {
                let mut db = b.empty_like();
                let (left, right) = if transposed {
                    (Matrix::transposed(dy), Matrix::plain(&a))
                } else {
                    (Matrix::transposed(&a), Matrix::plain(dy))
                };
                kernels.matmul(left, right, &mut db);
                gradients.add(b_node, db);
            }
            Ok(())
        }))
    }

    /// `1 / (1 + e⁻ˣ)`
    pub fn sigmoid(&self) -> Result<Var> {
        self.unary(Unary::Sigmoid)
    }

    pub(super) fn unary(&self, function: Unary) -> Result<Var> {
        let (x, node) = (self.value().clone(), self.node());
        let mut y = x.empty_like();
        x.device().kernels().unary(function, &x, &mut y);
        Ok(Var::record(y, &[self], move |dy, gradients| {
            let mut dx = x.empty_like();
            x.device().kernels().unary_backward(function, &x, dy, &mut dx);
            gradients.add(node, dx);
            Ok(())
        }))
    }

    /// The sum of all elements, `[1]`.
    pub fn sum(&self) -> Result<Var> {
        self.sum_to(&[1])
    }

    /// The sum of all rows, `[columns]`.
    pub fn sum_rows(&self) -> Result<Var> {
        self.sum_to(&[self.value().columns()])
    }

    /// Each row's sum, `[rows, 1]`.
    pub fn sum_columns(&self) -> Result<Var> {
        self.sum_to(&[self.value().rows(), 1])
    }

    fn sum_to(&self, shape: &[usize]) -> Result<Var> {
        let (node, full) = (self.node(), self.shape().to_vec());
        Ok(Var::record(reduced(self.value().clone(), shape), &[self], move |dy, gradients| {
            gradients.add(node, binary(Binary::Add, &Tensor::zeros(dy.device(), &full), dy));
            Ok(())
        }))
    }

    /// The same elements under another shape.
    pub fn reshape(&self, shape: &[usize]) -> Result<Var> {
        let (node, from) = (self.node(), self.shape().to_vec());
        Ok(Var::record(self.value().reshape(shape)?, &[self], move |dy, gradients| {
            gradients.add(node, dy.reshape(&from)?);
            Ok(())
        }))
    }

    /// Rows `begin..end` of a matrix.
    pub fn rows(&self, begin: usize, end: usize) -> Result<Var> {
        let (rows, columns) = (self.value().rows(), self.value().columns());
        ensure_shape!(begin <= end && end <= rows, "rows", "{begin}..{end} is outside {:?}", self.shape());
        let x = self.value().reshape(&[rows, columns])?;
        let mut value = Tensor::empty(x.device(), &[end - begin, columns]);
        x.device().kernels().copy_rows(&x, begin..end, &mut value, 0);
        let (node, full) = (self.node(), self.shape().to_vec());
        Ok(Var::record(value, &[self], move |dy, gradients| {
            let mut dx = Tensor::zeros(dy.device(), &full);
            dy.device().kernels().copy_rows(dy, 0..end - begin, &mut dx, begin);
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
        fn sums_and_products_have_the_right_gradient(m in 1..9_usize, n in 1..40_usize, seed in 0..1000_u64) {
            let x = random(&[m, n], seed);
            for shape in [vec![m, n], vec![n], vec![m, 1], vec![1]] {
                let b = random(&shape, seed + 1);
                check_gradients(&[x.clone(), b.clone()], |v| v[0].add(&v[1]));
                check_gradients(&[x.clone(), b], |v| v[0].mul(&v[1]));
            }
            check_gradients(std::slice::from_ref(&x), |v| v[0].mul(&v[0])?.sum_rows());
            check_gradients(std::slice::from_ref(&x), |v| v[0].mul(&v[0])?.sum_columns());
            check_gradients(std::slice::from_ref(&x), |v| v[0].mul(&v[0])?.sum());
            check_gradients(std::slice::from_ref(&x), |v| v[0].scale(-1.5)?.sigmoid());
            check_gradients(std::slice::from_ref(&x), |v| v[0].reshape(&[n, m])?.rows(n / 2, n));
        }

        #[test]
        fn matrix_products_have_the_right_gradient(m in 1..9_usize, n in 1..9_usize, k in 1..40_usize, seed in 0..1000_u64) {
            let a = random(&[m, k], seed);
            check_gradients(&[a.clone(), random(&[k, n], seed + 1)], |v| v[0].matmul(&v[1]));
            check_gradients(&[a, random(&[n, k], seed + 1)], |v| v[0].matmul_transposed(&v[1]));
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors_that_say_so() {
        let tape = crate::Tape::recording();
        let (a, b) = (tape.leaf(random(&[2, 3], 1)), tape.leaf(random(&[2, 4], 2)));
        assert!(a.add(&b).err().unwrap().to_string().contains("add: [2, 4]"));
        assert!(a.matmul(&b).err().unwrap().to_string().contains("[2, 3] and [2, 4]"));
        assert!(tape.backward(&a).err().unwrap().to_string().contains("scalar"));
    }
}
