//! NVIDIA GPUs: each operation's kernels in a `.cu` file of its name, compiled when the program runs, and beside it
//! how they are launched.
//!
//! Activations and their gradients are f32 in the precision of that name and bf16 in bf16, where parameters, their
//! gradients, statistics and everything after pooling stay f32. No kernel adds to floats that another block adds to:
//! the same step gives the same bits.

mod adamw;
mod arena;
mod aside;
mod attention;
pub(crate) mod context;
mod dropout;
mod elementwise;
mod embedding;
mod error;
mod evolve;
mod gene_fitness;
mod info_nce;
mod l2_normalize;
mod largest;
mod layer_norm;
mod libraries;
pub(crate) mod limits;
mod linear;
mod matmul;
mod modulate;
pub(crate) mod partial_sums;
mod pool;
mod products;
pub mod programs;
mod rms_norm;
pub(crate) mod slice;
mod softmax;
mod staging;
pub(crate) mod sum_rows;
mod weights;

use std::ops::Range;
use std::sync::Arc;

use self::weights::Weights;
use crate::kernels::{
    Activation, AdamWUpdate, Affine, AttentionGradients, AttentionOutputs, AttentionSaved, Binary, Kernels,
    LinearGradients, Matrix, Modulation, Moment, Unary, Updated,
};
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
use context::{Argument, Context};
use slice::Kind;

pub use context::GpuInfo;
pub use error::{CudaError, CudaResult};

/// A GPU, until the last tensor on it is gone: tensors hold it. So what it keeps itself are slices, which hold the
/// context and not the device.
pub struct Cuda {
    context: Arc<Context>,
    /// Weights as products read them.
    weights: Weights,
}

impl Cuda {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Cuda { context, weights: Weights::default() }
    }
}

impl Drop for Cuda {
    /// Jobs aside hold slices, slices the context, and the context the jobs: to wait for them opens that circle.
    fn drop(&mut self) {
        self.context.enter();
        self.context.keep(self.context.aside().wait_for_all(self.context.stream()));
    }
}

/// The end of a kernel's name that says what its activations are.
fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::F32 => "f32",
        Kind::Bf16 => "bf16",
        Kind::U32 => "u32",
    }
}

/// What a kernel of dropout takes: the site's words, the draw below which it drops, what is left of 1.
#[derive(Clone, Copy)]
struct DropoutWords {
    site: [u32; 4],
    threshold: u32,
    kept: f32,
}

impl Argument for DropoutWords {
    fn put(self, after: &mut Vec<u64>) {
        (self.site, (self.threshold, self.kept)).put(after);
    }
}

/// Where the sequences' draws are found: the tokens' owners, and the sequences' begins and ids.
fn owners_begins_and_ids(sequences: &Sequences) -> [u64; 3] {
    [sequences.owners(), sequences.cu_seqlens(), sequences.ids()].map(|ids| ids.slice().address())
}

impl DropoutWords {
    fn new(dropout: Option<(f32, Site)>) -> Self {
        let Some((probability, site)) = dropout else { return DropoutWords { site: [0; 4], threshold: 0, kept: 1.0 } };
        let threshold = crate::random::threshold(probability);
        DropoutWords { site: site.words(), threshold, kept: 1.0 / (1.0 - probability) }
    }
}

impl Kernels for Cuda {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn mark(&self) -> Moment {
        Moment::Cuda(self.context.mark())
    }

    fn copy_rows(&self, x: &Tensor, rows: Range<usize>, out: &mut Tensor, to: usize) {
        elementwise::copy_rows(&self.context, x, rows, out, to);
    }

    fn accumulate(&self, x: &Tensor, sum: &mut Tensor) {
        elementwise::accumulate(&self.context, x, sum);
    }

    fn scale(&self, x: &Tensor, factor: f32, out: &mut Tensor) {
        elementwise::scale(&self.context, x, factor, out);
    }

    fn unary(&self, function: Unary, x: &Tensor, out: &mut Tensor) {
        elementwise::unary(&self.context, function, x, out);
    }

    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor, dx: &mut Tensor) {
        elementwise::unary_backward(&self.context, function, x, dy, dx);
    }

    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor) {
        elementwise::binary(&self.context, function, a, b, out);
    }

    fn reduce(&self, x: &Tensor, out: &mut Tensor) {
        elementwise::reduce(&self.context, x, out);
    }

    fn largest(&self, x: &Tensor, count: usize, floors: &[f32]) -> Vec<Vec<Entry>> {
        largest::largest(&self.context, x, count, floors)
    }

    fn matmul(&self, a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor) {
        matmul::matmul(&self.context, a, b, out);
    }

    fn linear(&self, x: &Tensor, activation: Activation, parts: &[Affine<'_>], outs: &mut [Tensor]) {
        linear::forward(&self.context, &self.weights, x, activation, parts, outs);
    }

    fn linear_backward(
        &self,
        x: Tensor,
        activation: Activation,
        weights: &[&Tensor],
        douts: &[&Tensor],
        gradients: LinearGradients<'_>,
    ) {
        linear::backward(&self.context, &self.weights, x, activation, weights, douts, gradients);
    }

    fn softmax(&self, x: &Tensor, out: &mut Tensor) {
        softmax::forward(&self.context, x, out);
    }

    fn softmax_backward(&self, y: &Tensor, dy: &Tensor, dx: &mut Tensor) {
        softmax::backward(&self.context, y, dy, dx);
    }

    fn embedding_sum(&self, parts: &[(&Ids, &Tensor)], out: &mut Tensor) {
        embedding::forward(&self.context, parts, out);
    }

    fn embedding_backward(&self, ids: &Ids, dy: &Tensor, dtable: &mut Tensor) {
        embedding::backward(&self.context, ids, dy, dtable);
    }

    fn layer_norm(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        epsilon: f32,
        y: &mut Tensor,
        statistics: &mut Tensor,
    ) {
        layer_norm::forward(&self.context, x, [gain, bias], epsilon, [y, statistics]);
    }

    fn layer_norm_backward(
        &self,
        x: &Tensor,
        gain: &Tensor,
        statistics: &Tensor,
        dy: &Tensor,
        gradients: [&mut Tensor; 3],
    ) {
        layer_norm::backward(&self.context, [x, gain, statistics], dy, None, gradients, None);
    }

    fn residual_norm(
        &self,
        terms: [&Tensor; 2],
        dropout: Option<(&Sequences, ResidualDropout)>,
        affine: [&Tensor; 2],
        epsilon: f32,
        y: &mut Tensor,
        saved: Option<[&mut Tensor; 2]>,
    ) {
        layer_norm::residual_forward(&self.context, terms, dropout, affine, epsilon, y, saved);
    }

    fn residual_norm_backward(
        &self,
        saved: [&Tensor; 3],
        dy: &Tensor,
        dropout: Option<(&Sequences, ResidualDropout)>,
        gradients: [&mut Tensor; 3],
        dx: Option<&mut Tensor>,
    ) {
        layer_norm::backward(&self.context, saved, dy, dropout, gradients, dx);
    }

    fn rms_norm(&self, x: &Tensor, gain: &Tensor, epsilon: f32, y: &mut Tensor, inverse_rms: &mut Tensor) {
        rms_norm::forward(&self.context, x, gain, epsilon, [y, inverse_rms]);
    }

    fn rms_norm_backward(
        &self,
        x: &Tensor,
        gain: &Tensor,
        inverse_rms: &Tensor,
        dy: &Tensor,
        gradients: [&mut Tensor; 2],
    ) {
        rms_norm::backward(&self.context, x, gain, inverse_rms, dy, gradients);
    }

    fn dropout(&self, x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor) {
        dropout::dropout(&self.context, x, sequences, probability, site, out);
    }

    fn attention(
        &self,
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        out: &mut Tensor,
    ) -> AttentionSaved {
        attention::forward(&self.context, qkv, sequences, options, modulation, out)
    }

    fn attention_backward(
        &self,
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        outputs: AttentionOutputs<'_>,
        gradients: AttentionGradients<'_>,
    ) {
        attention::backward(&self.context, qkv, sequences, options, modulation, outputs, gradients);
    }

    fn evolve(&self, values: &Tensor, sequences: &Sequences, options: &Evolve, fitness: [&mut Tensor; 2]) -> Ancestry {
        evolve::evolve(&self.context, values, sequences, options, fitness)
    }

    fn gene_fitness(
        &self,
        values: &Tensor,
        sequences: &Sequences,
        options: &GeneFitness,
        fitness: &mut Tensor,
        inverse: &mut Tensor,
    ) {
        gene_fitness::forward(&self.context, values, sequences, options, [fitness, inverse]);
    }

    fn gene_fitness_backward(
        &self,
        values: &Tensor,
        sequences: &Sequences,
        options: &GeneFitness,
        fitness: [&Tensor; 3],
        dvalues: &mut Tensor,
        add: bool,
    ) {
        gene_fitness::backward(&self.context, values, sequences, options, fitness, dvalues, add);
    }

    fn modulate(&self, x: &Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate, out: &mut Tensor) {
        modulate::forward(&self.context, x, fitness, sequences, options, out);
    }

    fn modulate_backward(
        &self,
        x: &Tensor,
        fitness: &Tensor,
        sequences: &Sequences,
        options: &Modulate,
        dout: &Tensor,
        gradients: [&mut Tensor; 2],
    ) {
        modulate::backward(&self.context, modulate::Of::Input(x), fitness, sequences, options, dout, gradients);
    }

    fn pool(&self, x: &Tensor, sequences: &Sequences, pooling: Pooling, out: &mut Tensor, argmax: &mut Ids) {
        pool::forward(&self.context, x, sequences, pooling, out, argmax);
    }

    fn pool_backward(&self, dout: &Tensor, sequences: &Sequences, pooling: Pooling, argmax: &Ids, dx: &mut Tensor) {
        pool::backward(&self.context, dout, sequences, pooling, argmax, dx);
    }

    fn l2_normalize(&self, x: &Tensor, out: &mut Tensor, norms: &mut Tensor) {
        l2_normalize::forward(&self.context, x, out, norms);
    }

    fn l2_normalize_backward(&self, y: &Tensor, norms: &Tensor, dy: &Tensor, dx: &mut Tensor) {
        l2_normalize::backward(&self.context, y, norms, dy, dx);
    }

    fn info_nce(&self, scores: &Tensor, options: &InfoNce, loss: &mut Tensor, dscores: &mut Tensor) {
        info_nce::info_nce(&self.context, scores, options, loss, dscores);
    }

    fn adamw(&self, options: &AdamW, update: AdamWUpdate<'_>, tensors: Vec<Updated<'_>>) {
        adamw::adamw(&self.context, &self.weights, options, update, tensors);
    }

    fn global_norm(&self, tensors: &[&Tensor], norm: &mut Tensor) {
        adamw::global_norm(&self.context, tensors, norm);
    }
}
