//! What `rows` offers, by AVX-512.

use std::arch::x86_64::{
    __m512, __mmask16, _MM_CMPINT_NLT, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEG_INF, _mm512_add_ps, _mm512_cmp_epu32_mask,
    _mm512_fmadd_ps, _mm512_fmsub_ps, _mm512_fnmadd_ps, _mm512_loadu_si512, _mm512_mask_max_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_rcp14_ps,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_reduce_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{DRAWS, Drops};
use crate::cpu::math::{HalfPlusOdd, LANES, lanes_below};

/// Of two registers: one alone would wait for each of its own steps.
#[inline]
#[target_feature(enable = "avx512f")]
fn half_plus_odd<const N: usize>(x: [__m512; 2], function: &HalfPlusOdd<N>) -> [__m512; 2] {
    let end = _mm512_set1_ps(function.end);
    let x = x.map(|x| _mm512_max_ps(_mm512_min_ps(x, end), _mm512_sub_ps(_mm512_setzero_ps(), end)));
    let scale = _mm512_set1_ps(function.scale());
    let u = x.map(|x| _mm512_fmsub_ps(_mm512_mul_ps(x, x), scale, _mm512_set1_ps(1.0)));
    let mut poly = [_mm512_set1_ps(function.coefficients[0]); 2];
    for &coefficient in &function.coefficients[1..] {
        for (poly, u) in poly.iter_mut().zip(u) {
            *poly = _mm512_fmadd_ps(*poly, u, _mm512_set1_ps(coefficient));
        }
    }
    [0, 1].map(|i| _mm512_fmadd_ps(x[i], poly[i], _mm512_set1_ps(0.5)))
}

/// Goes along a row two registers at a time: `f` is told where it stands, and which lanes lie in the row. All but the last
/// are whole, which `f` is compiled for.
#[inline(always)]
fn by_two(len: usize, mut f: impl FnMut(usize, [__mmask16; 2])) {
    let whole = len / (2 * LANES) * (2 * LANES);
    (0..whole).step_by(2 * LANES).for_each(|at| f(at, [u16::MAX; 2]));
    if whole < len {
        f(whole, [lanes_below(len, whole), lanes_below(len, whole + LANES)]);
    }
}

/// Two registers of a row from `at` on, zeros in other lanes.
///
/// # Safety
/// The lanes must lie in the row.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_two(row: &[f32], at: usize, lanes: [__mmask16; 2]) -> [__m512; 2] {
    // SAFETY: as the caller promises.
    [0, 1].map(|i| unsafe { _mm512_maskz_loadu_ps(lanes[i], row.as_ptr().wrapping_add(at + i * LANES)) })
}

/// Stores their lanes.
///
/// # Safety
/// As [`load_two`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_two(registers: [__m512; 2], row: &mut [f32], at: usize, lanes: [__mmask16; 2]) {
    for (i, register) in registers.into_iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { _mm512_mask_storeu_ps(row.as_mut_ptr().wrapping_add(at + i * LANES), lanes[i], register) };
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn gelu<const N: usize>(row: &[f32], bias: Option<&[f32]>, normal: &HalfPlusOdd<N>, out: &mut [f32]) {
    assert!(row.len() == out.len() && bias.is_none_or(|bias| bias.len() == row.len()));
    by_two(
        row.len(),
        #[inline(always)]
        // SAFETY: the lanes lie in all three rows; the caller's machine has the instructions.
        |at, lanes| unsafe {
            let mut x = load_two(row, at, lanes);
            if let Some(bias) = bias {
                let bias = load_two(bias, at, lanes);
                x = [_mm512_add_ps(x[0], bias[0]), _mm512_add_ps(x[1], bias[1])];
            }
            let half = half_plus_odd(x, normal);
            store_two([_mm512_mul_ps(x[0], half[0]), _mm512_mul_ps(x[1], half[1])], out, at, lanes);
        },
    );
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn gelu_slopes<const N: usize>(row: &[f32], slope: &HalfPlusOdd<N>, slopes: &mut [f32]) {
    assert!(row.len() <= slopes.len());
    by_two(
        row.len(),
        #[inline(always)]
        // SAFETY: as above.
        |at, lanes| unsafe { store_two(half_plus_odd(load_two(row, at, lanes), slope), slopes, at, lanes) },
    );
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn sigmoid(row: &[f32], out: &mut [f32]) {
    assert_eq!(row.len(), out.len());
    by_two(
        row.len(),
        #[inline(always)]
        // SAFETY: as above.
        |at, lanes| unsafe {
            let [first, second] = load_two(row, at, lanes);
            store_two([sigmoid_of(first), sigmoid_of(second)], out, at, lanes);
        },
    );
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sigmoid_of(x: __m512) -> __m512 {
    let (end, one) = (_mm512_set1_ps(87.0), _mm512_set1_ps(1.0));
    // In this order what is not a number stays.
    let x = _mm512_max_ps(_mm512_set1_ps(-87.0), _mm512_min_ps(end, x));
    let exponent = _mm512_set1_ps(-std::f32::consts::LOG2_E);
    let whole = _mm512_roundscale_ps::<DOWN>(_mm512_mul_ps(x, exponent));
    let sum = _mm512_add_ps(one, power(whole, _mm512_fmsub_ps(x, exponent, whole)));
    // A reciprocal to 14 bits, and a step of Newton's that makes them 28.
    let inverse = _mm512_rcp14_ps(sum);
    _mm512_fmadd_ps(inverse, _mm512_fnmadd_ps(sum, inverse, one), inverse)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn add_sigmoid_slopes(row: &[f32], factors: &[f32], shares: Option<&[f32]>, out: &mut [f32]) {
    let len = row.len();
    assert!(factors.len() == len && out.len() == len && shares.is_none_or(|shares| shares.len() == len));
    by_two(
        len,
        #[inline(always)]
        // SAFETY: as above, of all four.
        |at, lanes| unsafe {
            let x = load_two(row, at, lanes);
            let (mut factors, before) = (load_two(factors, at, lanes), load_two(out, at, lanes));
            if let Some(shares) = shares {
                let shares = load_two(shares, at, lanes);
                factors = [_mm512_mul_ps(factors[0], shares[0]), _mm512_mul_ps(factors[1], shares[1])];
            }
            let mut sums = before;
            for i in 0..2 {
                let p = sigmoid_of(x[i]);
                sums[i] = _mm512_fmadd_ps(factors[i], _mm512_fnmadd_ps(p, p, p), before[i]);
            }
            store_two(sums, out, at, lanes);
        },
    );
}

const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// 2ˣ to 1.6e-7, of x from −126 on; below that as at −126.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2(x: __m512) -> __m512 {
    // In this order what is not a number stays.
    let x = _mm512_max_ps(_mm512_set1_ps(-126.0), x);
    power(x, _mm512_reduce_ps::<DOWN>(x))
}

/// 2 to an exponent's whole part (the whole number below it) and to its rest, from 0 to 1: by the polynomial of the smallest
/// largest error among those that are 1 at 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn power(exponent: __m512, rest: __m512) -> __m512 {
    const COEFFICIENTS: [f32; 5] = [9.030_093e-3, 5.578_899_4e-2, 2.401_678_6e-1, 6.931_51e-1, 1.0];
    let first = _mm512_set1_ps(1.861_899_3e-3);
    let poly = COEFFICIENTS.iter().fold(first, |poly, &c| _mm512_fmadd_ps(poly, rest, _mm512_set1_ps(c)));
    _mm512_scalef_ps(poly, exponent)
}

/// Goes along a row a register at a time: `f` is told where it stands, which lanes lie in the row, and which are kept.
/// All registers but the last are whole, which `f` is compiled for.
#[inline(always)]
fn each(seen: usize, drops: Option<Drops<'_>>, mut f: impl FnMut(usize, __mmask16, __mmask16)) {
    let whole = seen / LANES * LANES;
    let Some(drops) = drops else {
        (0..whole).step_by(LANES).for_each(|at| f(at, u16::MAX, u16::MAX));
        if whole < seen {
            f(whole, lanes_below(seen, whole), u16::MAX);
        }
        return;
    };
    let mut draws = [0; DRAWS];
    for begin in (0..seen).step_by(DRAWS) {
        let len = DRAWS.min(seen - begin).next_multiple_of(LANES);
        drops.stream.fill(drops.first + (begin / 4) as u32, &mut draws[..len]);
        for at in (0..len).step_by(LANES) {
            // SAFETY: the draws are whole registers; the callers' machine has the instructions.
            let kept = unsafe {
                let draw = _mm512_loadu_si512(draws.as_ptr().add(at).cast());
                _mm512_cmp_epu32_mask::<_MM_CMPINT_NLT>(draw, _mm512_set1_epi32(drops.threshold as i32))
            };
            f(begin + at, lanes_below(seen, begin + at), kept);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn max(scores: &[f32]) -> f32 {
    // Two, which do not wait for each other.
    let mut maxima = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
    each(
        scores.len(),
        None,
        #[inline(always)]
        |at, lanes, _| {
            let [max, other] = maxima;
            // SAFETY: the mask lets the row's elements through.
            let max =
                unsafe { _mm512_mask_max_ps(max, lanes, max, _mm512_maskz_loadu_ps(lanes, scores.as_ptr().add(at))) };
            maxima = [other, max];
        },
    );
    _mm512_reduce_max_ps(_mm512_max_ps(maxima[0], maxima[1]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn soften(scores: &mut [f32], max: f32, scale: f32, seen: usize, drops: Option<Drops<'_>>) -> f32 {
    let whole = seen.next_multiple_of(LANES);
    assert!(scores.len() >= whole);
    let (scales, maxima) = (_mm512_set1_ps(scale), _mm512_set1_ps(max));
    let mut sum = _mm512_setzero_ps();
    each(
        seen,
        drops,
        #[inline(always)]
        |at, lanes, kept| {
            // SAFETY: whole registers up to `whole`, which lies in the row.
            unsafe {
                let scores = scores.as_mut_ptr().add(at);
                // The difference first: it is 0 of the largest, however large that is.
                let x = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, scores), maxima), scales);
                let power = _mm512_maskz_mov_ps(lanes, exp2(x));
                sum = _mm512_add_ps(sum, power);
                _mm512_storeu_ps(scores, _mm512_maskz_mov_ps(kept, power));
            }
        },
    );
    scores[whole..].fill(0.0);
    _mm512_reduce_add_ps(sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn soften_backward(
    [p, dropped, ds]: [&mut [f32]; 3],
    scale: f32,
    seen: usize,
    log2_sum: f32,
    drops: Option<Drops<'_>>,
) {
    let (scale, log2_sum) = (_mm512_set1_ps(scale), _mm512_set1_ps(log2_sum));
    let whole = seen.next_multiple_of(LANES);
    assert!(p.len() >= whole && dropped.len() >= whole && ds.len() >= whole);
    let factor = _mm512_set1_ps(drops.map_or(1.0, |drops| drops.kept));
    let mut mean = _mm512_setzero_ps();
    each(
        seen,
        drops,
        #[inline(always)]
        |at, lanes, kept| {
            // SAFETY: whole registers up to `whole`, which lies in all three rows.
            unsafe {
                let (p, ds) = (p.as_mut_ptr().add(at), ds.as_mut_ptr().add(at));
                let x = _mm512_fmsub_ps(_mm512_maskz_loadu_ps(lanes, p), scale, log2_sum);
                let power = _mm512_maskz_mov_ps(lanes, exp2(x));
                let through = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes & kept, ds), factor);
                mean = _mm512_fmadd_ps(power, through, mean);
                _mm512_storeu_ps(p, power);
                _mm512_storeu_ps(ds, through);
                let dropped = dropped.as_mut_ptr().add(at);
                _mm512_storeu_ps(dropped, _mm512_maskz_mov_ps(kept, _mm512_mul_ps(power, factor)));
            }
        },
    );
    let mean = _mm512_set1_ps(_mm512_reduce_add_ps(mean));
    for at in (0..whole).step_by(LANES) {
        // SAFETY: as above.
        unsafe {
            let (p, ds) = (p.as_ptr().add(at), ds.as_mut_ptr().add(at));
            let (p, through) = (_mm512_maskz_loadu_ps(u16::MAX, p), _mm512_maskz_loadu_ps(u16::MAX, ds));
            _mm512_storeu_ps(ds, _mm512_mul_ps(p, _mm512_sub_ps(through, mean)));
        }
    }
    dropped[whole..].fill(0.0);
    ds[whole..].fill(0.0);
}
