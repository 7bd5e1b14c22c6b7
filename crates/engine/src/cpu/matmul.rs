//! Matrix products, by the `gemm` crate.

use rayon::prelude::*;

use super::parallel::rows_per_part;
use crate::kernels::Matrix;
use crate::tensor::Tensor;

/// Multiplications below which threads cost more than they bring.
const WORTH_THREADS: usize = 64 * 64 * 64;

/// A matrix in memory: first element, distance between rows, distance between columns.
#[derive(Clone, Copy)]
pub struct Strided {
    pub data: *const f32,
    pub row: isize,
    pub column: isize,
}

impl Strided {
    /// Rows of contiguous elements, `stride` apart.
    pub fn rows(data: *const f32, stride: usize) -> Self {
        Strided { data, row: stride as isize, column: 1 }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Strided { row: self.column, column: self.row, ..self }
    }
}

/// `out = accumulate·out + factor · a·b` on one thread; `out` `[m, n]` has contiguous rows `stride` apart.
///
/// # Safety
/// `a` must be readable as `[m, k]`, `b` as `[k, n]`, and `out` writable as `[m, n]` with no other access meanwhile.
pub unsafe fn product(
    [m, n, k]: [usize; 3],
    factor: f32,
    a: Strided,
    b: Strided,
    out: (*mut f32, usize),
    accumulate: bool,
) {
    // SAFETY: as the caller promises.
    unsafe { gemm_f32([m, n, k], factor, a, b, out, accumulate, gemm::Parallelism::None) }
}

unsafe fn gemm_f32(
    [m, n, k]: [usize; 3],
    factor: f32,
    a: Strided,
    b: Strided,
    (out, stride): (*mut f32, usize),
    accumulate: bool,
    parallelism: gemm::Parallelism,
) {
    // SAFETY: as the caller promises.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            stride as isize,
            accumulate,
            a.data,
            a.column,
            a.row,
            b.data,
            b.column,
            b.row,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// From so many rows on, a row of the product has the same bits however many others there are. With fewer `gemm` has
/// other ways, which sum in another order: up to 16·16 elements, a single row, and up to 64 × 64 with a long sum.
fn steady_rows(n: usize, k: usize) -> usize {
    if n <= 64 && k > 512 { 257_usize.div_ceil(n).max(65) } else { 257_usize.div_ceil(n).max(2) }
}

/// `out = a bᵀ` or `a b`, plus bias. Where the rows of `a` are tokens, each row's result is the same in any batch.
pub fn matmul(a: Matrix<'_>, b: Matrix<'_>, bias: Option<&Tensor>, out: &mut Tensor) {
    let (rows, columns) = (out.rows(), out.columns());
    let steady = steady_rows(columns, a.tensor.columns());
    if a.transposed || rows >= steady || out.is_empty() {
        return matmul_as_is(a, b, bias, out);
    }
    let mut filled = Tensor::zeros(out.device(), &[steady, a.tensor.columns()]);
    filled.data_mut()[..a.tensor.len()].copy_from_slice(a.tensor.data());
    let mut whole = Tensor::empty(out.device(), &[steady, columns]);
    matmul_as_is(Matrix { tensor: &filled, ..a }, b, bias, &mut whole);
    out.data_mut().copy_from_slice(&whole.data()[..rows * columns]);
}

fn matmul_as_is(a: Matrix<'_>, b: Matrix<'_>, bias: Option<&Tensor>, out: &mut Tensor) {
    let view = |matrix: Matrix<'_>| {
        let (rows, columns) = (matrix.tensor.rows(), matrix.tensor.columns());
        let strided = Strided::rows(matrix.tensor.data().as_ptr(), columns);
        if matrix.transposed { (columns, rows, strided.transposed()) } else { (rows, columns, strided) }
    };
    let ((m, k, a), (_, n, b)) = (view(a), view(b));
    let out = out.data_mut();
    if let Some(bias) = bias {
        out.par_chunks_mut(rows_per_part(n) * n).for_each(|rows| {
            rows.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias.data()));
        });
    }
    let threads = if m * n * k < WORTH_THREADS { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(0) };
    // SAFETY: the strides are those of whole tensors, whose shapes the operation has checked.
    unsafe { gemm_f32([m, n, k], 1.0, a, b, (out.as_mut_ptr(), n), bias.is_some(), threads) }
}

#[cfg(test)]
mod tests {
    use crate::testing::{device, random, with_threads};

    #[test]
    fn a_product_has_the_same_bits_on_any_number_of_threads() {
        for [m, n, k] in [[300, 200, 100], [777, 384, 1536], [64, 2000, 64], [5, 4096, 384], [1536, 384, 3000]] {
            let (a, b) = (random(&[m, k], 1), random(&[n, k], 2));
            let product = || {
                let mut out = crate::Tensor::empty(&device(), &[m, n]);
                let (a, b) =
                    (super::Matrix { tensor: &a, transposed: false }, super::Matrix { tensor: &b, transposed: true });
                super::matmul(a, b, None, &mut out);
                out.to_vec()
            };
            let one = with_threads(1, product);
            for threads in [2, 3, 8] {
                assert!(one == with_threads(threads, product), "{m}×{n}×{k} on {threads} threads");
            }
        }
    }

    #[test]
    fn a_row_of_a_product_has_the_same_bits_whatever_rows_are_with_it() {
        let shapes =
            [(1, 20), (3, 700), (16, 5), (16, 16), (40, 1024), (128, 128), (384, 384), (384, 1536), (768, 3072)];
        for (n, k) in shapes {
            let (x, bias) = (random(&[300, k], 1), random(&[n], 3));
            for transposed in [true, false] {
                let b = random(&if transposed { [n, k] } else { [k, n] }, 2);
                for bias in [None, Some(&bias)] {
                    let product = |m: usize, from: usize| {
                        let a =
                            crate::Tensor::from_slice(&device(), &[m, k], &x.data()[from * k..(from + m) * k]).unwrap();
                        let mut out = crate::Tensor::empty(&device(), &[m, n]);
                        let b = super::Matrix { tensor: &b, transposed };
                        super::matmul(super::Matrix { tensor: &a, transposed: false }, b, bias, &mut out);
                        out.to_vec()
                    };
                    let all = product(300, 0);
                    for m in (1..20).chain([33, 64, 65, 66, 127, 256, 257]) {
                        assert!(product(m, 41) == all[41 * n..(41 + m) * n], "{m}×{n}×{k}, transposed {transposed}");
                    }
                }
            }
        }
    }
}
