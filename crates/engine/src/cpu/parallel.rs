//! How work is cut into parts for threads: by shape alone, never by the number of threads.

use std::marker::PhantomData;
use std::ops::Range;

use crate::memory::CACHE_LINE;
use crate::tensor::Tensor;

/// Elements that are worth a thread's attention.
const GRAIN: usize = 16 * 1024;

/// Asks for `len` elements to be brought into the cache.
#[inline(always)]
pub fn prefetch<T>(data: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    prefetch_lines::<_, { std::arch::x86_64::_MM_HINT_T0 }>(data, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, len);
}

/// The same, but not into the first-level cache, whose room something else needs.
#[inline(always)]
pub fn prefetch_near<T>(data: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    prefetch_lines::<_, { std::arch::x86_64::_MM_HINT_T1 }>(data, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, len);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_lines<T, const HINT: i32>(data: *const T, len: usize) {
    for place in (0..len).step_by(CACHE_LINE / size_of::<T>()) {
        // SAFETY: a hint, which may name any address.
        unsafe { std::arch::x86_64::_mm_prefetch::<HINT>(data.wrapping_add(place).cast()) };
    }
}

/// Copies numbers past the cache, so that a line that is overwritten is not read first. Other threads may not look before
/// [`finish_copies_past`]. Where they are not whole lines they are copied like any other. A function of its own: these stores
/// are encoded as before AVX, which some machines do not mix with it at once.
#[inline(never)]
fn copy_past(numbers: &[f32], out: &mut [f32]) {
    assert!(numbers.len() == out.len());
    #[cfg(target_arch = "x86_64")]
    if size_of_val(out).is_multiple_of(CACHE_LINE) && out.as_ptr().addr().is_multiple_of(CACHE_LINE) {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
        for (numbers, out) in numbers.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: both are four numbers, and the second lie on a line as they must.
            unsafe { _mm_stream_ps(out.as_mut_ptr(), _mm_loadu_ps(numbers.as_ptr())) };
        }
        return;
    }
    out.copy_from_slice(numbers);
}

fn finish_copies_past() {
    // SAFETY: every machine of this kind has the instruction.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// How many rows of `columns` elements make one part.
pub fn rows_per_part(columns: usize) -> usize {
    (GRAIN / columns.max(1)).max(1)
}

/// A matrix whose blocks several threads write at once.
pub struct SharedMatrix<'a, T = f32> {
    data: *mut T,
    rows: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from an exclusive borrow that lives as long as `self`; the only access is `block`, whose
// contract forbids overlapping blocks.
unsafe impl<T: Send> Sync for SharedMatrix<'_, T> {}

impl<'a> SharedMatrix<'a> {
    /// A tensor's rows.
    pub fn of(tensor: &'a mut Tensor) -> Self {
        let columns = tensor.columns();
        SharedMatrix::new(tensor.data_mut(), columns)
    }
}

impl<'a, T> SharedMatrix<'a, T> {
    /// `data` as rows of `columns` elements.
    pub fn new(data: &'a mut [T], columns: usize) -> Self {
        SharedMatrix { data: data.as_mut_ptr(), rows: data.len() / columns.max(1), columns, lifetime: PhantomData }
    }

    /// The block of `rows` and `columns`.
    ///
    /// # Safety
    /// No two live blocks of one matrix may overlap.
    pub unsafe fn block(&self, rows: Range<usize>, columns: Range<usize>) -> Block<'_, T> {
        assert!(
            rows.end <= self.rows
                && columns.end <= self.columns
                && rows.start <= rows.end
                && columns.start <= columns.end
        );
        Block {
            // SAFETY: the assertion keeps the block's first element inside the matrix (or, if empty, at its end).
            data: unsafe { self.data.add(rows.start * self.columns + columns.start) },
            rows: rows.len(),
            columns: columns.len(),
            stride: self.columns,
            lifetime: PhantomData,
        }
    }
}

/// A rectangular part of a matrix: of a [`SharedMatrix`], or of what one thread has.
pub struct Block<'a, T = f32> {
    data: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

impl Block<'_> {
    /// Writes all rows past the cache: what no one reads soon.
    #[inline(always)]
    pub fn write_past<'n>(&mut self, mut numbers: impl FnMut(usize) -> &'n [f32]) {
        for row in 0..self.rows {
            copy_past(numbers(row), self.row(row));
        }
        finish_copies_past();
    }
}

impl<'a, T> Block<'a, T> {
    /// All of `data`, as rows of `columns` elements.
    pub fn of(data: &'a mut [T], columns: usize) -> Self {
        let rows = data.len() / columns.max(1);
        Block { data: data.as_mut_ptr(), rows, columns, stride: columns, lifetime: PhantomData }
    }

    /// Where the block begins.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.data
    }

    /// Rows of the block.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the block.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How far apart its rows begin: as far as the matrix's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Asks for the block's part of a row to be brought into the cache, if there is such a row.
    #[inline(always)]
    pub fn prefetch(&self, row: usize) {
        if row < self.rows {
            // Only the address counts.
            prefetch(self.data.wrapping_add(row * self.stride), self.columns);
        }
    }

    /// Some rows of a block as wide as its matrix.
    #[inline(always)]
    pub fn whole_rows(&mut self, rows: Range<usize>) -> &mut [T] {
        assert!(rows.start <= rows.end && rows.end <= self.rows && self.columns == self.stride);
        // SAFETY: the rows lie in the block, one right after the other, and the block is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(rows.start * self.stride), rows.len() * self.columns) }
    }

    /// The block's part of a row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the row lies in the block, and the block is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), self.columns) }
    }
}

/// `Σ_r f(r)` over rows, added into `out`: fixed parts of rows are summed on their own, then in order.
/// `f(row, sums)` adds row `row`'s contribution to `sums`, which is as long as `out`.
pub fn sum_over_rows(rows: usize, out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    use rayon::prelude::*;
    let columns = out.len();
    let part = 4 * rows_per_part(columns);
    if rows <= part {
        (0..rows).for_each(|row| f(row, out));
        return;
    }
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(part))
        .into_par_iter()
        .map(|index| {
            let mut sums = vec![0.0; columns];
            (index * part..rows.min((index + 1) * part)).for_each(|row| f(row, &mut sums));
            sums
        })
        .collect();
    for sums in partial {
        for (total, sum) in out.iter_mut().zip(sums) {
            *total += sum;
        }
    }
}
