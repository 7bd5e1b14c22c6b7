//! What is packed: matrices in memory, and what is made of them on the way.

use std::ops::Range;

use crate::cpu::math::vectorised;
use crate::cpu::parallel::prefetch;
use crate::cpu::rows;
use crate::precision::Precision;
use crate::tensor::Tensor;

/// A matrix to be packed.
pub trait Source: Sync {
    /// Rows and columns.
    fn shape(&self) -> [usize; 2];
    /// A part of a row, from a column on.
    fn read(&self, row: usize, column: usize, out: &mut [f32]);
    /// Asks for a part of a row to be brought into the cache; it need not exist.
    fn prefetch(&self, row: usize, column: usize, len: usize);
}

/// A matrix in memory, its rows `stride` apart.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<'a> View<'a> {
    /// A whole tensor.
    pub fn of(tensor: &'a Tensor) -> Self {
        let columns = tensor.columns();
        View { data: tensor.data(), stride: columns, rows: tensor.rows(), columns }
    }

    /// Rows that begin `stride` apart.
    pub fn rows_of(data: &'a [f32], stride: usize, columns: usize) -> Self {
        View { data, stride, rows: data.len() / stride, columns }
    }

    /// A row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.columns]
    }

    /// The sum of each column.
    pub fn sums_of_columns(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.columns];
        vectorised(
            #[inline(always)]
            || {
                for row in 0..self.rows {
                    for (sum, &x) in sums.iter_mut().zip(&self.data[row * self.stride..]) {
                        *sum += x;
                    }
                }
            },
        );
        sums
    }

    /// A rectangular part.
    pub fn part(&self, rows: &Range<usize>, columns: &Range<usize>) -> Self {
        assert!(rows.end <= self.rows && columns.end <= self.columns);
        let data = &self.data[rows.start * self.stride + columns.start..];
        View { data, stride: self.stride, rows: rows.len(), columns: columns.len() }
    }
}

impl Source for View<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    #[inline(always)]
    fn read(&self, row: usize, column: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.stride + column..][..out.len()]);
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        prefetch(self.data.as_ptr().wrapping_add(row * self.stride + column), len);
    }
}

/// A matrix of which GELU is taken as it is packed, if at all.
pub struct Activated<'a> {
    /// Before.
    pub x: View<'a>,
    /// Whether GELU is taken, and how exactly.
    pub gelu: Option<Precision>,
}

impl Activated<'_> {
    /// Some rows.
    pub fn rows(&self, rows: &Range<usize>) -> Self {
        Activated { x: self.x.part(rows, &(0..self.x.columns)), gelu: self.gelu }
    }
}

impl Source for Activated<'_> {
    fn shape(&self) -> [usize; 2] {
        self.x.shape()
    }

    #[inline(always)]
    fn read(&self, row: usize, column: usize, out: &mut [f32]) {
        match self.gelu {
            None => self.x.read(row, column, out),
            Some(precision) => rows::gelu(&self.x.row(row)[column..][..out.len()], None, precision, out),
        }
    }

    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.x.prefetch(row, column, len);
    }
}
