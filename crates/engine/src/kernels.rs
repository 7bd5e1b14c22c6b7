//! The whole contract between operations and a device.
//!
//! Shapes are checked by the operations in [`crate::ops`]; kernels may rely on them. Outputs come with unspecified
//! contents and are written whole. Every result is the same bits whatever the number of threads.
//!
//! Letters in shapes: `N` tokens of all sequences, `S` sequences, `H` hidden width, `h` query heads, `v` key/value
//! heads, `d` head dimension, `B` queries, `P` candidate passages.

use std::ops::Range;
use std::time::Instant;

use crate::cuda::context::Mark;
use crate::gradients::Gradient;
use crate::ops::attention::Attention;
use crate::ops::evolve::{Ancestry, Evolve};
use crate::ops::gene_fitness::GeneFitness;
use crate::ops::info_nce::InfoNce;
use crate::ops::largest::Entry;
use crate::ops::modulate::Modulate;
use crate::ops::pool::Pooling;
use crate::ops::residual_norm::ResidualDropout;
use crate::optim::AdamW;
use crate::random::Site;
use crate::sequences::Sequences;
use crate::tensor::{Ids, Tensor};

/// A tensor seen as a matrix of rows and columns, possibly transposed.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The elements; all dimensions but the last are rows.
    pub tensor: &'a Tensor,
    /// Whether rows and columns are exchanged.
    pub transposed: bool,
}

impl<'a> Matrix<'a> {
    /// The tensor as it is.
    pub fn plain(tensor: &'a Tensor) -> Self {
        Matrix { tensor, transposed: false }
    }

    /// The tensor's transpose.
    pub fn transposed(tensor: &'a Tensor) -> Self {
        Matrix { tensor, transposed: true }
    }
}

/// An element-wise function of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a · b`
    Mul,
}

/// An element-wise function of one value, differentiable in terms of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// `1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `x · Φ(x)`, with the normal distribution's Φ in its exact (erf) form.
    Gelu,
}

/// What is taken of the input of a linear map, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The input itself.
    Identity,
    /// [`Unary::Gelu`].
    Gelu,
}

/// The parameters of a linear map.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// `[out, in]`
    pub weight: &'a Tensor,
    /// `[out]`
    pub bias: Option<&'a Tensor>,
    /// Whether the weight will serve again as it is, so that what is made of it is worth keeping: where no gradient is asked for.
    pub constant: bool,
}

/// Where the gradients of linear maps go; what is absent is not wanted.
pub struct LinearGradients<'a> {
    /// In the input: added to what is there if `add`.
    pub input: Option<&'a mut Tensor>,
    /// Whether the input's gradient is added to.
    pub add: bool,
    /// In each weight.
    pub weights: Vec<Option<&'a mut Tensor>>,
    /// In each bias.
    pub biases: Vec<Option<&'a mut Tensor>>,
}

/// The end of a transformer block, [`Kernels::residual_norm`] of what the block has made, where nothing is dropped and no
/// gradient will be asked for.
#[derive(Clone, Copy)]
pub struct PlainEnd<'a> {
    /// What the block's output is added to.
    pub residual: &'a Tensor,
    /// Gain and bias of the norm.
    pub affine: [&'a Tensor; 2],
    /// Added to the variance.
    pub epsilon: f32,
}

/// What a device does for the operations.
pub trait Kernels: Send + Sync {
    /// The device's name, as `--device` takes it.
    fn name(&self) -> &'static str;

    /// A moment in the device's work, between what was asked for before and after.
    fn mark(&self) -> Moment {
        Moment::Host(Instant::now())
    }

    /// `sum += x`, element by element.
    fn accumulate(&self, x: &Tensor, sum: &mut Tensor);
    /// `out = factor · x`
    fn scale(&self, x: &Tensor, factor: f32, out: &mut Tensor);
    /// `out = f(x)`
    fn unary(&self, function: Unary, x: &Tensor, out: &mut Tensor);
    /// `dx = f'(x) · dy`
    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor, dx: &mut Tensor);
    /// `out = f(a, b)`; `b` is of `a`'s shape, one row `[columns]`, one column `[rows, 1]` or one number `[1]`.
    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor);
    /// `out[to + i] = x[rows.start + i]` for each row of `rows`; the other rows of `out` stay as they are.
    fn copy_rows(&self, x: &Tensor, rows: Range<usize>, out: &mut Tensor, to: usize);
    /// `x` summed over the dimensions in which `out` (a shape that [`Kernels::binary`] takes for `b`) repeats.
    fn reduce(&self, x: &Tensor, out: &mut Tensor);

    /// Of each row's entries that are not below its floor, the `count` largest, at least one, and whatever equals the
    /// least of them, in no order.
    fn largest(&self, x: &Tensor, count: usize, floors: &[f32]) -> Vec<Vec<Entry>>;

    /// `out = a · b` in single precision, whatever the device's precision.
    fn matmul(&self, a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor);
    /// For each part, `out = f(x) Wᵀ + b`.
    fn linear(&self, x: &Tensor, activation: Activation, parts: &[Affine<'_>], outs: &mut [Tensor]);
    /// Gradients of [`Kernels::linear`], which may take the memory of its input.
    fn linear_backward(
        &self,
        x: Tensor,
        activation: Activation,
        weights: &[&Tensor],
        douts: &[&Tensor],
        gradients: LinearGradients<'_>,
    );
    /// A block that is a linear map of `x`, to its end.
    fn linear_norm(&self, x: &Tensor, map: Affine<'_>, end: PlainEnd<'_>, out: &mut Tensor) {
        let mut mapped = [Tensor::activation(x.device(), out.shape())];
        self.linear(x, Activation::Identity, &[map], &mut mapped);
        self.residual_norm([&mapped[0], end.residual], None, end.affine, end.epsilon, out, None);
    }
    /// A block that is `gelu(x W₁ᵀ + b₁) W₂ᵀ + b₂`, to its end.
    fn feed_forward_norm(&self, x: &Tensor, [inner, outer]: [Affine<'_>; 2], end: PlainEnd<'_>, out: &mut Tensor) {
        let [mut between, mut mapped] =
            [&inner, &outer].map(|map| [Tensor::activation(x.device(), &[x.rows(), map.weight.rows()])]);
        self.linear(x, Activation::Identity, &[inner], &mut between);
        self.linear(&between[0], Activation::Gelu, &[outer], &mut mapped);
        self.residual_norm([&mapped[0], end.residual], None, end.affine, end.epsilon, out, None);
    }
    /// Softmax over the last dimension.
    fn softmax(&self, x: &Tensor, out: &mut Tensor);
    /// Gradient of [`Kernels::softmax`] from its output `y`.
    fn softmax_backward(&self, y: &Tensor, dy: &Tensor, dx: &mut Tensor);

    /// `out[n] = Σ_k table_k[ids_k[n]]`; tables `[rows_k, H]`.
    fn embedding_sum(&self, parts: &[(&Ids, &Tensor)], out: &mut Tensor);
    /// `dtable[r] = Σ_{n: ids[n] = r} dy[n]`
    fn embedding_backward(&self, ids: &Ids, dy: &Tensor, dtable: &mut Tensor);

    /// Layer norm over the last dimension; `statistics` `[rows, 2]` receives each row's mean and 1/deviation.
    fn layer_norm(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        epsilon: f32,
        y: &mut Tensor,
        statistics: &mut Tensor,
    );
    /// Gradients of [`Kernels::layer_norm`] in `x`, `gain` and `bias`.
    fn layer_norm_backward(
        &self,
        x: &Tensor,
        gain: &Tensor,
        statistics: &Tensor,
        dy: &Tensor,
        gradients: [&mut Tensor; 3],
    );
    /// The layer norm of `residual + dropout(x)`; in `saved`, where a gradient will be asked for, that sum and the norm's
    /// statistics.
    fn residual_norm(
        &self,
        terms: [&Tensor; 2],
        dropout: Option<(&Sequences, ResidualDropout)>,
        affine: [&Tensor; 2],
        epsilon: f32,
        y: &mut Tensor,
        saved: Option<[&mut Tensor; 2]>,
    );
    /// Gradients of [`Kernels::residual_norm`] from its sum, the gain and the statistics: in the residual, `gain` and `bias`, and where something is dropped in
    /// `x`, whose gradient is else the residual's.
    fn residual_norm_backward(
        &self,
        saved: [&Tensor; 3],
        dy: &Tensor,
        dropout: Option<(&Sequences, ResidualDropout)>,
        gradients: [&mut Tensor; 3],
        dx: Option<&mut Tensor>,
    );
    /// RMS norm over the last dimension; `inverse_rms` is `[rows, 1]`.
    fn rms_norm(&self, x: &Tensor, gain: &Tensor, epsilon: f32, y: &mut Tensor, inverse_rms: &mut Tensor);
    /// Gradients of [`Kernels::rms_norm`] in `x` and `gain`.
    fn rms_norm_backward(
        &self,
        x: &Tensor,
        gain: &Tensor,
        inverse_rms: &Tensor,
        dy: &Tensor,
        gradients: [&mut Tensor; 2],
    );
    /// Zeroes elements of `[N, H]` with the given probability and scales the others; its own gradient.
    fn dropout(&self, x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor);

    /// Softmax attention within each sequence, modulated where that is asked for. Gives what the backward pass needs.
    fn attention(
        &self,
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        out: &mut Tensor,
    ) -> AttentionSaved;
    /// Gradients of [`Kernels::attention`].
    fn attention_backward(
        &self,
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        outputs: AttentionOutputs<'_>,
        gradients: AttentionGradients<'_>,
    );

    /// The ancestry `[N, v·d]` that evolution leaves in each sequence and head is returned, as the device keeps it; `fitness`
    /// receives the fitness `[S, v·d]` of the genes that it leaves, and their `u`.
    fn evolve(&self, values: &Tensor, sequences: &Sequences, options: &Evolve, fitness: [&mut Tensor; 2]) -> Ancestry;
    /// Gene fitness `[S, v·d]` (causal: `[N, v·d]`) and `u = 1 / (M + ½)` of the same shape.
    fn gene_fitness(
        &self,
        values: &Tensor,
        sequences: &Sequences,
        options: &GeneFitness,
        fitness: &mut Tensor,
        inverse: &mut Tensor,
    );
    /// Gradient of [`Kernels::gene_fitness`] in `values`, the ancestry held, from the fitness, `u` and the fitness's
    /// gradient. Added to what is in `dvalues` if `add`.
    fn gene_fitness_backward(
        &self,
        values: &Tensor,
        sequences: &Sequences,
        options: &GeneFitness,
        fitness: [&Tensor; 3],
        dvalues: &mut Tensor,
        add: bool,
    );
    /// `out[n, head] = scale · fitness[sequence of n (or n), kv head of head] ⊙ x[n, head]`
    fn modulate(&self, x: &Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate, out: &mut Tensor);
    /// Gradients of [`Kernels::modulate`] in `x` and `fitness`.
    fn modulate_backward(
        &self,
        x: &Tensor,
        fitness: &Tensor,
        sequences: &Sequences,
        options: &Modulate,
        dout: &Tensor,
        gradients: [&mut Tensor; 2],
    );

    /// One row per sequence; `argmax` `[S, H]` receives the row of each largest value (written for max only).
    fn pool(&self, x: &Tensor, sequences: &Sequences, pooling: Pooling, out: &mut Tensor, argmax: &mut Ids);
    /// Gradient of [`Kernels::pool`].
    fn pool_backward(&self, dout: &Tensor, sequences: &Sequences, pooling: Pooling, argmax: &Ids, dx: &mut Tensor);
    /// Rows divided by their Euclidean norm (at least 1e-12); `norms` is `[rows, 1]`.
    fn l2_normalize(&self, x: &Tensor, out: &mut Tensor, norms: &mut Tensor);
    /// Gradient of [`Kernels::l2_normalize`] from its output `y`.
    fn l2_normalize_backward(&self, y: &Tensor, norms: &Tensor, dy: &Tensor, dx: &mut Tensor);
    /// From cosines `[B, P]` the loss `[1]` and, in `dscores`, its gradient with respect to them.
    fn info_nce(&self, scores: &Tensor, options: &InfoNce, loss: &mut Tensor, dscores: &mut Tensor);

    /// One AdamW update of many tensors; none where the loss or the norm is not finite.
    fn adamw(&self, options: &AdamW, update: AdamWUpdate<'_>, tensors: Vec<Updated<'_>>);
    /// The Euclidean norm `[1]` of all elements of many tensors.
    fn global_norm(&self, tensors: &[&Tensor], norm: &mut Tensor);
}

/// A modulation of attention's output (docs/genetic-attention.md, section 2).
#[derive(Clone, Copy)]
pub struct Modulation<'a> {
    /// Gene fitness `[S, v·d]`, causal `[N, v·d]`.
    pub fitness: &'a Tensor,
    /// How it is applied.
    pub options: Modulate,
    /// Where it comes from, if it is that of the values that are attended to.
    pub of_values: Option<OfValues<'a>>,
}

/// A fitness that [`Kernels::gene_fitness`] has made from the values.
#[derive(Clone, Copy)]
pub struct OfValues<'a> {
    /// How.
    pub options: &'a GeneFitness,
    /// `u`, which it gave beside the fitness.
    pub inverse: &'a Tensor,
}

/// What attention keeps for its backward pass.
#[derive(Clone, Debug)]
pub struct AttentionSaved {
    /// `[N, h]`: the log of each row's sum of exponentials.
    pub lse: Tensor,
    /// Which probabilities dropout has left, where a device remembers rather than draws again.
    pub kept: Option<Ids>,
}

/// What attention gave, and the gradient of its output.
#[derive(Clone, Copy)]
pub struct AttentionOutputs<'a> {
    /// The output.
    pub out: &'a Tensor,
    /// What it kept.
    pub saved: &'a AttentionSaved,
    /// The output's gradient.
    pub dout: &'a Tensor,
}

/// Where the gradients of attention go.
pub struct AttentionGradients<'a> {
    /// In queries, keys and values; in the latter also through a fitness that is made from them.
    pub qkv: [&'a mut Tensor; 3],
    /// In the modulation's fitness, if it is made from something else.
    pub fitness: Option<&'a mut Tensor>,
}

/// What changes from step to step in an AdamW update. Its numbers on the device are not read by the host.
#[derive(Clone, Copy)]
pub struct AdamWUpdate<'a> {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// The update's number, counted from 1.
    pub step: u64,
    /// Gradients of a larger norm are scaled down to this one.
    pub max_norm: f64,
    /// The gradients' norm `[1]`.
    pub norm: &'a Tensor,
    /// The loss `[1]` that the gradients are of.
    pub loss: &'a Tensor,
}

/// A tensor that the optimizer updates.
pub struct Updated<'a> {
    /// Its gradient.
    pub gradient: &'a Gradient,
    /// The tensor.
    pub parameter: &'a mut Tensor,
    /// First and second moment.
    pub moments: [&'a mut Tensor; 2],
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// A moment in a device's work.
pub enum Moment {
    /// By the host's clock, where a call returns when its work is done.
    Host(Instant),
    /// A mark in a GPU's stream, if it could be set.
    Cuda(Option<Mark>),
}

impl Moment {
    /// Seconds since an earlier moment of the same device. Waits until the device has come to this one.
    pub fn seconds_since(&self, earlier: &Moment) -> f64 {
        match (self, earlier) {
            (Moment::Host(now), Moment::Host(then)) => now.duration_since(*then).as_secs_f64(),
            (Moment::Cuda(Some(now)), Moment::Cuda(Some(then))) => now.seconds_since(then),
            _ => f64::NAN,
        }
    }
}
