//! Functions of single numbers and rows that the compiler turns into vector instructions.

/// Runs `f` compiled for the widest vector instructions of the machine. What `f` calls must be `#[inline(always)]`.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Partial sums kept side by side, so that a sum has a fixed order and still runs in vector registers.
pub const LANES: usize = 16;

/// A bit for each lane of a register at `at` that lies below `end`.
#[inline(always)]
pub fn lanes_below(end: usize, at: usize) -> u16 {
    if end >= at + LANES { u16::MAX } else { (1 << end.saturating_sub(at)) - 1 }
}

/// `Σ f(a[i], b[i])`
#[inline(always)]
pub fn sum_with(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    folded(parts_of_sum(a, b, f), |a, b| a + b)
}

/// Parts of [`sum_with`].
#[inline(always)]
pub fn parts_of_sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    /// Sums of lanes that do not wait for each other: each an array of its own, which the compiler keeps in a register.
    const SUMS: usize = 4;
    let ((blocks_a, a), (blocks_b, b)) = (a.as_chunks::<{ SUMS * LANES }>(), b.as_chunks::<{ SUMS * LANES }>());
    let [mut first, mut second, mut third, mut fourth] = [[0.0; LANES]; SUMS];
    for (a, b) in blocks_a.iter().zip(blocks_b) {
        add_each(&mut first, a, b, 0, &f);
        add_each(&mut second, a, b, LANES, &f);
        add_each(&mut third, a, b, 2 * LANES, &f);
        add_each(&mut fourth, a, b, 3 * LANES, &f);
    }
    let mut lanes: [f32; LANES] = std::array::from_fn(|i| (first[i] + second[i]) + (third[i] + fourth[i]));
    let ((heads_a, rest_a), (heads_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in heads_a.iter().zip(heads_b) {
        add_each(&mut lanes, a, b, 0, &f);
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *lane += f(x, y);
    }
    lanes
}

/// Adds what `f` makes of the numbers from `at` on.
#[inline(always)]
fn add_each(lanes: &mut [f32; LANES], a: &[f32], b: &[f32], at: usize, f: &impl Fn(f32, f32) -> f32) {
    for (i, lane) in lanes.iter_mut().enumerate() {
        *lane += f(a[at + i], b[at + i]);
    }
}

/// All lanes as one: halves folded onto each other, so that few steps wait for each other.
#[inline(always)]
fn folded(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| f(lanes[lane], lanes[lane + 8]));
    let four: [f32; 4] = std::array::from_fn(|lane| f(eight[lane], eight[lane + 4]));
    f(f(four[0], four[2]), f(four[1], four[3]))
}

/// `Σ x[i]`
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    sum_with(x, x, |x, _| x)
}

/// `Σ a[i]·b[i]`
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_with(a, b, |x, y| x * y)
}

/// `out = a + b`, of one length.
#[inline(always)]
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = a + b);
}

/// The largest element; −∞ of none.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |a, b| if b > a { b } else { a };
    let (heads, rest) = x.as_chunks::<LANES>();
    let tail = rest.iter().fold(f32::NEG_INFINITY, |a, &b| larger(a, b));
    let lanes = heads.iter().fold([f32::NEG_INFINITY; LANES], |lanes: [f32; LANES], chunk| {
        std::array::from_fn(|lane| larger(lanes[lane], chunk[lane]))
    });
    larger(tail, folded(lanes, larger))
}

/// `eˣ` to 2 units in the last place; arguments below −87.3 give 1.2e-38 instead of less. Not a number stays one.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// 1.5·2²³: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut poly = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        poly = poly * r + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (poly * r * r + r + 1.0) * power
}

/// `2ˣ`, as [`exp`].
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    exp(x * std::f32::consts::LN_2)
}

/// `ln x` to 3e-7 of it, of a finite number from 1.2e-38 on. Not a number stays one.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    /// The bits of √½.
    const ROOT_OF_HALF: i32 = 0x3F35_04F3;
    const COEFFICIENTS: [f32; 7] =
        [-0.140_798_79, 0.151_786_55, -0.166_205_97, 0.199_390_13, -0.249_988_99, 0.333_346_1, -0.500_000_2];
    let bits = x.to_bits() as i32;
    // A power of 2, and what it leaves of x less 1: from √½ − 1 to √2 − 1.
    let n = (bits - ROOT_OF_HALF) >> 23;
    let f = f32::from_bits((bits - (n << 23)) as u32) - 1.0;
    let poly = COEFFICIENTS.iter().fold(0.077_999_406, |poly, coefficient| poly * f + coefficient);
    let ln = n as f32 * std::f32::consts::LN_2 + (poly * (f * f) + f);
    if x.is_nan() { x } else { ln }
}

/// `1 / (1 + e⁻ˣ)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// ½ plus x times a polynomial in x²: no exponential and no division. Beyond its end it is taken as there.
pub struct HalfPlusOdd<const N: usize> {
    pub end: f32,
    /// By powers of 2x²/end² − 1, the highest first.
    pub coefficients: [f32; N],
}

impl<const N: usize> HalfPlusOdd<N> {
    /// What makes x² at the end 2.
    pub const fn scale(&self) -> f32 {
        2.0 / (self.end * self.end)
    }

    #[inline(always)]
    pub fn at(&self, x: f32) -> f32 {
        let x = x.clamp(-self.end, self.end);
        let u = x * x * self.scale() - 1.0;
        let mut poly = self.coefficients[0];
        for coefficient in &self.coefficients[1..] {
            poly = poly * u + coefficient;
        }
        0.5 + x * poly
    }
}

/// The normal distribution function Φ(x) to 3e-7: (Φ(x) − ½) / x interpolated at Chebyshev's points.
pub const NORMAL: HalfPlusOdd<15> = HalfPlusOdd {
    end: 5.5,
    coefficients: [
        6.2671665e-04,
        -1.4251382e-03,
        7.429544e-04,
        -1.0611821e-03,
        4.582319e-03,
        -7.866469e-03,
        1.0260161e-02,
        -1.4567367e-02,
        2.0351376e-02,
        -2.6139572e-02,
        3.2072764e-02,
        -3.8784284e-02,
        4.7737453e-02,
        -6.4172566e-02,
        1.2855193e-01,
    ],
};

/// Φ(x) to 1.1e-5, for what bf16 takes part in: the smallest largest error among those that are 0 at −end.
pub const NORMAL_OF_BF16: HalfPlusOdd<9> = HalfPlusOdd {
    end: 4.25,
    coefficients: [
        2.640_755_4e-3,
        -6.520_433e-3,
        8.277_399e-3,
        -1.392_248_2e-2,
        2.573_773_8e-2,
        -3.942_901_3e-2,
        5.568_161_6e-2,
        -8.075_423e-2,
        1.659_357_1e-1,
    ],
};

/// The derivative of GELU, Φ(x) + x·φ(x), to 1e-6.
pub const SLOPE: HalfPlusOdd<16> = HalfPlusOdd {
    end: 5.5,
    coefficients: [
        -5.734612e-03,
        1.2648348e-02,
        -3.6079262e-03,
        2.3914059e-03,
        -3.1636044e-02,
        5.172561e-02,
        -5.0488736e-02,
        5.931453e-02,
        -7.3853575e-02,
        7.575928e-02,
        -6.868788e-02,
        6.0124133e-02,
        -5.3739022e-02,
        5.3674344e-02,
        -6.5739855e-02,
        1.2875913e-01,
    ],
};

/// The same to 2.8e-5, as [`NORMAL_OF_BF16`].
pub const SLOPE_OF_BF16: HalfPlusOdd<11> = HalfPlusOdd {
    end: 4.75,
    coefficients: [
        2.095_857_6e-2,
        -5.022_997e-2,
        3.854_828e-2,
        -3.354_939e-2,
        7.482_324e-2,
        -9.956_02e-2,
        9.141_749e-2,
        -8.116_136e-2,
        7.558_806e-2,
        -8.173_992_5e-2,
        1.501_683_6e-1,
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38);
    }

    #[test]
    fn ln_is_within_three_ten_millionths() {
        let exact = |x: f32| f64::from(x).ln();
        for x in (-1000..1000).map(|i| (f64::from(i) * 0.087).exp() as f32).chain((1..4000).map(|i| i as f32 * 5e-4)) {
            assert!((f64::from(ln(x)) - exact(x)).abs() <= 3e-7 * exact(x).abs(), "{x}: {} {}", ln(x), exact(x));
        }
        assert!(ln(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_distribution_and_the_slope_of_gelu_are_as_exact_as_they_say() {
        // Φ by numerical integration of its density from −9, in double precision.
        let (mut exact, step) = (0.0, 1e-4);
        let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        for i in -90_000_i32..90_000 {
            let x = f64::from(i) * step;
            if i % 500 == 0 {
                let slope = exact + x * density(x);
                for (found, exact, bound) in [
                    (NORMAL.at(x as f32), exact, 3e-7),
                    (NORMAL_OF_BF16.at(x as f32), exact, 1.1e-5),
                    (SLOPE.at(x as f32), slope, 1e-6),
                    (SLOPE_OF_BF16.at(x as f32), slope, 2.8e-5),
                ] {
                    assert!((f64::from(found) - exact).abs() < bound, "{x}: {found} {exact}");
                }
            }
            exact += step * (density(x) + 4.0 * density(x + step / 2.0) + density(x + step)) / 6.0;
        }
        for nothing in [NORMAL_OF_BF16.at(-100.0), SLOPE_OF_BF16.at(-100.0)] {
            assert!(nothing.abs() < 1e-7, "{nothing}");
        }
    }

    #[test]
    fn row_sums_take_every_element_once() {
        for len in [0, 1, 15, 16, 17, 40, 64, 100, 150] {
            let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(sum(&x), (0..len).sum::<usize>() as f32);
            assert_eq!(dot(&x, &x), (0..len).map(|i| i * i).sum::<usize>() as f32);
            assert_eq!(max(&x), if len == 0 { f32::NEG_INFINITY } else { len as f32 - 1.0 });
        }
    }
}
