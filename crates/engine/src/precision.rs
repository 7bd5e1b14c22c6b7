//! How exactly products are computed.

use std::fmt;

/// The precision of the products in linear maps and attention. All else is in single precision: parameters, their
/// gradients, norms, softmax, loss, similarities and the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Operands rounded to bf16 (8 bits of significand), sums in single precision.
    Bf16,
}

/// As the settings call it.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}
