//! Functions of single elements, and the sums that are their gradients.

use std::ops::Range;

use rayon::prelude::*;

use super::math::{self, vectorised};
use super::parallel::{rows_per_part, sum_over_rows};
use crate::kernels::{Binary, Unary};
use crate::tensor::Tensor;

const PART: usize = 16 * 1024;

/// `out[i] = f(a[i], b[i])` in parallel.
#[inline(always)]
fn zip_map(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    out.par_chunks_mut(PART).zip(a.par_chunks(PART)).zip(b.par_chunks(PART)).for_each(|((out, a), b)| {
        vectorised(
            #[inline(always)]
            || {
                for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *out = f(a, b);
                }
            },
        );
    });
}

pub fn accumulate(x: &Tensor, sum: &mut Tensor) {
    sum.data_mut().par_chunks_mut(PART).zip(x.data().par_chunks(PART)).for_each(|(sum, x)| {
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    });
}

pub fn scale(x: &Tensor, factor: f32, out: &mut Tensor) {
    zip_map(x.data(), x.data(), out.data_mut(), |x, _| factor * x);
}

pub fn unary(function: Unary, x: &Tensor, out: &mut Tensor) {
    let (x, out) = (x.data(), out.data_mut());
    match function {
        Unary::Sigmoid => zip_map(x, x, out, |x, _| math::sigmoid(x)),
        Unary::Gelu => zip_map(x, x, out, |x, _| x * math::NORMAL.at(x)),
    }
}

pub fn unary_backward(function: Unary, x: &Tensor, dy: &Tensor, dx: &mut Tensor) {
    let (x, dy, dx) = (x.data(), dy.data(), dx.data_mut());
    match function {
        Unary::Sigmoid => zip_map(x, dy, dx, |x, dy| {
            let y = math::sigmoid(x);
            dy * y * (1.0 - y)
        }),
        Unary::Gelu => zip_map(x, dy, dx, |x, dy| dy * math::SLOPE.at(x)),
    }
}

/// How a smaller tensor repeats over the rows and columns of a larger one.
#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    Not,
    Rows,
    Columns,
    Both,
}

impl Repeat {
    fn of(small: &Tensor, large: &Tensor) -> Repeat {
        if small.shape() == large.shape() {
            Repeat::Not
        } else if small.len() == 1 {
            Repeat::Both
        } else if small.shape().len() == 1 {
            Repeat::Rows
        } else {
            Repeat::Columns
        }
    }
}

pub fn binary(function: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor) {
    match function {
        Binary::Add => broadcast_map(a, b, out, |a, b| a + b),
        Binary::Mul => broadcast_map(a, b, out, |a, b| a * b),
    }
}

#[inline(always)]
fn broadcast_map(a: &Tensor, b: &Tensor, out: &mut Tensor, f: impl Fn(f32, f32) -> f32 + Sync) {
    let repeat = Repeat::of(b, a);
    let (a_data, b_data) = (a.data(), b.data());
    if repeat == Repeat::Not {
        return zip_map(a_data, b_data, out.data_mut(), f);
    }
    let columns = a.columns();
    out.data_mut().par_chunks_mut(columns).zip(a_data.par_chunks(columns)).enumerate().for_each(|(row, (out, a))| {
        for (column, (out, &a)) in out.iter_mut().zip(a).enumerate() {
            *out = match repeat {
                Repeat::Rows => f(a, b_data[column]),
                Repeat::Columns => f(a, b_data[row]),
                _ => f(a, b_data[0]),
            };
        }
    });
}

pub fn copy_rows(x: &Tensor, rows: Range<usize>, out: &mut Tensor, to: usize) {
    let (columns, count) = (x.columns(), rows.len());
    let from = &x.data()[rows.start * columns..rows.end * columns];
    out.data_mut()[to * columns..(to + count) * columns].copy_from_slice(from);
}

pub fn reduce(x: &Tensor, out: &mut Tensor) {
    let (repeat, columns, data) = (Repeat::of(out, x), x.columns(), x.data());
    let out = out.data_mut();
    match repeat {
        Repeat::Not => out.copy_from_slice(data),
        Repeat::Rows => {
            out.fill(0.0);
            sum_over_rows(x.rows(), out, |row, sums| {
                for (sum, &x) in sums.iter_mut().zip(&data[row * columns..]) {
                    *sum += x;
                }
            });
        }
        Repeat::Columns => {
            let part = rows_per_part(columns);
            out.par_chunks_mut(part).zip(data.par_chunks(part * columns)).for_each(|(out, x)| {
                for (out, x) in out.iter_mut().zip(x.chunks(columns)) {
                    *out = math::sum(x);
                }
            });
        }
        Repeat::Both => {
            let partial: Vec<f64> = data.par_chunks(PART).map(|x| x.iter().map(|&x| f64::from(x)).sum()).collect();
            out[0] = partial.into_iter().sum::<f64>() as f32;
        }
    }
}
