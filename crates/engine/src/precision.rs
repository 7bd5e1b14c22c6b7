//! How exactly products are computed.

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
