//! Functions of rows in which multiplications and additions fuse: by AVX-512 where the machine has it, else as the
//! compiler does it.

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::math::{self, HalfPlusOdd, LANES};
use super::matmul::{Source, View};
use super::parallel::Block;
use crate::precision::Precision;
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

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")
}

/// Draws taken at once: enough for vector registers, few enough for the stack.
const DRAWS: usize = 256;

/// GELU of each element with its bias, where there is one: `x·Φ(x)` with Φ to 3e-7, or to 1.1e-5 for products in bf16.
#[inline(always)]
pub fn gelu(row: &[f32], bias: Option<&[f32]>, precision: Precision, out: &mut [f32]) {
    match precision {
        Precision::F32 => gelu_by(row, bias, &math::NORMAL, out),
        Precision::Bf16 => gelu_by(row, bias, &math::NORMAL_OF_BF16, out),
    }
}

#[inline(always)]
fn gelu_by<const N: usize>(row: &[f32], bias: Option<&[f32]>, normal: &HalfPlusOdd<N>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::gelu(row, bias, normal, out) };
    }
    match bias {
        None => out.copy_from_slice(row),
        Some(bias) => math::add(row, bias, out),
    }
    out.iter_mut().for_each(|x| *x *= normal.at(*x));
}

/// GELU's derivative at each element, as [`gelu`].
#[inline(always)]
pub fn gelu_slopes(row: &[f32], precision: Precision, slopes: &mut [f32]) {
    match precision {
        Precision::F32 => gelu_slopes_by(row, &math::SLOPE, slopes),
        Precision::Bf16 => gelu_slopes_by(row, &math::SLOPE_OF_BF16, slopes),
    }
}

#[inline(always)]
fn gelu_slopes_by<const N: usize>(row: &[f32], slope: &HalfPlusOdd<N>, slopes: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::gelu_slopes(row, slope, slopes) };
    }
    slopes.iter_mut().zip(row).for_each(|(out, &x)| *out = slope.at(x));
}

/// `σ(x) = 1 / (1 + e⁻ˣ)` of each element. Not a number stays one.
#[inline(always)]
pub fn sigmoid(row: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::sigmoid(row, out) };
    }
    out.iter_mut().zip(row).for_each(|(out, &x)| *out = math::sigmoid(x));
}

/// The same of a block's rows. What follows each row in memory is asked for, where the next head's are.
#[inline(always)]
pub fn sigmoid_of_rows(x: View<'_>, out: &mut Block<'_>) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::sigmoid_of_rows(x, out) };
    }
    for row in 0..out.rows() {
        x.prefetch(row, out.columns(), out.columns());
        out.row(row).iter_mut().zip(x.row(row)).for_each(|(out, &x)| *out = math::sigmoid(x));
    }
}

/// `out += factors ⊙ σ′(row)`, with `σ′ = σ (1 − σ)`; each times its share, where there are shares.
#[inline(always)]
pub fn add_sigmoid_slopes(row: &[f32], factors: &[f32], shares: Option<&[f32]>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::add_sigmoid_slopes(row, factors, shares, out) };
    }
    add_sigmoid_slopes_anywhere(row, factors, shares, out);
}

/// The same of a block's rows, all with the same factors.
#[inline(always)]
pub fn add_sigmoid_slopes_of_rows(x: View<'_>, factors: &[f32], shares: Option<View<'_>>, out: &mut Block<'_>) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::add_sigmoid_slopes_of_rows(x, factors, shares, out) };
    }
    for row in 0..out.rows() {
        add_sigmoid_slopes_anywhere(x.row(row), factors, shares.map(|shares| shares.row(row)), out.row(row));
    }
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

/// Parts of a maximum or of a sum of a row. Those of many rows are put together at once, which takes less time than row by row.
/// On a cache line: what is read right after it was written comes from the store only if neither crosses a line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Parts(pub [f32; LANES]);

/// Parts of the maximum of some scores; −∞ of none.
#[inline(always)]
pub fn parts_of_max(scores: &[f32]) -> Parts {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::parts_of_max(scores) };
    }
    Parts([math::max(scores); LANES])
}

/// The maxima of which these are the parts, at most `N`; zeros after them.
#[inline(always)]
pub fn maxima<const N: usize>(parts: &[Parts]) -> [f32; N] {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::maxima(parts) };
    }
    put_together(parts, math::max)
}

/// The sums of which these are the parts, as [`maxima`].
#[inline(always)]
pub fn sums<const N: usize>(parts: &[Parts]) -> [f32; N] {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::sums(parts) };
    }
    put_together(parts, math::sum)
}

#[inline(always)]
fn put_together<const N: usize>(parts: &[Parts], f: impl Fn(&[f32]) -> f32) -> [f32; N] {
    let mut results = [0.0; N];
    results[..parts.len()].iter_mut().zip(parts).for_each(|(result, parts)| *result = f(&parts.0));
    results
}

/// Of the first `seen` scores, in place: `2^((score − max) · scale)`, or 0 where dropped; and 0 in place of the others.
/// Returns parts of the sum of the powers with those that are dropped. A row is whole registers long, `max` the largest score,
/// `scale` positive. Powers are within some millionths, or 1e-4 for products in bf16.
#[inline(always)]
pub fn soften(
    scores: &mut [f32],
    [max, scale]: [f32; 2],
    seen: usize,
    drops: Option<Drops<'_>>,
    precision: Precision,
) -> Parts {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the machine has the instructions.
        return unsafe {
            use avx512::{POWER, POWER_OF_BF16, soften, soften_and_drop};
            let softening = [max, scale];
            match (precision, drops) {
                (Precision::F32, None) => soften(scores, softening, seen, &POWER),
                (Precision::F32, Some(drops)) => soften_and_drop(scores, softening, seen, drops, &POWER),
                (Precision::Bf16, None) => soften(scores, softening, seen, &POWER_OF_BF16),
                (Precision::Bf16, Some(drops)) => soften_and_drop(scores, softening, seen, drops, &POWER_OF_BF16),
            }
        };
    }
    let mut parts = [0.0; LANES];
    parts[0] = soften_anywhere(scores, [max, scale], seen, drops);
    Parts(parts)
}

#[inline(always)]
fn soften_anywhere(scores: &mut [f32], [max, scale]: [f32; 2], seen: usize, drops: Option<Drops<'_>>) -> f32 {
    let (row, rest) = scores.split_at_mut(seen);
    rest.fill(0.0);
    row.iter_mut().for_each(|x| *x = math::exp2((*x - max) * scale));
    let sum = math::sum(row);
    for_each_draw(drops, row, |x, draw, drops| *x = if draw < drops.threshold { 0.0 } else { *x });
    sum
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
    if has_avx512() {
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
            let [max] = maxima(&[parts_of_max(&scores[..2])]);
            for precision in [Precision::F32, Precision::Bf16] {
                let mut scores = scores;
                let [sum] = sums(&[soften(&mut scores, [max, 0.180_336_88], 2, None, precision)]);
                assert_eq!((max, scores[0]), (largest, 1.0));
                assert!((1.0..=2.0).contains(&sum), "{largest}: {sum}");
            }
        }
    }

    #[test]
    fn sigmoids_of_the_largest_numbers_are_0_and_1_and_of_none_none() {
        let mut p = [0.0; 5];
        sigmoid(&[f32::NEG_INFINITY, -1e30, f32::NAN, 1e30, f32::INFINITY], &mut p);
        assert!(p[0] < 2e-38 && p[1] == p[0] && p[2].is_nan() && p[3..] == [1.0; 2], "{p:?}");
    }

    #[test]
    fn parts_of_many_rows_are_put_together_row_by_row() {
        let number = |row: usize, lane: usize| ((row * 7 + lane * 11) % 53) as f32;
        let parts: [Parts; 40] = std::array::from_fn(|row| Parts(std::array::from_fn(|lane| number(row, lane))));
        assert_eq!(maxima(&parts), parts.map(|parts| parts.0.into_iter().fold(f32::NEG_INFINITY, f32::max)));
        assert_eq!(sums(&parts), parts.map(|parts| parts.0.iter().sum::<f32>()));
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
            let [max] = maxima(&[parts_of_max(&x[..seen])]);
            prop_assert_eq!(max, math::max(&x[..seen]));
            let other_sum = soften_anywhere(&mut b, [max, 0.7], seen, drops);
            let mut rough = a.clone();
            let [sum, rough_sum] = sums(&[
                soften(&mut a, [max, 0.7], seen, drops, Precision::F32),
                soften(&mut rough, [max, 0.7], seen, drops, Precision::Bf16),
            ]);
            assert_alike(&[sum / other_sum], &[1.0]);
            assert_alike(&a, &b);
            prop_assert!((rough_sum / sum - 1.0).abs() < 1e-4);
            prop_assert!(rough.iter().zip(&b).all(|(rough, x)| (rough - x).abs() <= 1e-4 * x), "{rough:?} {b:?}");

            let log2_sum = max * 0.7 + sum.log2();
            let run = |f: SoftenBackward| {
                let (mut p, mut dropped, mut ds) = (x.clone(), vec![9.0; len], dy.clone());
                f([&mut p, &mut dropped, &mut ds], 0.7, seen, log2_sum, drops);
                (dropped, ds)
            };
            let ((dropped, ds), (other_dropped, other_ds)) = (run(soften_backward), run(soften_backward_anywhere));
            assert_alike(&dropped, &other_dropped);
            assert_alike(&ds, &other_ds);

            let each = |f: &dyn Fn(f32) -> f32| x.iter().map(|&x| f(x)).collect::<Vec<_>>();
            for (precision, normal, slope) in [
                (Precision::F32, each(&|x| math::NORMAL.at(x)), each(&|x| math::SLOPE.at(x))),
                (Precision::Bf16, each(&|x| math::NORMAL_OF_BF16.at(x)), each(&|x| math::SLOPE_OF_BF16.at(x))),
            ] {
                let mut a = x.clone();
                gelu(&x, None, precision, &mut a);
                assert_alike(&a, &x.iter().zip(normal).map(|(x, normal)| x * normal).collect::<Vec<_>>());
                let (sums, mut of_sums) = (x.iter().zip(&dy).map(|(x, bias)| x + bias).collect::<Vec<_>>(), x.clone());
                gelu(&sums, None, precision, &mut of_sums);
                gelu(&x, Some(&dy), precision, &mut a);
                prop_assert_eq!(&a, &of_sums);
                gelu_slopes(&x, precision, &mut a);
                assert_alike(&a, &slope);
            }
        }

        #[test]
        fn sigmoids_are_within_some_ten_millionths(first in -90.0..90.0_f32, len in 1..70_usize) {
            let x: Vec<f32> = (0..len).map(|i| first + 0.37 * (i as f32 - 35.0)).collect();
            let mut p = vec![0.0; len];
            sigmoid(&x, &mut p);
            let (rows, mut of_rows) = ([&x[..], &x[..]].concat(), vec![0.0; 2 * len]);
            sigmoid_of_rows(View::rows_of(&rows, len, len), &mut Block::of(&mut of_rows, len));
            prop_assert_eq!(&of_rows, &[&p[..], &p[..]].concat());
            let (factors, shares) = (numbers(len, 1), numbers(len, 2));
            for shares in [None, Some(&*shares)] {
                let (mut a, mut b) = (vec![1.0; len], vec![1.0; len]);
                add_sigmoid_slopes(&x, &factors, shares, &mut a);
                add_sigmoid_slopes_anywhere(&x, &factors, shares, &mut b);
                let twice = |row: &[f32]| [row, row].concat();
                let (rows, shares_of_rows, mut sums) = (twice(&x), shares.map(twice), vec![1.0; 2 * len]);
                let shares_of_rows = shares_of_rows.as_deref().map(|shares| View::rows_of(shares, len, len));
                let out = &mut Block::of(&mut sums, len);
                add_sigmoid_slopes_of_rows(View::rows_of(&rows, len, len), &factors, shares_of_rows, out);
                prop_assert_eq!(sums, twice(&a));
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    let factor = factors[i] * shares.map_or(1.0, |shares| shares[i]);
                    prop_assert!((a - b).abs() <= 5e-7 * (1.0 + factor.abs()), "{}: {a} {b}", x[i]);
                }
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
