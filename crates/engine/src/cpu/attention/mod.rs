//! Softmax attention within each sequence, head by head, modulated by a fitness where that is asked for.
//!
//! The backward pass computes the probabilities again from the saved log-sum-exp (as FlashAttention does), so that
//! memory grows with the number of tokens and not with the squares of the lengths.

mod head;

use rayon::prelude::*;

use super::gene_fitness;
use super::matmul::{UnitName, View, with_unit};
use super::modulate::{self, HeadFitness};
use super::parallel::SharedMatrix;
use super::scratch::with_scratch;
use crate::kernels::{AttentionGradients, AttentionOutputs, AttentionSaved, Modulation, OfValues};
use crate::ops::attention::Attention;
use crate::sequences::Sequences;
use crate::tensor::Tensor;
use head::Head;

/// Whether each sequence has one fitness: a scale of a head's columns, applied where they are written.
fn of_sequences(modulation: &Modulation<'_>, sequences: &Sequences) -> bool {
    modulation.fitness.rows() == sequences.len()
}

pub fn forward(
    unit: UnitName,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    out: &mut Tensor,
) -> AttentionSaved {
    let mut lse = Tensor::empty(out.device(), &[out.rows(), options.n_heads]);
    match modulation {
        Some(modulation) if !of_sequences(&modulation, sequences) => {
            forward_of_heads(unit, qkv, sequences, options, None, [&mut *out, &mut lse]);
            modulate::in_place(out, modulation.fitness, sequences, &modulation.options);
        }
        _ => forward_of_heads(unit, qkv, sequences, options, modulation, [out, &mut lse]),
    }
    AttentionSaved { lse, kept: None }
}

fn forward_of_heads(
    unit: UnitName,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    [out, lse]: [&mut Tensor; 2],
) {
    let (columns, n_heads) = (qkv[0].columns(), options.n_heads);
    let head_dim = columns / n_heads;
    let out = SharedMatrix::new(out.data_mut(), columns);
    let lse = SharedMatrix::new(lse.data_mut(), n_heads);
    (0..sequences.len() * n_heads).into_par_iter().for_each(|task| {
        let (s, head) = (task / n_heads, task % n_heads);
        let work = Head::new(options, sequences, s, head, head_dim);
        // SAFETY: each sequence and head is one task's, and their blocks are disjoint.
        let (out, lse) =
            unsafe { (out.block(work.rows.clone(), work.query.clone()), lse.block(work.rows.clone(), head..head + 1)) };
        with_scratch(head_dim, |factors| {
            let factors = modulation.map(|modulation| {
                HeadFitness::new(&modulation, s, &work.key).factors(factors);
                &*factors
            });
            with_unit!(unit, U => work.forward::<U>(qkv, factors, out, lse));
        });
    });
}

pub fn backward(
    unit: UnitName,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    AttentionOutputs { out, saved, dout }: AttentionOutputs<'_>,
    AttentionGradients { qkv: [dq, dk, dv], fitness: wanted }: AttentionGradients<'_>,
) {
    let per_token = modulation.filter(|modulation| !of_sequences(modulation, sequences));
    let Some(Modulation { fitness, options: modulate, of_values }) = per_token else {
        let outputs = AttentionOutputs { out, saved, dout };
        let gradients = AttentionGradients { qkv: [dq, dk, dv], fitness: wanted };
        return backward_of_heads(unit, qkv, sequences, options, modulation, outputs, gradients);
    };
    let (mut dmixed, mut room) = (dout.empty_like(), None);
    let dfitness = wanted.unwrap_or_else(|| room.insert(fitness.empty_like()));
    modulate::backward_from_output(out, fitness, sequences, &modulate, dout, [&mut dmixed, &mut *dfitness]);
    let outputs = AttentionOutputs { out, saved, dout: &dmixed };
    let gradients = AttentionGradients { qkv: [dq, dk, &mut *dv], fitness: None };
    backward_of_heads(unit, qkv, sequences, options, None, outputs, gradients);
    if let Some(OfValues { options, inverse }) = of_values {
        gene_fitness::backward(qkv[2], sequences, options, [fitness, inverse, dfitness], dv, true);
    }
}

fn backward_of_heads(
    unit: UnitName,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    AttentionOutputs { out, saved, dout }: AttentionOutputs<'_>,
    AttentionGradients { qkv: [dq, dk, dv], fitness: dfitness }: AttentionGradients<'_>,
) {
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
        let room = if fitness.is_some() { rows.len() * head_dim } else { 0 };
        with_scratch(room + head_dim, |scratch| {
            let (dgamma, dmixed) = scratch.split_at_mut(head_dim);
            dgamma.fill(0.0);
            // SAFETY: each sequence and kv head, with the query heads that share it, is one task's.
            let [mut dk, mut dv] = unsafe { [dk.block(rows.clone(), key.clone()), dv.block(rows.clone(), key.clone())] };
            for head in kv_head * group..(kv_head + 1) * group {
                let work = Head::new(options, sequences, s, head, head_dim);
                // SAFETY: as above.
                let mut dq = unsafe { dq.block(work.rows.clone(), work.query.clone()) };
                let mut dout = View::of(dout).part(&work.rows, &work.query);
                if let Some(fitness) = &fitness {
                    fitness.backward(View::of(out).part(&work.rows, &work.query), dout, dmixed, dgamma);
                    dout = View::rows_of(dmixed, head_dim, head_dim);
                }
                let first = head == kv_head * group;
                with_unit!(unit, U => work.backward::<U>(qkv, &saved.lse, head, dout, [&mut dq, &mut dk, &mut dv], first));
            }
            let Some(fitness) = fitness else { return };
            fitness.of_scaled(dgamma);
            if let Some(dfitness) = &dfitness {
                // SAFETY: as above.
                unsafe { dfitness.block(s..s + 1, key.clone()) }.row(0).copy_from_slice(dgamma);
            }
            if let Some(OfValues { options, inverse }) = modulation.and_then(|modulation| modulation.of_values) {
                let inverse = &inverse.data()[s * kv_columns..][key.clone()];
                let shares = options.ancestry.as_ref().map(|shares| View::of(shares).part(&rows, &key));
                let values = View::of(qkv[2]).part(&rows, &key);
                gene_fitness::backward_of_head(values, shares, [fitness.gamma, inverse], dgamma, &mut dv);
            }
        });
    });
}
