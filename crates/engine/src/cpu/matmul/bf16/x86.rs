//! Half-width operands by AVX-512-BF16, which packs them for AMX tiles as well.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_shuffle_i32x4, _mm512_storeu_ps,
    _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

use super::{Depth, Operands, SIDE, TILE, TILE_LEN, Tile};

/// Compiled for AVX-512 with bf16, which the machines of both units have.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]
    fn inside<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    // SAFETY: the units are only chosen where the machine has the instructions.
    unsafe { inside(f) }
}

/// The machines of both units round and pack by AVX-512.
#[inline(always)]
pub fn place_left(tile: &Tile, depth: Depth, half: usize, out: &mut [u16]) {
    // SAFETY: the units are only chosen where the machine has the instructions.
    unsafe {
        match depth {
            Depth::Columns => write(rows_of_pairs(tile, half * SIDE), out),
            Depth::Rows => write(transposed(pairs_of_rows(tile, half * SIDE)), out),
        }
    }
}

#[inline(always)]
pub fn place_right(tile: &Tile, depth: Depth, half: usize, out: &mut [u16]) {
    // SAFETY: as above.
    unsafe {
        match depth {
            Depth::Columns => write(transposed(rows_of_pairs(tile, half * SIDE)), out),
            Depth::Rows => write(pairs_of_rows(tile, half * SIDE), out),
        }
    }
}

/// 32 numbers, rounded: those of `low` first.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rounded(low: &[f32], high: &[f32]) -> __m512i {
    assert!(low.len() >= SIDE && high.len() >= SIDE);
    // SAFETY: both hold 16 numbers; the two vector types are 64 bytes of plain numbers.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(low.as_ptr()), _mm512_loadu_ps(high.as_ptr()));
        transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

#[inline(always)]
pub fn convert(numbers: &[f32], out: &mut [u16]) {
    assert!(out.len() == TILE);
    // SAFETY: the units are only chosen where the machine has the instructions; `out` is 64 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), rounded(&numbers[..SIDE], &numbers[SIDE..])) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows_of_pairs(tile: &Tile, row: usize) -> [__m512i; SIDE] {
    // SAFETY: the caller's machine has the instructions.
    std::array::from_fn(|i| unsafe { rounded(&tile[row + i][..SIDE], &tile[row + i][SIDE..]) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pairs_of_rows(tile: &Tile, column: usize) -> [__m512i; SIDE] {
    // From 16 numbers and 16 numbers to 16 pairs.
    const PAIRS: [u16; 32] = {
        let mut places = [0; 32];
        let mut i = 0;
        while i < 16 {
            places[2 * i] = i as u16;
            places[2 * i + 1] = i as u16 + 16;
            i += 1;
        }
        places
    };
    // SAFETY: the array is 64 bytes; the caller's machine has the instructions.
    unsafe {
        let places = _mm512_loadu_si512(PAIRS.as_ptr().cast());
        std::array::from_fn(|i| {
            let both = rounded(&tile[2 * i][column..], &tile[2 * i + 1][column..]);
            _mm512_permutexvar_epi16(places, both)
        })
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn write(rows: [__m512i; SIDE], out: &mut [u16]) {
    assert!(out.len() >= TILE_LEN);
    for (i, row) in rows.into_iter().enumerate() {
        // SAFETY: a tile is 16 rows of 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(i * TILE).cast(), row) };
    }
}

/// 16 rows of 16, turned. In four rounds, each of which exchanges blocks of twice the size: 1, 2, 4 and 8 pairs.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn transposed(mut rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    for i in (0..SIDE).step_by(2) {
        let (a, b) = (rows[i], rows[i + 1]);
        (rows[i], rows[i + 1]) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    }
    for i in (0..SIDE).step_by(4) {
        let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
        rows[i] = _mm512_unpacklo_epi64(a, c);
        rows[i + 1] = _mm512_unpackhi_epi64(a, c);
        rows[i + 2] = _mm512_unpacklo_epi64(b, d);
        rows[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Each quarter of row 4g + j now holds column 4·quarter + j of the rows 4g to 4g + 3.
    let mut columns = rows;
    for j in 0..4 {
        let [a, b, c, d] = [rows[j], rows[4 + j], rows[8 + j], rows[12 + j]];
        let (low, high) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        columns[j] = _mm512_shuffle_i32x4::<0x88>(low, high);
        columns[8 + j] = _mm512_shuffle_i32x4::<0xDD>(low, high);
        let (low, high) = (_mm512_shuffle_i32x4::<0xDD>(a, b), _mm512_shuffle_i32x4::<0xDD>(c, d));
        columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(low, high);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xDD>(low, high);
    }
    columns
}

/// Rows whose sums are in registers at once.
const ROWS: usize = 8;

#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn avx512(operands: Operands<u16>, block: *mut f32, stride: usize, accumulate: bool) {
    let Operands { steps, left, right, .. } = operands;
    // SAFETY: the two are 64 bytes of plain numbers.
    let halves = |x: __m512i| unsafe { transmute::<__m512i, __m512bh>(x) };
    for first in (0..TILE).step_by(ROWS) {
        // SAFETY: as the caller promises: reads are in the panels, writes in the block.
        unsafe {
            let block = block.add(first * stride);
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            if accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let at = block.add(row * stride);
                    *sums = [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(SIDE))];
                }
            }
            for step in 0..steps {
                let left = left.add((2 * step + first / SIDE) * TILE_LEN + first % SIDE * TILE).cast::<i32>();
                let right = right.add(2 * step * TILE_LEN);
                for pair in 0..SIDE {
                    let b = [0, TILE_LEN].map(|half| halves(_mm512_loadu_si512(right.add(half + pair * TILE).cast())));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = halves(_mm512_set1_epi32(left.add(row * SIDE + pair).read_unaligned()));
                        sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                let at = block.add(row * stride);
                _mm512_storeu_ps(at, sums[0]);
                _mm512_storeu_ps(at.add(SIDE), sums[1]);
            }
        }
    }
}
