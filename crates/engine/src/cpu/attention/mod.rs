//! Softmax attention within each sequence, head by head, modulated by a fitness where that is asked for.
//!
//! The backward pass computes the probabilities again from the saved log-sum-exp (as FlashAttention does), so that
//! memory grows with the number of tokens and not with the squares of the lengths.

mod head;

use rayon::prelude::*;

use super::gene_fitness::{self, HeadAncestry};
use super::matmul::{UnitName, View, with_unit};
use super::modulate::{self, HeadFitness};
use super::parallel::SharedMatrix;
use super::scratch::with_scratch;
use crate::kernels::{AttentionGradients, AttentionOutputs, AttentionSaved, Modulation, OfValues};
use crate::ops::attention::Attention;
use crate::sequences::Sequences;
use crate::tensor::Tensor;
use head::Head;

/// What all of attention takes beside its results.
#[derive(Clone, Copy)]
struct Call<'a> {
    unit: UnitName,
    qkv: [&'a Tensor; 3],
    sequences: &'a Sequences,
    options: &'a Attention,
    /// Of each sequence: a scale of a head's columns, applied where they are written.
    modulation: Option<Modulation<'a>>,
}

/// A modulation as one of each sequence, and as one of each token: at most one of both.
fn by_fitness<'a>(
    modulation: Option<Modulation<'a>>,
    sequences: &Sequences,
) -> (Option<Modulation<'a>>, Option<Modulation<'a>>) {
    let of_sequences = |modulation: &Modulation<'_>| modulation.fitness.rows() == sequences.len();
    (modulation.filter(of_sequences), modulation.filter(|modulation| !of_sequences(modulation)))
}

pub fn forward(
    unit: UnitName,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    out: &mut Tensor,
) -> AttentionSaved {
    let (modulation, of_tokens) = by_fitness(modulation, sequences);
    let mut lse = Tensor::empty(out.device(), &[out.rows(), options.n_heads]);
    Call { unit, qkv, sequences, options, modulation }.forward([&mut *out, &mut lse]);
    if let Some(Modulation { fitness, options, .. }) = of_tokens {
        modulate::in_place(out, fitness, sequences, &options);
    }
    AttentionSaved { lse, kept: None }
}

pub fn backward(
    unit: UnitName,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    outputs: AttentionOutputs<'_>,
    gradients: AttentionGradients<'_>,
) {
    let (modulation, of_tokens) = by_fitness(modulation, sequences);
    let call = Call { unit, qkv, sequences, options, modulation };
    let Some(Modulation { fitness, options, of_values }) = of_tokens else { return call.backward(outputs, gradients) };
    let AttentionOutputs { out, saved, dout } = outputs;
    let AttentionGradients { qkv: [dq, dk, dv], fitness: wanted } = gradients;
    let (mut dmixed, mut room) = (dout.empty_like(), None);
    let dfitness = wanted.unwrap_or_else(|| room.insert(fitness.empty_like()));
    modulate::backward_from_output(out, fitness, sequences, &options, dout, [&mut dmixed, &mut *dfitness]);
    let gradients = AttentionGradients { qkv: [dq, dk, &mut *dv], fitness: None };
    call.backward(AttentionOutputs { out, saved, dout: &dmixed }, gradients);
    if let Some(OfValues { options, inverse }) = of_values {
        gene_fitness::backward(qkv[2], sequences, options, [fitness, inverse, dfitness], dv, true);
    }
}

impl Call<'_> {
    fn forward(&self, [out, lse]: [&mut Tensor; 2]) {
        let Call { unit, qkv, sequences, options, modulation } = *self;
        let (columns, n_heads) = (qkv[0].columns(), options.n_heads);
        let head_dim = columns / n_heads;
        let out = SharedMatrix::new(out.data_mut(), columns);
        let lse = SharedMatrix::new(lse.data_mut(), n_heads);
        (0..sequences.len() * n_heads).into_par_iter().for_each(|task| {
            let (s, head) = (task / n_heads, task % n_heads);
            let work = Head::new(options, sequences, s, head, head_dim);
            // SAFETY: each sequence and head is one task's, and their blocks are disjoint.
            let (out, lse) = unsafe {
                (out.block(work.rows.clone(), work.query.clone()), lse.block(work.rows.clone(), head..head + 1))
            };
            with_scratch(head_dim, |factors| {
                let fitness = modulation.map(|modulation| HeadFitness::new(&modulation, s, &work.key));
                let factors = fitness.map(|fitness| fitness.factors(factors));
                with_unit!(unit, U => work.forward::<U>(qkv, factors, out, lse));
            });
        });
    }

    fn backward(
        &self,
        AttentionOutputs { saved, dout, .. }: AttentionOutputs<'_>,
        AttentionGradients { qkv: [dq, dk, dv], fitness: dfitness }: AttentionGradients<'_>,
    ) {
        let Call { unit, qkv, sequences, options, modulation } = *self;
        let head_dim = qkv[0].columns() / options.n_heads;
        let kv_columns = qkv[1].columns();
        let group = options.n_heads / options.n_kv_heads;
        let dq = SharedMatrix::new(dq.data_mut(), qkv[0].columns());
        let dk = SharedMatrix::new(dk.data_mut(), kv_columns);
        let dv = SharedMatrix::new(dv.data_mut(), kv_columns);
        let dfitness = dfitness.map(SharedMatrix::of);
        (0..sequences.len() * options.n_kv_heads).into_par_iter().for_each(|task| {
            let (s, kv_head) = (task / options.n_kv_heads, task % options.n_kv_heads);
            let (rows, key) = (sequences.range(s), kv_head * head_dim..(kv_head + 1) * head_dim);
            let fitness = modulation.as_ref().map(|modulation| HeadFitness::new(modulation, s, &key));
            let of_values = modulation.and_then(|modulation| modulation.of_values);
            let ancestry = of_values.and_then(|of_values| of_values.options.ancestry.as_ref());
            let ancestry = ancestry.map(|ancestry| HeadAncestry { ancestry, tokens: &rows, genes: &key });
            // Written a forward pass ago, and read when all else is done.
            ancestry.iter().for_each(HeadAncestry::prefetch);
            // Of the gradient of what was modulated, and then of the shares.
            let cells = if fitness.is_some() { rows.len() * head_dim } else { 0 };
            with_scratch(head_dim + cells, |scratch| {
                let (dgamma, room) = scratch.split_at_mut(head_dim);
                // SAFETY: each sequence and kv head, with the query heads that share it, is one task's.
                let [mut dk, mut dv] =
                    unsafe { [dk.block(rows.clone(), key.clone()), dv.block(rows.clone(), key.clone())] };
                for head in kv_head * group..(kv_head + 1) * group {
                    let work = Head::new(options, sequences, s, head, head_dim);
                    // SAFETY: as above.
                    let mut dq = unsafe { dq.block(work.rows.clone(), work.query.clone()) };
                    let mut dout = View::of(dout).part(&work.rows, &work.query);
                    if let Some(fitness) = &fitness {
                        fitness.backward(dout, room);
                        dout = View::rows_of(room, head_dim, head_dim);
                    }
                    let (first, gradients) = (head == kv_head * group, [&mut dq, &mut dk, &mut dv]);
                    with_unit!(unit, U => work.backward::<U>(qkv, &saved.lse, head, dout, gradients, first));
                }
                let Some(fitness) = fitness else { return };
                let values = View::of(qkv[2]).part(&rows, &key);
                fitness.gradient(values, &mut dv, dgamma);
                if let Some(dfitness) = &dfitness {
                    // SAFETY: as above.
                    unsafe { dfitness.block(s..s + 1, key.clone()) }.row(0).copy_from_slice(dgamma);
                }
                if let Some(OfValues { inverse, .. }) = of_values {
                    let inverse = &inverse.data()[s * kv_columns..][key.clone()];
                    let shares = ancestry.as_ref().map(|ancestry| ancestry.shares(room));
                    gene_fitness::backward_of_head(values, shares, [fitness.gamma, inverse], dgamma, &mut dv);
                }
            });
        });
    }
}
