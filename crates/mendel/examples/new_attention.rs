//! A new attention variant, composed from the tape's basic pieces: it has its gradient at once.
//!
//! The variant gates what attention brings by what the token itself says:
//! `O = σ(X G) ⊙ softmax(Q Kᵀ / √d) V`, with `Q = X A`, `K = X B`, `V = X C`.
//!
//! ```sh
//! cargo run --release --example new_attention
//! ```

use mendel::engine::random::{Stream, fill_normal};
use mendel::engine::{Device, Result, Tape, Tensor, Var};

const TOKENS: usize = 6;
const WIDTH: usize = 8;

/// One head over one sequence: `x` `[T, d]`, every weight `[d, d]`; the result is `[T, d]`.
fn gated_attention(x: &Var, [query, key, value, gate]: [&Var; 4]) -> Result<Var> {
    let (q, k, v) = (x.matmul(query)?, x.matmul(key)?, x.matmul(value)?);
    let weights = q.matmul_transposed(&k)?.scale(1.0 / (WIDTH as f32).sqrt())?.softmax()?;
    x.matmul(gate)?.sigmoid()?.mul(&weights.matmul(&v)?)
}

fn random(device: &Device, shape: &[usize], name: &str) -> Tensor {
    let mut tensor = Tensor::zeros(device, shape);
    fill_normal(&Stream::weights(42, name), 0.5, tensor.data_mut());
    tensor
}

/// The sum of squares of the output, and its gradient with respect to the gate's weights.
fn loss(tape: &Tape, x: &Tensor, weights: &[Tensor; 4]) -> Result<(f32, Option<Tensor>)> {
    let weights = weights.each_ref().map(|weight| tape.leaf(weight.clone()));
    let output = gated_attention(&tape.constant(x.clone()), weights.each_ref())?;
    let loss = output.mul(&output)?.sum()?;
    let gradients = tape.backward(&loss)?;
    Ok((loss.value().item(), gradients.of(&weights[3])))
}

fn main() -> Result<()> {
    let device = Device::cpu();
    let x = random(&device, &[TOKENS, WIDTH], "x");
    let weights = ["query", "key", "value", "gate"].map(|name| random(&device, &[WIDTH, WIDTH], name));
    let (value, gradient) = loss(&Tape::recording(), &x, &weights)?;
    let gradient = gradient.expect("the loss depends on the gate");

    // The same by central differences, for the gate's first weight.
    let shifted = |by: f32| {
        let mut weights = weights.clone();
        weights[3].data_mut()[0] += by;
        loss(&Tape::inference(), &x, &weights).map(|(value, _)| value)
    };
    let step = 1e-2;
    let difference = (shifted(step)? - shifted(-step)?) / (2.0 * step);
    println!("loss {value:.4}");
    println!("gradient of the gate's first weight: {:.4}, by differences {difference:.4}", gradient.data()[0]);
    Ok(())
}
