//! Every unit that this machine has, against sums in double precision.

use super::*;
use crate::Tensor;
use crate::testing::{device, random, with_threads};

const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [5, 33, 7],
    [12, 32, 16],
    [31, 31, 31],
    [200, 130, 100],
    [333, 384, 700],
    [64, 300, 64],
    [3, 4096, 384],
    [400, 96, 2000],
];

fn units() -> Vec<UnitName> {
    let mut units = vec![
        UnitName::best(Precision::F32),
        UnitName::best(Precision::Bf16),
        UnitName::F32Portable,
        UnitName::F32PartsPortable,
        UnitName::Bf16Portable,
    ];
    #[cfg(target_arch = "x86_64")]
    {
        let (avx2, fma) = (is_x86_feature_detected!("avx2"), is_x86_feature_detected!("fma"));
        units.extend((avx2 && fma).then_some(UnitName::F32Avx2));
        units.extend(is_x86_feature_detected!("avx512f").then_some(UnitName::F32Avx512));
        units.extend(is_x86_feature_detected!("avx512bf16").then_some(UnitName::Bf16Avx512));
    }
    units
}

fn product(unit: UnitName, a: Matrix<'_>, b: Matrix<'_>, shape: [usize; 2]) -> Tensor {
    let mut out = Tensor::empty(&device(), &shape);
    super::product(unit, a, b, &mut out);
    out
}

fn is_half_width(unit: UnitName) -> bool {
    matches!(unit, UnitName::Bf16Amx | UnitName::Bf16Avx512 | UnitName::Bf16Portable)
}

#[test]
fn every_unit_multiplies_every_layout() {
    for unit in units() {
        for [m, n, k] in SHAPES {
            for [left, right] in [[false, false], [false, true], [true, false], [true, true]] {
                let a = random(&if left { [k, m] } else { [m, k] }, 1);
                let b = random(&if right { [n, k] } else { [k, n] }, 2);
                let got = product(
                    unit,
                    Matrix { tensor: &a, transposed: left },
                    Matrix { tensor: &b, transposed: right },
                    [m, n],
                );
                let rounded = |x: f32| if is_half_width(unit) { bf16::widen(bf16::round(x)) } else { x };
                let at = |x: &Tensor, transposed, i: usize, j: usize| {
                    f64::from(rounded(x.data()[if transposed { j * x.columns() + i } else { i * x.columns() + j }]))
                };
                for (i, j) in [(0, 0), (m / 2, n / 3), (m - 1, n - 1), (m / 3, n - 1), (m - 1, 0)] {
                    let exact: f64 = (0..k).map(|s| at(&a, left, i, s) * at(&b, right, s, j)).sum();
                    let error = (f64::from(got.data()[i * n + j]) - exact).abs();
                    assert!(error < 3e-7 * k as f64 + 1e-6, "{unit:?} {m}×{n}×{k} at {i},{j}: {error}");
                }
            }
        }
    }
}

#[test]
fn single_precision_in_parts_errs_no_more_than_without() {
    // Root mean squares of the errors, in units of the last bit of sums of that depth.
    let error = |unit: UnitName, k: usize| {
        let (a, b) = (random(&[40, k], 1), random(&[50, k], 2));
        let got = product(unit, Matrix::plain(&a), Matrix::transposed(&b), [40, 50]);
        let rows = a.data().chunks(k).flat_map(|a| b.data().chunks(k).map(move |b| (a, b)));
        let squares = got.data().iter().zip(rows).map(|(&got, (a, b))| {
            let exact: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            (f64::from(got) - exact).powi(2)
        });
        (squares.sum::<f64>() / 2000.0 / k as f64).sqrt() / f64::from(f32::EPSILON)
    };
    for k in [1, 2, 32, 384, 3072] {
        let plain = error(UnitName::F32Portable, k);
        for unit in units().into_iter().filter(|&unit| !is_half_width(unit)) {
            let found = error(unit, k);
            assert!(found <= 1.1 * plain, "{unit:?}, {k} deep: {found}, plain {plain}");
        }
    }
}

#[test]
fn rounding_to_bf16_is_to_the_nearest_and_to_even() {
    for (x, expected) in [
        (1.0, 1.0),
        (1.0 + 1.0 / 256.0, 1.0),
        (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
        (1.004, 1.0078125),
        (-3.0e38, -3.004_055_3e38),
        (f32::INFINITY, f32::INFINITY),
        (0.0, 0.0),
    ] {
        let got = bf16::widen(bf16::round(x));
        assert!(got == expected || (got / expected - 1.0).abs() < 1e-4, "{x}: {got}");
    }
    assert!(bf16::widen(bf16::round(f32::NAN)).is_nan());
    assert!(bf16::widen(bf16::round(f32::from_bits(0x7F80_0001))).is_nan());
}

#[test]
fn a_product_has_the_same_bits_on_any_number_of_threads() {
    for unit in units() {
        for [m, n, k] in [[300, 200, 100], [777, 384, 1536], [5, 4096, 384]] {
            let (a, b) = (random(&[m, k], 1), random(&[n, k], 2));
            let run = || product(unit, Matrix::plain(&a), Matrix::transposed(&b), [m, n]).to_vec();
            let one = with_threads(1, run);
            for threads in [2, 3, 8] {
                assert!(one == with_threads(threads, run), "{unit:?} {m}×{n}×{k} on {threads} threads");
            }
        }
    }
}

#[test]
fn a_row_of_a_product_has_the_same_bits_whatever_rows_are_with_it() {
    for unit in units() {
        for (n, k) in [(1, 20), (16, 5), (40, 1024), (384, 384), (768, 3072)] {
            let (x, b) = (random(&[300, k], 1), random(&[n, k], 2));
            let all = product(unit, Matrix::plain(&x), Matrix::transposed(&b), [300, n]);
            for m in [1, 2, 11, 12, 13, 31, 32, 33, 192, 257] {
                let part = Tensor::from_slice(&device(), &[m, k], &x.data()[41 * k..(41 + m) * k]).unwrap();
                let got = product(unit, Matrix::plain(&part), Matrix::transposed(&b), [m, n]);
                assert!(got.data() == &all.data()[41 * n..(41 + m) * n], "{unit:?} {m}×{n}×{k}");
            }
        }
    }
}

#[test]
fn a_feed_forward_block_is_the_same_bits_as_its_parts() {
    use crate::cpu::{layer_norm, linear};
    use crate::kernels::{Activation, Affine, PlainEnd};
    // Of the last four, rows are one group of 500 in bf16, have too long sums for it, are too many, or too deep.
    for [rows, columns, width, out] in [
        [1, 1, 1, 1],
        [5, 33, 70, 40],
        [200, 64, 300, 64],
        [389, 130, 257, 150],
        [500, 70, 96, 64],
        [300, 40, 64, 1000],
        [700, 32, 96, 40],
        [450, 32, 2048, 40],
    ] {
        let x = random(&[rows, columns], 1);
        let [w1, b1, w2, b2] =
            [random(&[width, columns], 2), random(&[width], 3), random(&[out, width], 4), random(&[out], 5)];
        let [residual, gain, bias] = [random(&[rows, out], 6), random(&[out], 7), random(&[out], 8)];
        let w3 = random(&[out, out], 9);
        for (unit, biased) in units().into_iter().flat_map(|unit| [(unit, true), (unit, false)]) {
            let [inner, outer, last] = [(&w1, &b1), (&w2, &b2), (&w3, &b2)].map(|(weight, bias)| Affine {
                weight,
                bias: biased.then_some(bias),
                constant: false,
            });
            let mut between = [Tensor::empty(&device(), &[rows, width])];
            let [mut apart, mut at_once] = [0, 1].map(|_| Tensor::empty(&device(), &[rows, out]));
            linear::forward(unit, &x, Activation::Identity, &[inner], &mut between);
            let mut expected = product(unit, Matrix::plain(&x), Matrix::transposed(&w1), [rows, width]).to_vec();
            if biased {
                for row in expected.chunks_exact_mut(width) {
                    row.iter_mut().zip(b1.data()).for_each(|(sum, bias)| *sum += bias);
                }
            }
            assert!(between[0].data() == expected, "{unit:?}, {rows} rows of {columns}, {width} after");
            let mut mapped = [Tensor::empty(&device(), &[rows, out])];
            linear::forward(unit, &between[0], Activation::Gelu, &[outer], &mut mapped);
            let end = PlainEnd { residual: &residual, affine: [&gain, &bias], epsilon: 1e-3 };
            layer_norm::residual_forward([&mapped[0], &residual], None, end.affine, end.epsilon, &mut apart, None);
            with_threads(2, || linear::feed_forward_norm(unit, &x, [inner, outer], end, &mut at_once));
            assert_eq!(
                apart.data(),
                at_once.data(),
                "{unit:?}, {rows} rows of {columns}, {width} between, {out} after"
            );
            linear::forward(unit, &residual, Activation::Identity, &[last], &mut mapped);
            layer_norm::residual_forward([&mapped[0], &residual], None, end.affine, end.epsilon, &mut apart, None);
            with_threads(2, || linear::linear_norm(unit, &residual, last, end, &mut at_once));
            assert_eq!(apart.data(), at_once.data(), "{unit:?}, {rows} rows of {out}");
        }
    }
}

#[test]
fn a_product_of_no_depth_is_zero() {
    for unit in units() {
        with_unit!(unit, U => {
            let panels = |extent| Panels::<U> { data: &[], steps: 0, extent, depth: Depth::Columns };
            let mut found = Vec::new();
            multiply_here(panels(40), panels(150), |part| found.extend(part.rows.clone().flat_map(|row| part.row(row).to_vec())));
            assert!(found.len() == 40 * 150 && found.iter().all(|&x| x == 0.0), "{unit:?}");
        });
    }
}

#[test]
fn a_panel_written_by_rows_is_the_packed_one() {
    for (unit, depth) in units().into_iter().flat_map(|unit| [1, 15, 16, 17, 33, 70].map(|depth| (unit, depth))) {
        with_unit!(unit, U => {
            let (len, padded) = (scratch_len::<U>(U::ROWS, depth), depth.next_multiple_of(TILE));
            let x = random(&[U::ROWS, depth], 3);
            let (mut packed, mut written) = (vec![Default::default(); len], vec![Default::default(); len]);
            let packed = left_here::<U>(&View::of(&x), Depth::Columns, &mut packed);
            let mut rows = PanelRows::<U> { data: &mut written, depth };
            for (row, numbers) in x.data().chunks(depth).enumerate() {
                let mut filled = numbers.to_vec();
                filled.resize(padded, 0.0);
                rows.write(row, &filled);
            }
            let (written, steps) = (rows.panels(U::ROWS), packed.steps);
            assert_eq!(steps, written.steps);
            assert!(packed.part(U::ROWS, 0, 0..steps) == written.part(U::ROWS, 0, 0..steps), "{unit:?}, {depth} deep");
        });
    }
}
