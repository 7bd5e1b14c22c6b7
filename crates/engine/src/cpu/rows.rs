//! Functions of rows in which multiplications and additions fuse: by AVX-512 where the machine has it, else as the
//! compiler does it.

use super::math;
use crate::random::Stream;

/// What is dropped of a row: element `i` where the draw `i` of the blocks from `first` on is below the threshold.
#[derive(Clone, Copy)]
pub struct Drops<'a> {
    pub stream: &'a Stream,
    pub first: u32,
    pub threshold: u32,
    /// What the others are multiplied by.
    pub kept: f32,
}

/// Draws taken at once: enough for vector registers, few enough for the stack.
const DRAWS: usize = 256;

/// GELU of each element.
#[inline(always)]
pub fn gelu(row: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::gelu(row) };
    }
    row.iter_mut().for_each(|x| *x = math::gelu(*x));
}

/// GELU's derivative at each element.
#[inline(always)]
pub fn gelu_slopes(row: &[f32], slopes: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::gelu_slopes(row, slopes) };
    }
    slopes.iter_mut().zip(row).for_each(|(slope, &x)| *slope = math::gelu_slope(x));
}

/// `σ(x) = 1 / (1 + e⁻ˣ)` of each element. Not a number stays one.
#[inline(always)]
pub fn sigmoid(row: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::sigmoid(row, out) };
    }
    out.iter_mut().zip(row).for_each(|(out, &x)| *out = math::sigmoid(x));
}

/// `out += factors ⊙ σ′(row)`, with `σ′ = σ (1 − σ)`; each times its share, where there are shares.
#[inline(always)]
pub fn add_sigmoid_slopes(row: &[f32], factors: &[f32], shares: Option<&[f32]>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::add_sigmoid_slopes(row, factors, shares, out) };
    }
    add_sigmoid_slopes_anywhere(row, factors, shares, out);
}

#[inline(always)]
fn add_sigmoid_slopes_anywhere(row: &[f32], factors: &[f32], shares: Option<&[f32]>, out: &mut [f32]) {
    let slope = |x: f32| {
        let p = math::sigmoid(x);
        p * (1.0 - p)
    };
    let terms = out.iter_mut().zip(row).zip(factors);
    match shares {
        None => terms.for_each(|((out, &x), &factor)| *out += factor * slope(x)),
        Some(shares) => terms.zip(shares).for_each(|(((out, &x), &factor), &share)| *out += factor * slope(x) * share),
    }
}

/// Of the first `seen` scores, each times `scale`, in place: `2^(score − max)`, or 0 where dropped; and 0 in place of the
/// others. Returns the largest scaled score, and the sum of the powers with those that are dropped. A row is whole
/// registers long, `scale` positive.
#[inline(always)]
pub fn soften(scores: &mut [f32], scale: f32, seen: usize, drops: Option<Drops<'_>>) -> (f32, f32) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::soften(scores, scale, seen, drops) };
    }
    soften_anywhere(scores, scale, seen, drops)
}

#[inline(always)]
fn soften_anywhere(scores: &mut [f32], scale: f32, seen: usize, drops: Option<Drops<'_>>) -> (f32, f32) {
    let (row, rest) = scores.split_at_mut(seen);
    rest.fill(0.0);
    let max = math::max(row);
    row.iter_mut().for_each(|x| *x = math::exp2((*x - max) * scale));
    let sum = math::sum(row);
    for_each_draw(drops, row, |x, draw, drops| *x = if draw < drops.threshold { 0.0 } else { *x });
    (max * scale, sum)
}

/// A row of attention's backward pass, from scores `p`, each times `scale`, and `ds = dO Vᵀ`: in `ds` the gradient of the
/// first `seen` scores, in `dropped` the probabilities after dropout; 0 in place of the others. `p` is overwritten.
#[inline(always)]
pub fn soften_backward(
    [p, dropped, ds]: [&mut [f32]; 3],
    scale: f32,
    seen: usize,
    log2_sum: f32,
    drops: Option<Drops<'_>>,
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::soften_backward([p, dropped, ds], scale, seen, log2_sum, drops) };
    }
    soften_backward_anywhere([p, dropped, ds], scale, seen, log2_sum, drops);
}

#[inline(always)]
fn soften_backward_anywhere(
    [p, dropped, ds]: [&mut [f32]; 3],
    scale: f32,
    seen: usize,
    log2_sum: f32,
    drops: Option<Drops<'_>>,
) {
    p.iter_mut().for_each(|p| *p = math::exp2(*p * scale - log2_sum));
    p[seen..].fill(0.0);
    ds[seen..].fill(0.0);
    dropped.copy_from_slice(p);
    let kept =
        |x: &mut f32, draw: u32, drops: Drops<'_>| *x = if draw < drops.threshold { 0.0 } else { *x * drops.kept };
    for_each_draw(drops, &mut dropped[..seen], kept);
    for_each_draw(drops, &mut ds[..seen], kept);
    let mean = math::dot(p, ds);
    for (ds, &p) in ds.iter_mut().zip(&*p) {
        *ds = p * (*ds - mean);
    }
}

/// `f` of each element and its draw, if anything is dropped.
#[inline(always)]
fn for_each_draw(drops: Option<Drops<'_>>, row: &mut [f32], f: impl Fn(&mut f32, u32, Drops<'_>)) {
    let Some(drops) = drops else { return };
    let mut draws = [0; DRAWS];
    for (index, chunk) in row.chunks_mut(DRAWS).enumerate() {
        let draws = &mut draws[..chunk.len()];
        drops.stream.fill(drops.first + (index * DRAWS / 4) as u32, draws);
        chunk.iter_mut().zip(&*draws).for_each(|(x, &draw)| f(x, draw, drops));
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __mmask16, _MM_CMPINT_NLT, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm512_add_ps,
        _mm512_cmp_epu32_mask, _mm512_fmadd_ps, _mm512_fmsub_ps, _mm512_fnmadd_ps, _mm512_loadu_si512,
        _mm512_mask_max_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps,
        _mm512_min_ps, _mm512_mul_ps, _mm512_rcp14_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps,
        _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
        _mm512_sub_ps,
    };

    use super::{DRAWS, Drops};
    use crate::cpu::math::{LANES, NORMAL, NORMAL_END, SLOPE};

    /// The lanes of the register at `at` that lie below `end`.
    #[inline]
    fn lanes(at: usize, end: usize) -> __mmask16 {
        if end >= at + LANES { u16::MAX } else { (1 << end.saturating_sub(at)) - 1 }
    }

    /// ½ plus x times a polynomial in x², as `math::half_plus_odd`, of two registers: one alone would wait for each of its
    /// own steps.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn half_plus_odd(x: [__m512; 2], coefficients: &[f32]) -> [__m512; 2] {
        let end = _mm512_set1_ps(NORMAL_END);
        let x = x.map(|x| _mm512_max_ps(_mm512_min_ps(x, end), _mm512_sub_ps(_mm512_setzero_ps(), end)));
        let factor = _mm512_set1_ps(2.0 / (NORMAL_END * NORMAL_END));
        let u = x.map(|x| _mm512_fmsub_ps(_mm512_mul_ps(x, x), factor, _mm512_set1_ps(1.0)));
        let mut poly = [_mm512_setzero_ps(); 2];
        for &coefficient in coefficients {
            for (poly, u) in poly.iter_mut().zip(u) {
                *poly = _mm512_fmadd_ps(*poly, u, _mm512_set1_ps(coefficient));
            }
        }
        [0, 1].map(|i| _mm512_fmadd_ps(x[i], poly[i], _mm512_set1_ps(0.5)))
    }

    /// Two registers of a row from `at` on, zeros beyond its end.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_two(row: &[f32], at: usize) -> [__m512; 2] {
        // SAFETY: the masks let the row's elements through.
        [at, at + LANES].map(|at| unsafe { _mm512_maskz_loadu_ps(lanes(at, row.len()), row.as_ptr().wrapping_add(at)) })
    }

    /// Stores them, as far as the row goes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store_two([first, second]: [__m512; 2], row: &mut [f32], at: usize) {
        for (x, at) in [(first, at), (second, at + LANES)] {
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_ps(row.as_mut_ptr().wrapping_add(at), lanes(at, row.len()), x) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn gelu(row: &mut [f32]) {
        for at in (0..row.len()).step_by(2 * LANES) {
            let x = load_two(row, at);
            let half = half_plus_odd(x, &NORMAL);
            store_two([0, 1].map(|i| _mm512_mul_ps(x[i], half[i])), row, at);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn gelu_slopes(row: &[f32], slopes: &mut [f32]) {
        for at in (0..row.len()).step_by(2 * LANES) {
            store_two(half_plus_odd(load_two(row, at), &SLOPE), slopes, at);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn sigmoid(row: &[f32], out: &mut [f32]) {
        assert_eq!(row.len(), out.len());
        for at in (0..row.len()).step_by(2 * LANES) {
            store_two(load_two(row, at).map(|x| sigmoid_of(x)), out, at);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sigmoid_of(x: __m512) -> __m512 {
        let (end, one) = (_mm512_set1_ps(87.0), _mm512_set1_ps(1.0));
        // In this order what is not a number stays.
        let x = _mm512_max_ps(_mm512_set1_ps(-87.0), _mm512_min_ps(end, x));
        let exponent = _mm512_set1_ps(-std::f32::consts::LOG2_E);
        let whole =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(x, exponent));
        let sum = _mm512_add_ps(one, power(whole, _mm512_fmsub_ps(x, exponent, whole)));
        // A reciprocal to 14 bits, and a step of Newton's that makes them 28.
        let inverse = _mm512_rcp14_ps(sum);
        _mm512_fmadd_ps(inverse, _mm512_fnmadd_ps(sum, inverse, one), inverse)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn add_sigmoid_slopes(row: &[f32], factors: &[f32], shares: Option<&[f32]>, out: &mut [f32]) {
        for at in (0..row.len()).step_by(2 * LANES) {
            let [factors, before] = [factors, &*out].map(|row| load_two(row, at));
            let x = load_two(row, at);
            let p = [sigmoid_of(x[0]), sigmoid_of(x[1])];
            let shares = shares.map(|shares| load_two(shares, at));
            let sums = [0, 1].map(|i| {
                let slope = _mm512_fnmadd_ps(p[i], p[i], p[i]);
                let factor = shares.map_or(factors[i], |shares| _mm512_mul_ps(factors[i], shares[i]));
                _mm512_fmadd_ps(factor, slope, before[i])
            });
            store_two(sums, out, at);
        }
    }

    /// 2ˣ to 1.3e-7, of x from −126 on; below that as at −126.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn exp2(x: __m512) -> __m512 {
        // In this order what is not a number stays.
        let x = _mm512_max_ps(_mm512_set1_ps(-126.0), x);
        let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
        power(whole, _mm512_sub_ps(x, whole))
    }

    /// 2 to a whole number and a rest from −½ to ½.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn power(whole: __m512, r: __m512) -> __m512 {
        const COEFFICIENTS: [f32; 6] = [1.340_042_8e-3, 9.618_057e-3, 5.550_327e-2, 2.402_265e-1, 6.931_472e-1, 1.0];
        let first = _mm512_set1_ps(1.546_144_5e-4);
        let poly = COEFFICIENTS.iter().fold(first, |poly, &c| _mm512_fmadd_ps(poly, r, _mm512_set1_ps(c)));
        _mm512_scalef_ps(poly, whole)
    }

    /// Goes along a row a register at a time: `f` is told where it stands, which lanes lie in the row, and which are kept.
    /// All registers but the last are whole, which `f` is compiled for.
    #[inline(always)]
    fn each(seen: usize, drops: Option<Drops<'_>>, mut f: impl FnMut(usize, __mmask16, __mmask16)) {
        let whole = seen / LANES * LANES;
        let Some(drops) = drops else {
            (0..whole).step_by(LANES).for_each(|at| f(at, u16::MAX, u16::MAX));
            if whole < seen {
                f(whole, lanes(whole, seen), u16::MAX);
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
                f(begin + at, lanes(begin + at, seen), kept);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn soften(scores: &mut [f32], scale: f32, seen: usize, drops: Option<Drops<'_>>) -> (f32, f32) {
        let whole = seen.next_multiple_of(LANES);
        assert!(scores.len() >= whole);
        let mut max = _mm512_set1_ps(f32::NEG_INFINITY);
        each(
            seen,
            None,
            #[inline(always)]
            |at, lanes, _| {
                // SAFETY: whole registers up to `whole`, which lies in the row.
                max = unsafe {
                    _mm512_mask_max_ps(max, lanes, max, _mm512_maskz_loadu_ps(lanes, scores.as_ptr().add(at)))
                };
            },
        );
        let max = _mm512_reduce_max_ps(max);
        let (scales, maxima) = (_mm512_set1_ps(scale), _mm512_set1_ps(max));
        let mut sum = _mm512_setzero_ps();
        each(
            seen,
            drops,
            #[inline(always)]
            |at, lanes, kept| {
                // SAFETY: as above.
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
        (max * scale, _mm512_reduce_add_ps(sum))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type SoftenBackward = fn([&mut [f32]; 3], f32, usize, f32, Option<Drops<'_>>);

    fn numbers(len: usize, seed: u64) -> Vec<f32> {
        let mut numbers = vec![0.0; len];
        crate::random::fill_normal(&Stream::weights(seed, "rows"), 3.0, &mut numbers);
        numbers
    }

    fn assert_alike(a: &[f32], b: &[f32]) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 2e-6 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    #[test]
    fn the_largest_score_is_softened_to_1_however_large() {
        for largest in [96_737_042_432.0_f32, 1.024e11, 1e6, 0.3, -7e8] {
            let mut scores = [largest; 16];
            scores[1] = largest - largest.abs();
            let (max, sum) = soften(&mut scores, 0.180_336_88, 2, None);
            assert_eq!((max, scores[0]), (largest * 0.180_336_88, 1.0));
            assert!((1.0..=2.0).contains(&sum), "{largest}: {sum}");
        }
    }

    #[test]
    fn sigmoids_of_the_largest_numbers_are_0_and_1_and_of_none_none() {
        let mut p = [0.0; 5];
        sigmoid(&[f32::NEG_INFINITY, -1e30, f32::NAN, 1e30, f32::INFINITY], &mut p);
        assert!(p[0] < 2e-38 && p[1] == p[0] && p[2].is_nan() && p[3..] == [1.0; 2], "{p:?}");
    }

    proptest! {
        #[test]
        fn vector_instructions_say_the_same_as_the_compiler(
            seen in 1..600_usize, more in 0..40_usize, drops: bool, seed in 0..1000_u64,
        ) {
            let len = (seen + more).next_multiple_of(16);
            let stream = Stream::weights(seed, "drops");
            let drops = drops.then_some(Drops { stream: &stream, first: 7, threshold: 1 << 30, kept: 4.0 / 3.0 });
            let (x, dy) = (numbers(len, seed), numbers(len, seed + 1));

            let (mut a, mut b) = (x.clone(), x.clone());
            let ((max, sum), (other_max, other_sum)) = (soften(&mut a, 0.7, seen, drops), soften_anywhere(&mut b, 0.7, seen, drops));
            prop_assert_eq!(max, other_max);
            assert_alike(&[sum / other_sum], &[1.0]);
            assert_alike(&a, &b);

            let log2_sum = max + sum.log2();
            let run = |f: SoftenBackward| {
                let (mut p, mut dropped, mut ds) = (x.clone(), vec![9.0; len], dy.clone());
                f([&mut p, &mut dropped, &mut ds], 0.7, seen, log2_sum, drops);
                (dropped, ds)
            };
            let ((dropped, ds), (other_dropped, other_ds)) = (run(soften_backward), run(soften_backward_anywhere));
            assert_alike(&dropped, &other_dropped);
            assert_alike(&ds, &other_ds);

            let (mut a, b) = (x.clone(), x.iter().map(|&x| math::gelu(x)).collect::<Vec<_>>());
            gelu(&mut a);
            assert_alike(&a, &b);
            gelu_slopes(&x, &mut a);
            assert_alike(&a, &x.iter().map(|&x| math::gelu_slope(x)).collect::<Vec<_>>());
        }

        #[test]
        fn sigmoids_are_within_some_ten_millionths(first in -90.0..90.0_f32, len in 1..70_usize) {
            let x: Vec<f32> = (0..len).map(|i| first + 0.37 * (i as f32 - 35.0)).collect();
            let mut p = vec![0.0; len];
            sigmoid(&x, &mut p);
            let (factors, shares) = (numbers(len, 1), numbers(len, 2));
            for shares in [None, Some(&*shares)] {
                let (mut a, mut b) = (vec![1.0; len], vec![1.0; len]);
                add_sigmoid_slopes(&x, &factors, shares, &mut a);
                add_sigmoid_slopes_anywhere(&x, &factors, shares, &mut b);
                assert_alike(&a, &b);
            }
            for (&p, &x) in p.iter().zip(&x) {
                let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                // The exponent, which grows with x, is rounded.
                let bound = (3.5e-7 + 2e-8 * f64::from(x.abs())) * exact + 2e-38;
                prop_assert!((0.0..=1.0).contains(&p) && (f64::from(p) - exact).abs() <= bound, "{x}: {p}");
            }
        }
    }
}
