//! Whether a device computes what the CPU computes: every operation forward and backward on random inputs, updates of
//! the optimizer, the properties of genetic attention, and that the same work gives the same bits.

mod cases;
mod properties;

use crate::device::Device;
use crate::error::Result;
use crate::precision::Precision;
use crate::random::{Stream, fill_normal};
use crate::sequences::Sequences;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How far it is off: for operations ‖result − reference‖ / ‖reference‖, the largest of output and gradients.
    pub error: f64,
    /// How far it may be off.
    pub bound: f64,
}

impl Check {
    /// Whether it is as it should be. What is not a number is not.
    pub fn passed(&self) -> bool {
        self.error <= self.bound
    }
}

/// Makes those checks of a device whose names are `wanted`. `advance` is told of each.
///
/// # Errors
/// Where the device fails in the midst.
pub fn run(device: &Device, wanted: impl Fn(&str) -> bool, mut advance: impl FnMut(&Check)) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mut note = |check: Result<Check>| -> Result<()> {
        let check = check?;
        device.check()?;
        advance(&check);
        checks.push(check);
        Ok(())
    };
    for case in cases::all().iter().filter(|case| wanted(&case.name)) {
        note(case.check(device))?;
    }
    for (name, property) in properties::ALL.iter().filter(|(name, _)| wanted(name)) {
        note(property(device).map(|(error, bound)| Check { name: (*name).into(), error, bound }))?;
    }
    Ok(checks)
}

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// Kept as the device keeps activations.
    Activation,
    /// In single precision.
    Parameter,
    /// In single precision and above 0, as a fitness is.
    Positive,
}

use Role::{Activation, Parameter, Positive};

/// What is checked, of sequences and inputs.
type Operation = Box<dyn Fn(&Sequences, &[Var]) -> Result<Var>>;

/// An operation on inputs of these shapes, over sequences of these lengths.
struct Case {
    name: String,
    lengths: Vec<usize>,
    inputs: Vec<(Role, Vec<usize>)>,
    operation: Operation,
}

/// An output and the gradients of the inputs.
type Outcome = Vec<Vec<f32>>;

impl Case {
    fn check(&self, device: &Device) -> Result<Check> {
        let got = self.run(device, device.precision())?;
        let again = self.run(device, device.precision())?;
        let reference = self.run(&Device::cpu(), device.precision())?;
        let error = if got == again { distance_of_all(&got, &reference) } else { f64::NAN };
        Ok(Check { name: self.name.clone(), error, bound: bound(device) })
    }

    /// Inputs are rounded as activations of that precision are, so that both sides have the same.
    fn run(&self, device: &Device, rounding: Precision) -> Result<Outcome> {
        let ids: Vec<u32> = (10..).take(self.lengths.len()).collect();
        let sequences = Sequences::new(device, &self.lengths, &ids)?;
        let tape = Tape::recording();
        let leaves = self.inputs.iter().enumerate().map(|(place, (role, shape))| {
            let mut numbers = normal(shape.iter().product(), place as u64);
            match role {
                Activation if rounding == Precision::Bf16 => numbers.iter_mut().for_each(|x| *x = to_bf16(*x)),
                Positive => numbers.iter_mut().for_each(|x| *x = 0.1 / (1.0 + x.abs())),
                _ => {}
            }
            let input = Tensor::from_slice(device, shape, &numbers)?;
            Ok(tape.leaf(if *role == Activation { as_activation(&input)? } else { input }))
        });
        let leaves: Vec<Var> = leaves.collect::<Result<_>>()?;
        let output = (self.operation)(&sequences, &leaves)?;
        let shape = output.shape().to_vec();
        let weights = Tensor::from_slice(device, &shape, &normal(output.value().len(), 99))?;
        let loss = output.mul(&tape.constant(weights))?.sum()?;
        let gradients = tape.backward(&loss)?;
        let of_leaf = |leaf: &Var| gradients.of(leaf).map_or_else(Vec::new, |gradient| gradient.to_vec());
        Ok(std::iter::once(output.value().to_vec()).chain(leaves.iter().map(of_leaf)).collect())
    }
}

/// How far results may be off: the rounding of sums in single precision, or of operands to bf16.
fn bound(device: &Device) -> f64 {
    match device.precision() {
        Precision::F32 => 2e-5,
        Precision::Bf16 => 2e-2,
    }
}

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    fill_normal(&Stream::weights(seed, "selftest"), 1.0, &mut numbers);
    numbers
}

/// The nearest number that bf16 has, to even between two.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// The same numbers as the device keeps activations.
fn as_activation(x: &Tensor) -> Result<Tensor> {
    let rows = x.reshape(&[x.rows(), x.columns()])?;
    let mut out = Tensor::activation(x.device(), rows.shape());
    x.device().kernels().copy_rows(&rows, 0..rows.rows(), &mut out, 0);
    out.reshape(x.shape())
}

/// ‖a − b‖ / ‖b‖; where both are nothing but rounding, ‖a − b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let norm = |squares: f64| squares.sqrt();
    let difference = norm(a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum());
    difference / norm(b.iter().map(|x| f64::from(*x).powi(2)).sum()).max(1e-3)
}

/// The largest distance; not a number if any is none.
fn distance_of_all(got: &Outcome, reference: &Outcome) -> f64 {
    let distances = got.iter().zip(reference).map(|(a, b)| distance(a, b));
    distances.fold(0.0, |most: f64, distance| if distance.is_nan() { f64::NAN } else { most.max(distance) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_passes_its_own_selftest() {
        let failed = run(&Device::cpu(), |_| true, |_| {}).unwrap().into_iter().find(|check| !check.passed());
        assert_eq!(failed, None);
    }

    #[test]
    fn the_cpu_in_bf16_passes_its_own_selftest() {
        let checks = run(&Device::cpu_with(Precision::Bf16), |_| true, |_| {}).unwrap();
        let failed = checks.into_iter().find(|check| !check.passed());
        assert_eq!(failed, None);
    }

    #[test]
    fn only_the_checks_that_are_wanted_are_made() {
        let checks = run(&Device::cpu(), |name| name.contains("unit length"), |_| {}).unwrap();
        assert_eq!(checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["unit length"]);
    }

    #[test]
    fn a_wrong_result_does_not_pass() {
        assert!(distance(&[1.0, 2.0], &[1.0, 2.1]) > 1e-2);
        assert!(distance(&[f32::NAN], &[1.0]).is_nan());
        assert!(!Check { name: String::new(), error: f64::NAN, bound: 1.0 }.passed());
    }
}
