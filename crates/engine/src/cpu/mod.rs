//! The CPU kernels, one file per operation.
//!
//! Parallel work is cut into parts whose bounds depend on the shapes alone, and partial sums are added in the order of
//! the parts, so that results do not depend on the number of threads.

mod adamw;
mod attention;
mod dropout;
mod elementwise;
mod embedding;
mod evolve;
mod gene_fitness;
mod info_nce;
mod l2_normalize;
pub(crate) mod largest;
mod layer_norm;
pub mod limits;
mod linear;
mod math;
mod matmul;
mod modulate;
mod parallel;
mod pool;
mod rms_norm;
mod rows;
mod scratch;
mod softmax;

use std::ops::Range;

use crate::kernels::{
    Activation, AdamWUpdate, Affine, AttentionGradients, AttentionOutputs, AttentionSaved, Binary, Kernels,
    LinearGradients, Matrix, Modulation, PlainEnd, Unary, Updated,
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
use crate::precision::Precision;
use crate::random::Site;
use crate::sequences::Sequences;
use crate::tensor::{Ids, Tensor};

pub use matmul::UnitName;

/// The CPU.
pub struct Cpu {
    /// What multiplies in linear maps; in attention, what that says of products within heads.
    unit: UnitName,
}

impl Cpu {
    /// The CPU, with the best that it has for a precision.
    pub fn new(precision: Precision) -> Self {
        Cpu { unit: UnitName::best(precision) }
    }
}

impl Kernels for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn accumulate(&self, x: &Tensor, sum: &mut Tensor) {
        elementwise::accumulate(x, sum);
    }

    fn scale(&self, x: &Tensor, factor: f32, out: &mut Tensor) {
        elementwise::scale(x, factor, out);
    }

    fn unary(&self, function: Unary, x: &Tensor, out: &mut Tensor) {
        elementwise::unary(function, x, out);
    }

    fn unary_backward(&self, function: Unary, x: &Tensor, dy: &Tensor, dx: &mut Tensor) {
        elementwise::unary_backward(function, x, dy, dx);
    }

    fn binary(&self, function: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor) {
        elementwise::binary(function, a, b, out);
    }

    fn copy_rows(&self, x: &Tensor, rows: Range<usize>, out: &mut Tensor, to: usize) {
        elementwise::copy_rows(x, rows, out, to);
    }

    fn reduce(&self, x: &Tensor, out: &mut Tensor) {
        elementwise::reduce(x, out);
    }

    fn largest(&self, x: &Tensor, count: usize, floors: &[f32]) -> Vec<Vec<Entry>> {
        largest::largest(x, count, floors)
    }

    fn matmul(&self, a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor) {
        matmul::matmul(a, b, out);
    }

    fn linear(&self, x: &Tensor, activation: Activation, parts: &[Affine<'_>], outs: &mut [Tensor]) {
        linear::forward(self.unit, x, activation, parts, outs);
    }

    fn linear_backward(
        &self,
        x: Tensor,
        activation: Activation,
        weights: &[&Tensor],
        douts: &[&Tensor],
        gradients: LinearGradients<'_>,
    ) {
        linear::backward(self.unit, &x, activation, weights, douts, gradients);
    }

    fn linear_norm(&self, x: &Tensor, map: Affine<'_>, end: PlainEnd<'_>, out: &mut Tensor) {
        linear::linear_norm(self.unit, x, map, end, out);
    }

    fn feed_forward_norm(&self, x: &Tensor, maps: [Affine<'_>; 2], end: PlainEnd<'_>, out: &mut Tensor) {
        linear::feed_forward_norm(self.unit, x, maps, end, out);
    }

    fn softmax(&self, x: &Tensor, out: &mut Tensor) {
        softmax::forward(x, out);
    }

    fn softmax_backward(&self, y: &Tensor, dy: &Tensor, dx: &mut Tensor) {
        softmax::backward(y, dy, dx);
    }

    fn embedding_sum(&self, parts: &[(&Ids, &Tensor)], out: &mut Tensor) {
        embedding::forward(parts, out);
    }

    fn embedding_backward(&self, ids: &Ids, dy: &Tensor, dtable: &mut Tensor) {
        embedding::backward(ids, dy, dtable);
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
        layer_norm::forward(x, gain, bias, epsilon, y, statistics);
    }

    fn layer_norm_backward(
        &self,
        x: &Tensor,
        gain: &Tensor,
        statistics: &Tensor,
        dy: &Tensor,
        gradients: [&mut Tensor; 3],
    ) {
        layer_norm::backward(x, gain, statistics, dy, gradients);
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
        layer_norm::residual_forward(terms, dropout, affine, epsilon, y, saved);
    }

    fn residual_norm_backward(
        &self,
        saved: [&Tensor; 3],
        dy: &Tensor,
        dropout: Option<(&Sequences, ResidualDropout)>,
        gradients: [&mut Tensor; 3],
        dx: Option<&mut Tensor>,
    ) {
        layer_norm::residual_backward(saved, dy, dropout, gradients, dx);
    }

    fn rms_norm(&self, x: &Tensor, gain: &Tensor, epsilon: f32, y: &mut Tensor, inverse_rms: &mut Tensor) {
        rms_norm::forward(x, gain, epsilon, y, inverse_rms);
    }

    fn rms_norm_backward(
        &self,
        x: &Tensor,
        gain: &Tensor,
        inverse_rms: &Tensor,
        dy: &Tensor,
        gradients: [&mut Tensor; 2],
    ) {
        rms_norm::backward(x, gain, inverse_rms, dy, gradients);
    }

    fn dropout(&self, x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor) {
        dropout::dropout(x, sequences, probability, site, out);
    }

    fn attention(
        &self,
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        out: &mut Tensor,
    ) -> AttentionSaved {
        attention::forward(self.unit.within_heads(), qkv, sequences, options, modulation, out)
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
        attention::backward(self.unit.within_heads(), qkv, sequences, options, modulation, outputs, gradients);
    }

    fn evolve(&self, values: &Tensor, sequences: &Sequences, options: &Evolve, fitness: [&mut Tensor; 2]) -> Ancestry {
        evolve::evolve(values, sequences, options, fitness)
    }

    fn gene_fitness(
        &self,
        values: &Tensor,
        sequences: &Sequences,
        options: &GeneFitness,
        fitness: &mut Tensor,
        inverse: &mut Tensor,
    ) {
        gene_fitness::forward(values, sequences, options, fitness, inverse);
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
        gene_fitness::backward(values, sequences, options, fitness, dvalues, add);
    }

    fn modulate(&self, x: &Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate, out: &mut Tensor) {
        modulate::forward(x, fitness, sequences, options, out);
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
        modulate::backward(x, fitness, sequences, options, dout, gradients);
    }

    fn pool(&self, x: &Tensor, sequences: &Sequences, pooling: Pooling, out: &mut Tensor, argmax: &mut Ids) {
        pool::forward(x, sequences, pooling, out, argmax);
    }

    fn pool_backward(&self, dout: &Tensor, sequences: &Sequences, pooling: Pooling, argmax: &Ids, dx: &mut Tensor) {
        pool::backward(dout, sequences, pooling, argmax, dx);
    }

    fn l2_normalize(&self, x: &Tensor, out: &mut Tensor, norms: &mut Tensor) {
        l2_normalize::forward(x, out, norms);
    }

    fn l2_normalize_backward(&self, y: &Tensor, norms: &Tensor, dy: &Tensor, dx: &mut Tensor) {
        l2_normalize::backward(y, norms, dy, dx);
    }

    fn info_nce(&self, scores: &Tensor, options: &InfoNce, loss: &mut Tensor, dscores: &mut Tensor) {
        info_nce::info_nce(scores, options, loss, dscores);
    }

    fn adamw(&self, options: &AdamW, update: AdamWUpdate<'_>, tensors: Vec<Updated<'_>>) {
        adamw::adamw(options, update, tensors);
    }

    fn global_norm(&self, tensors: &[&Tensor], norm: &mut Tensor) {
        adamw::global_norm(tensors, norm);
    }
}
