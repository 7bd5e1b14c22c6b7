//! What `rows` offers, by AVX-512.

use std::arch::x86_64::{
    __m512, __mmask16, _MM_CMPINT_NLT, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEG_INF, _mm512_add_ps, _mm512_castpd_ps,
    _mm512_castps_pd, _mm512_cmp_epu32_mask, _mm512_fmadd_ps, _mm512_fmsub_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_max_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_range_ps, _mm512_rcp14_ps, _mm512_reduce_add_ps,
    _mm512_reduce_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
    _mm512_unpacklo_ps,
};

use super::{DRAWS, Drops, Parts};
use crate::cpu::math::{HalfPlusOdd, LANES, lanes_below};
use crate::cpu::matmul::{ROWS_AHEAD, Source, View};
use crate::cpu::parallel::Block;

/// The number of two that is nearer to 0, with the sign of the first.
const NEARER_TO_0: i32 = 0b0010;

/// Of two registers: one alone would wait for each of its own steps.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn half_plus_odd<const N: usize>(x: [__m512; 2], function: &HalfPlusOdd<N>) -> [__m512; 2] {
    let end = _mm512_set1_ps(function.end);
    let x = x.map(|x| _mm512_range_ps::<NEARER_TO_0>(x, end));
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
#[target_feature(enable = "avx512f,avx512dq")]
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
#[target_feature(enable = "avx512f,avx512dq")]
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

#[target_feature(enable = "avx512f")]
pub fn sigmoid_of_rows(x: View<'_>, out: &mut Block<'_>) {
    let len = out.columns();
    by_two(
        len,
        #[inline(always)]
        // SAFETY: as above, of each row.
        |at, lanes| unsafe {
            for place in 0..out.rows() {
                x.prefetch(place, len + at, 2 * LANES);
                let (row, out) = (x.row(place), out.row(place));
                assert!(row.len() == len && out.len() == len);
                store_two(load_two(row, at, lanes).map(|x| sigmoid_of(x)), out, at, lanes);
            }
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
    let sum = _mm512_add_ps(one, power(whole, _mm512_fmsub_ps(x, exponent, whole), &POWER));
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
            let shares = shares.map(|shares| load_two(shares, at, lanes));
            let terms = [load_two(row, at, lanes), load_two(factors, at, lanes), load_two(out, at, lanes)];
            store_two(plus_sigmoid_slopes(terms, shares), out, at, lanes);
        },
    );
}

#[target_feature(enable = "avx512f")]
pub fn add_sigmoid_slopes_of_rows(x: View<'_>, factors: &[f32], shares: Option<View<'_>>, out: &mut Block<'_>) {
    let len = factors.len();
    by_two(
        len,
        #[inline(always)]
        // SAFETY: as above, of each row.
        |at, lanes| unsafe {
            let factors = load_two(factors, at, lanes);
            for place in 0..out.rows() {
                let (row, out) = (x.row(place), out.row(place));
                let shares = shares.map(|shares| {
                    shares.prefetch(place + ROWS_AHEAD, at, 2 * LANES);
                    shares.row(place)
                });
                assert!(row.len() == len && out.len() == len && shares.is_none_or(|shares| shares.len() == len));
                let shares = shares.map(|shares| load_two(shares, at, lanes));
                let terms = [load_two(row, at, lanes), factors, load_two(out, at, lanes)];
                store_two(plus_sigmoid_slopes(terms, shares), out, at, lanes);
            }
        },
    );
}

/// The slopes of sigmoid at `x` times their factors, and times their shares if there are any, added to what was before.
#[inline]
#[target_feature(enable = "avx512f")]
fn plus_sigmoid_slopes([x, factors, before]: [[__m512; 2]; 3], shares: Option<[__m512; 2]>) -> [__m512; 2] {
    [0, 1].map(|i| {
        let factor = shares.map_or(factors[i], |shares| _mm512_mul_ps(factors[i], shares[i]));
        let p = sigmoid_of(x[i]);
        _mm512_fmadd_ps(factor, _mm512_fnmadd_ps(p, p, p), before[i])
    })
}

const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;

/// 2ˣ by a polynomial, of x from −126 on; below that as at −126.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2<const N: usize>(x: __m512, coefficients: &[f32; N]) -> __m512 {
    // In this order what is not a number stays.
    let x = _mm512_max_ps(_mm512_set1_ps(-126.0), x);
    power(x, _mm512_reduce_ps::<DOWN>(x), coefficients)
}

/// 2ˣ for x from 0 to 1, within 1.6e-7: of the polynomials that are 1 at 0 that of the smallest largest error.
pub const POWER: [f32; 6] = [1.861_899_3e-3, 9.030_093e-3, 5.578_899_4e-2, 2.401_678_6e-1, 6.931_51e-1, 1.0];
/// The same within 8.6e-5: a bf16 is rounded by up to 2e-3.
pub const POWER_OF_BF16: [f32; 4] = [7.706_704e-2, 2.276_45e-1, 6.951_168e-1, 1.0];

/// 2 to an exponent's whole part (the whole number below it) and to its rest, from 0 to 1.
#[inline]
#[target_feature(enable = "avx512f")]
fn power<const N: usize>(exponent: __m512, rest: __m512, coefficients: &[f32; N]) -> __m512 {
    let mut poly = _mm512_set1_ps(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        poly = _mm512_fmadd_ps(poly, rest, _mm512_set1_ps(coefficient));
    }
    _mm512_scalef_ps(poly, exponent)
}

/// Goes along a row a register at a time: `f` is told where it stands, and which lanes lie in the row. All registers but the
/// last are whole, which `f` is compiled for.
#[inline(always)]
fn each(seen: usize, mut f: impl FnMut(usize, __mmask16)) {
    let whole = seen / LANES * LANES;
    (0..whole).step_by(LANES).for_each(|at| f(at, u16::MAX));
    if whole < seen {
        f(whole, lanes_below(seen, whole));
    }
}

/// The same, where `f` is told besides which lanes are kept.
#[inline(always)]
fn each_kept(seen: usize, drops: Option<Drops<'_>>, mut f: impl FnMut(usize, __mmask16, __mmask16)) {
    let Some(drops) = drops else {
        return each(
            seen,
            #[inline(always)]
            |at, lanes| f(at, lanes, u16::MAX),
        );
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
pub fn parts_of_max(scores: &[f32]) -> Parts {
    // Two, which do not wait for each other.
    let mut maxima = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
    by_two(
        scores.len(),
        #[inline(always)]
        |at, lanes| {
            // SAFETY: the lanes lie in the row.
            let scores = unsafe { load_two(scores, at, lanes) };
            for (max, (lanes, scores)) in maxima.iter_mut().zip(lanes.into_iter().zip(scores)) {
                *max = _mm512_mask_max_ps(*max, lanes, *max, scores);
            }
        },
    );
    parts_of(_mm512_max_ps(maxima[0], maxima[1]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn parts_of(register: __m512) -> Parts {
    let mut parts = Parts([0.0; LANES]);
    // SAFETY: there is room for a register.
    unsafe { _mm512_storeu_ps(parts.0.as_mut_ptr(), register) };
    parts
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn maxima<const N: usize>(parts: &[Parts]) -> [f32; N] {
    across(
        parts,
        #[inline(always)]
        |a, b| _mm512_max_ps(a, b),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
pub fn sums<const N: usize>(parts: &[Parts]) -> [f32; N] {
    across(
        parts,
        #[inline(always)]
        |a, b| _mm512_add_ps(a, b),
    )
}

/// Of each row its lanes taken together, sixteen rows at once: in four rounds, each of which halves the registers and makes
/// lanes of two rows neighbours.
#[inline]
#[target_feature(enable = "avx512f")]
fn across<const N: usize>(parts: &[Parts], both: impl Fn(__m512, __m512) -> __m512) -> [f32; N] {
    let mut results = [0.0; N];
    let places = results[..parts.len()].chunks_mut(LANES);
    for (parts, results) in parts.chunks(LANES).zip(places) {
        // Of fewer rows than sixteen the last one is taken again.
        let row = |i: usize| &parts[i.min(parts.len() - 1)];
        // SAFETY: a row's parts are a register.
        let rows: [__m512; LANES] = std::array::from_fn(|i| unsafe { _mm512_loadu_ps(row(i).0.as_ptr()) });
        let twos: [__m512; 8] = std::array::from_fn(|i| {
            let (a, b) = (rows[2 * i], rows[2 * i + 1]);
            both(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b))
        });
        let fours: [__m512; 4] = std::array::from_fn(|i| {
            let (a, b) = (_mm512_castps_pd(twos[2 * i]), _mm512_castps_pd(twos[2 * i + 1]));
            both(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
        });
        let quarters =
            |a: __m512, b: __m512| both(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
        let [low, high] = [quarters(fours[0], fours[1]), quarters(fours[2], fours[3])];
        results.copy_from_slice(&parts_of(quarters(low, high)).0[..results.len()]);
    }
    results
}

/// Without what is dropped, and without the room that draws take, which would be made for each row.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn soften<const N: usize>(scores: &mut [f32], softening: [f32; 2], seen: usize, coefficients: &[f32; N]) -> Parts {
    let whole = seen.next_multiple_of(LANES);
    assert!(scores.len() >= whole);
    let softening = softening.map(|x| _mm512_set1_ps(x));
    let mut sum = _mm512_setzero_ps();
    each(
        seen,
        #[inline(always)]
        |at, lanes| {
            // SAFETY: whole registers up to `whole`, which lies in the row.
            unsafe {
                let power = power_of_score(scores, at, lanes, softening, coefficients);
                sum = _mm512_add_ps(sum, power);
                _mm512_storeu_ps(scores.as_mut_ptr().add(at), power);
            }
        },
    );
    for at in (whole..scores.len()).step_by(LANES) {
        // SAFETY: the lanes lie in the row.
        unsafe {
            _mm512_mask_storeu_ps(scores.as_mut_ptr().add(at), lanes_below(scores.len(), at), _mm512_setzero_ps())
        };
    }
    parts_of(sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub fn soften_and_drop<const N: usize>(
    scores: &mut [f32],
    softening: [f32; 2],
    seen: usize,
    drops: Drops<'_>,
    coefficients: &[f32; N],
) -> Parts {
    let whole = seen.next_multiple_of(LANES);
    assert!(scores.len() >= whole);
    let softening = softening.map(|x| _mm512_set1_ps(x));
    let mut sum = _mm512_setzero_ps();
    each_kept(
        seen,
        Some(drops),
        #[inline(always)]
        |at, lanes, kept| {
            // SAFETY: as above.
            unsafe {
                let power = power_of_score(scores, at, lanes, softening, coefficients);
                sum = _mm512_add_ps(sum, power);
                _mm512_storeu_ps(scores.as_mut_ptr().add(at), _mm512_maskz_mov_ps(kept, power));
            }
        },
    );
    scores[whole..].fill(0.0);
    parts_of(sum)
}

/// `2^((score − max) · scale)` in the lanes of a register.
///
/// # Safety
/// The lanes must lie in the row.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn power_of_score<const N: usize>(
    scores: &[f32],
    at: usize,
    lanes: __mmask16,
    [max, scale]: [__m512; 2],
    coefficients: &[f32; N],
) -> __m512 {
    // SAFETY: as the caller promises.
    let score = unsafe { _mm512_maskz_loadu_ps(lanes, scores.as_ptr().add(at)) };
    // The difference first: it is 0 of the largest, however large that is.
    _mm512_maskz_mov_ps(lanes, exp2(_mm512_mul_ps(_mm512_sub_ps(score, max), scale), coefficients))
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
    each_kept(
        seen,
        drops,
        #[inline(always)]
        |at, lanes, kept| {
            // SAFETY: whole registers up to `whole`, which lies in all three rows.
            unsafe {
                let (p, ds) = (p.as_mut_ptr().add(at), ds.as_mut_ptr().add(at));
                let x = _mm512_fmsub_ps(_mm512_maskz_loadu_ps(lanes, p), scale, log2_sum);
                let power = _mm512_maskz_mov_ps(lanes, exp2(x, &POWER));
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
