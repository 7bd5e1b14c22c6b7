//! Softmax attention: on tensor cores where the heads are of a common size and in bf16, by general kernels elsewhere.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::modulate::{self, Of};
use super::programs::Program;
use super::slice::Kind;
use super::{DropoutWords, suffix};
use crate::kernels::{AttentionGradients, Modulation};
use crate::ops::attention::Attention;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

const THREADS: usize = 128;
/// Rows that a block of the general kernels takes.
const ROWS: usize = 4;
/// The widest head that the general kernels take.
const WIDEST: usize = 512;

/// What all kernels of attention take beside the operands.
struct Call<'a> {
    context: &'a Context,
    sequences: &'a Sequences,
    options: &'a Attention,
    dropout: DropoutWords,
    head_dim: usize,
    group: i32,
    causal: i32,
    kind: Kind,
}

/// Address and stride of an operand.
fn heads(x: &Tensor) -> (u64, i32) {
    (x.slice().address(), x.slice().stride(x.columns()) as i32)
}

impl<'a> Call<'a> {
    fn new(context: &'a Context, q: &Tensor, sequences: &'a Sequences, options: &'a Attention) -> Self {
        let head_dim = q.columns() / options.n_heads;
        if head_dim > WIDEST {
            context.fail(super::CudaError::Call {
                call: "attention".into(),
                reason: format!("heads of {head_dim} are wider than {WIDEST}"),
            });
        }
        Call {
            context,
            sequences,
            options,
            dropout: DropoutWords::new(options.dropout.map(|dropout| (dropout.probability, dropout.site))),
            head_dim,
            group: (options.n_heads / options.n_kv_heads) as i32,
            causal: i32::from(options.causal),
            kind: q.slice().kind(),
        }
    }

    /// Whether the kernels on tensor cores serve, whose rows are read 16 bytes at a time.
    fn on_tensor_cores(&self, operands: &[&Tensor]) -> bool {
        self.kind == Kind::Bf16
            && matches!(self.head_dim, 32 | 64)
            && operands.iter().all(|x| x.slice().kind() == Kind::Bf16 && heads(x).1 % 8 == 0)
    }

    /// Whether they modulate too: a fitness for each sequence is a scale of a head's columns.
    fn modulates(&self, modulation: Option<Modulation<'_>>) -> bool {
        modulation.is_none_or(|modulation| modulation.fitness.rows() == self.sequences.len())
    }

    fn begins_and_ids(&self) -> [u64; 2] {
        [self.sequences.cu_seqlens(), self.sequences.ids()].map(|ids| ids.slice().address())
    }

    /// A block for every tile of every head.
    fn by_tile(&self, heads: usize) -> Grid {
        Grid { blocks: [self.sequences.tiles().len() / 2, heads, 1], threads: THREADS, shared: 0 }
    }

    /// A warp for every row of every head.
    fn by_row(&self, heads: usize) -> Grid {
        Grid { blocks: [self.sequences.tokens().div_ceil(ROWS), heads, 1], threads: 32 * ROWS, shared: 0 }
    }
}

/// Address, columns and scale of a fitness, as the kernels take it.
fn fitness_of(modulation: Option<Modulation<'_>>) -> (u64, i32, f32) {
    modulation.map_or((0, 0, 1.0), |Modulation { fitness, options }| {
        (fitness.slice().address(), fitness.columns() as i32, options.scale)
    })
}

pub fn forward(
    context: &Context,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    [out, lse]: [&mut Tensor; 2],
) {
    let call = Call::new(context, qkv[0], sequences, options);
    let Call { dropout: DropoutWords { site, threshold, kept }, group, causal, .. } = call;
    let [(q, q_stride), (k, k_stride), (v, v_stride)] = qkv.map(heads);
    let [begins, ids] = call.begins_and_ids();
    out.slice_mut();
    let lse = lse.slice_mut().address();
    if call.on_tensor_cores(&[qkv[0], qkv[1], qkv[2], out]) && call.modulates(modulation) {
        let (fitness, fitness_columns, scale) = fitness_of(modulation);
        let (to, to_stride) = heads(out);
        let tiles = sequences.tiles().slice().address();
        return context.launch(
            Program::Attention,
            &format!("attention_{}", call.head_dim),
            call.by_tile(options.n_heads),
            arguments![
                q,
                q_stride,
                k,
                k_stride,
                v,
                v_stride,
                tiles,
                begins,
                ids,
                group,
                causal,
                site[0],
                site[1],
                site[2],
                site[3],
                threshold,
                kept,
                fitness,
                fitness_columns,
                scale,
                to,
                to_stride,
                lse,
            ],
        );
    }
    let owners = sequences.owners().slice().address();
    context.launch(
        Program::AttentionGeneral,
        &format!("attention_{}", suffix(call.kind)),
        call.by_row(options.n_heads),
        arguments![
            q,
            q_stride,
            k,
            k_stride,
            v,
            v_stride,
            owners,
            begins,
            ids,
            sequences.tokens() as i32,
            group,
            causal,
            site[0],
            site[1],
            site[2],
            site[3],
            threshold,
            kept,
            call.head_dim as i32,
            out.slice().address(),
            lse,
        ],
    );
    if let Some(Modulation { fitness, options }) = modulation {
        let mixed = out.clone();
        modulate::forward(context, &mixed, fitness, sequences, &options, out);
    }
}

pub fn backward(
    context: &Context,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    [out, lse]: [&Tensor; 2],
    dout: &Tensor,
    gradients: AttentionGradients<'_>,
) {
    let call = Call::new(context, qkv[0], sequences, options);
    let AttentionGradients { qkv: dqkv, fitness: dfitness } = gradients;
    let dout = as_kind(context, dout, call.kind);
    let lse = lse.slice().address();
    let [dq, dk, dv] = dqkv;
    for gradient in [&mut *dq, &mut *dk, &mut *dv] {
        gradient.slice_mut();
    }
    let outputs = [&*dq, &*dk, &*dv];
    let fits = call.on_tensor_cores(&[qkv[0], qkv[1], qkv[2], out, outputs[0], outputs[1], outputs[2]]);
    if fits && call.modulates(modulation) {
        return call.on_tiles(qkv, modulation, out, lse, &dout, outputs, dfitness);
    }
    match (modulation, dfitness) {
        (Some(Modulation { fitness, options }), Some(dfitness)) => {
            let mut dmixed = dout.empty_like();
            let outs = [&mut dmixed, dfitness];
            modulate::backward(context, out, Of::Output, fitness, sequences, &options, &dout, outs);
            call.on_rows(qkv, lse, &dmixed, outputs);
        }
        _ => call.on_rows(qkv, lse, &dout, outputs),
    }
}

impl Call<'_> {
    fn on_tiles(
        &self,
        qkv: [&Tensor; 3],
        modulation: Option<Modulation<'_>>,
        out: &Tensor,
        lse: u64,
        dout: &Tensor,
        outputs: [&Tensor; 3],
        dfitness: Option<&mut Tensor>,
    ) {
        let Call { context, sequences, options, dropout: DropoutWords { site, threshold, kept }, .. } = *self;
        let Call { head_dim: d, group, causal, .. } = *self;
        let [(q, q_stride), (k, k_stride), (v, v_stride)] = qkv.map(heads);
        let [(dq, dq_stride), (dk, dk_stride), (dv, dv_stride)] = outputs.map(heads);
        let [begins, ids] = self.begins_and_ids();
        let tiles = sequences.tiles().slice().address();
        let mut along = Tensor::empty(dout.device(), &[sequences.tokens(), options.n_heads]);
        let along = along.slice_mut().address();
        let (fitness, fitness_columns, scale) = fitness_of(modulation);
        let dfitness = dfitness.map_or(0, |dfitness| dfitness.slice_mut().address());
        let (out, (gradient, gradient_stride)) = (out.contiguous(), heads(dout));
        let columns = out.columns() as i32;
        let by_sequence = Grid { blocks: [sequences.len(), options.n_kv_heads, 1], threads: THREADS, shared: 0 };
        let arguments = arguments![
            out.slice().address(),
            gradient,
            begins,
            group,
            fitness,
            fitness_columns,
            along,
            dfitness,
            columns
        ];
        context.launch(Program::Attention, &format!("along_output_{d}"), by_sequence, arguments);
        context.launch(
            Program::Attention,
            &format!("attention_gradient_in_queries_{d}"),
            self.by_tile(options.n_heads),
            arguments![
                q,
                q_stride,
                k,
                k_stride,
                v,
                v_stride,
                gradient,
                gradient_stride,
                lse,
                along,
                tiles,
                begins,
                ids,
                group,
                causal,
                site[0],
                site[1],
                site[2],
                site[3],
                threshold,
                kept,
                fitness,
                fitness_columns,
                scale,
                dq,
                dq_stride,
            ],
        );
        context.launch(
            Program::Attention,
            &format!("attention_gradient_in_keys_{d}"),
            self.by_tile(options.n_kv_heads),
            arguments![
                q,
                q_stride,
                k,
                k_stride,
                v,
                v_stride,
                gradient,
                gradient_stride,
                lse,
                along,
                tiles,
                begins,
                ids,
                group,
                causal,
                site[0],
                site[1],
                site[2],
                site[3],
                threshold,
                kept,
                fitness,
                fitness_columns,
                scale,
                dk,
                dk_stride,
                dv,
                dv_stride,
            ],
        );
    }

    fn on_rows(&self, qkv: [&Tensor; 3], lse: u64, dout: &Tensor, outputs: [&Tensor; 3]) {
        let Call { context, sequences, options, dropout: DropoutWords { site, threshold, kept }, .. } = *self;
        let Call { group, causal, .. } = *self;
        let [(q, q_stride), (k, k_stride), (v, v_stride)] = qkv.map(heads);
        let [(dq, dq_stride), (dk, dk_stride), (dv, dv_stride)] = outputs.map(heads);
        let [begins, ids] = self.begins_and_ids();
        let owners = sequences.owners().slice().address();
        let mut along = Tensor::empty(dout.device(), &[sequences.tokens(), options.n_heads]);
        let along = along.slice_mut().address();
        let (gradient, gradient_stride) = heads(dout);
        let (tokens, d, kind) = (sequences.tokens() as i32, self.head_dim as i32, suffix(self.kind));
        context.launch(
            Program::AttentionGeneral,
            &format!("attention_gradient_in_queries_{kind}"),
            self.by_row(options.n_heads),
            arguments![
                q,
                q_stride,
                k,
                k_stride,
                v,
                v_stride,
                gradient,
                gradient_stride,
                lse,
                owners,
                begins,
                ids,
                tokens,
                group,
                causal,
                site[0],
                site[1],
                site[2],
                site[3],
                threshold,
                kept,
                d,
                dq,
                dq_stride,
                along,
            ],
        );
        context.launch(
            Program::AttentionGeneral,
            &format!("attention_gradient_in_keys_{kind}"),
            self.by_row(options.n_kv_heads),
            arguments![
                q,
                q_stride,
                k,
                k_stride,
                v,
                v_stride,
                gradient,
                gradient_stride,
                lse,
                along,
                owners,
                begins,
                ids,
                tokens,
                group,
                causal,
                site[0],
                site[1],
                site[2],
                site[3],
                threshold,
                kept,
                d,
                dk,
                dk_stride,
                dv,
                dv_stride,
            ],
        );
    }
}
