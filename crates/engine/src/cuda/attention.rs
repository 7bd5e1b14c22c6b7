//! Softmax attention: on tensor cores where the heads are of a common size and in bf16, by general kernels elsewhere.

use super::context::{Context, Grid, arguments};
use super::elementwise::as_kind;
use super::modulate::{self, Of};
use super::programs::Program;
use super::slice::Kind;
use super::{DropoutWords, gene_fitness, owners_begins_and_ids, partial_sums, suffix, sum_rows};
use crate::kernels::{AttentionGradients, AttentionOutputs, AttentionSaved, Modulation, OfValues};
use crate::ops::attention::Attention;
use crate::sequences::Sequences;
use crate::tensor::{Ids, Tensor};

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

    /// Of the forward pass on tensor cores.
    fn program(&self) -> Program {
        if self.head_dim == 32 { Program::Attention32 } else { Program::Attention64 }
    }

    /// A block for every tile of every head.
    fn by_tile(&self, heads: usize) -> Grid {
        Grid::line(self.sequences.tile_count() * heads, THREADS)
    }

    /// A warp for every row of every head.
    fn by_row(&self, heads: usize) -> Grid {
        Grid { blocks: [self.sequences.tokens().div_ceil(ROWS), heads, 1], threads: 32 * ROWS, shared: 0 }
    }
}

/// Address, columns and scale of a fitness, as the kernels take it.
fn fitness_of(modulation: Option<Modulation<'_>>) -> (u64, (i32, f32)) {
    modulation.map_or((0, (0, 1.0)), |Modulation { fitness, options, .. }| {
        (fitness.slice().address(), (fitness.columns() as i32, options.scale))
    })
}

pub fn forward(
    context: &Context,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    out: &mut Tensor,
) -> AttentionSaved {
    let call = Call::new(context, qkv[0], sequences, options);
    let mut saved = AttentionSaved { lse: Tensor::empty(out.device(), &[out.rows(), options.n_heads]), kept: None };
    let lse = saved.lse.slice_mut().address();
    out.slice_mut();
    let Call { group, causal, dropout, .. } = call;
    if call.on_tensor_cores(&[qkv[0], qkv[1], qkv[2], out]) && call.modulates(modulation) {
        if dropout.threshold > 0 {
            saved.kept = Some(Ids::empty(out.device(), &[options.n_heads * sequences.mask_words()]));
        }
        let (fitness, tiles) = (fitness_of(modulation), sequences.tiles().slice().address());
        let n_heads = options.n_heads as i32;
        #[rustfmt::skip]
        let arguments = arguments![
            qkv.map(heads), tiles, n_heads, group, causal, dropout, call.kept(&saved), fitness, heads(out), lse
        ];
        context.launch_overlapping(call.program(), "attention", call.by_tile(options.n_heads), arguments, fitness.0);
        return saved;
    }
    let (of_sequences, tokens) = (owners_begins_and_ids(sequences), sequences.tokens() as i32);
    let (d, to) = (call.head_dim as i32, out.slice().address());
    let arguments = arguments![qkv.map(heads), of_sequences, tokens, group, causal, dropout, d, to, lse];
    let kernel = format!("attention_{}", suffix(call.kind));
    context.launch(Program::AttentionGeneral, &kernel, call.by_row(options.n_heads), arguments);
    if let Some(Modulation { fitness, options, .. }) = modulation {
        let mixed = out.clone();
        modulate::forward(context, &mixed, fitness, sequences, &options, out);
    }
    saved
}

pub fn backward(
    context: &Context,
    qkv: [&Tensor; 3],
    sequences: &Sequences,
    options: &Attention,
    modulation: Option<Modulation<'_>>,
    outputs: AttentionOutputs<'_>,
    gradients: AttentionGradients<'_>,
) {
    let AttentionOutputs { out, saved, dout } = outputs;
    let call = Call::new(context, qkv[0], sequences, options);
    let AttentionGradients { qkv: [dq, dk, dv], fitness: dfitness } = gradients;
    let dout = as_kind(context, dout, call.kind);
    for gradient in [&mut *dq, &mut *dk, &mut *dv] {
        gradient.slice_mut();
    }
    let outputs = [&*dq, &*dk, &*dv];
    let fits = call.on_tensor_cores(&[qkv[0], qkv[1], qkv[2], out, outputs[0], outputs[1], outputs[2]]);
    if fits && call.modulates(modulation) {
        return call.on_tiles(qkv, modulation, (out, saved), &dout, outputs, dfitness);
    }
    let Some(Modulation { fitness, options: modulate, of_values }) = modulation else {
        return call.on_rows(qkv, saved, &dout, outputs);
    };
    let (mut dmixed, mut room) = (dout.empty_like(), None);
    let dfitness = dfitness.unwrap_or_else(|| room.insert(fitness.empty_like()));
    let outs = [&mut dmixed, &mut *dfitness];
    modulate::backward(context, Of::Output(out), fitness, sequences, &modulate, &dout, outs);
    call.on_rows(qkv, saved, &dmixed, outputs);
    if let Some(OfValues { options, inverse }) = of_values {
        gene_fitness::backward(context, qkv[2], sequences, options, [fitness, inverse, dfitness], dv, true);
    }
}

impl Call<'_> {
    /// The bits of what dropout has left, and how many words a head has.
    fn kept(&self, saved: &AttentionSaved) -> (u64, i32) {
        let bits = saved.kept.as_ref().map_or(0, |kept| kept.slice().address());
        (bits, self.sequences.mask_words() as i32)
    }

    fn on_tiles(
        &self,
        qkv: [&Tensor; 3],
        modulation: Option<Modulation<'_>>,
        (out, saved): (&Tensor, &AttentionSaved),
        dout: &Tensor,
        outputs: [&Tensor; 3],
        dfitness: Option<&mut Tensor>,
    ) {
        let Call { context, sequences, options, group, causal, .. } = *self;
        let (device, n_heads, tile_count) = (dout.device(), options.n_heads as i32, sequences.tile_count());
        let program = if self.head_dim == 32 { Program::AttentionGradient32 } else { Program::AttentionGradient64 };
        let (kept, lse, bits) = (self.dropout.kept, saved.lse.slice().address(), self.kept(saved));
        let ([q, k, v], [dq, dk, dv]) = (qkv.map(heads), outputs.map(heads));
        let (tiles, from, gradient) = (sequences.tiles().slice().address(), heads(out), heads(dout));
        let along = Tensor::empty(device, &[sequences.tokens(), options.n_heads]);
        let along = along.slice().address();
        let fitness = fitness_of(modulation);
        // By gene, of every 16 rows of a sequence.
        let of_genes = [sequences.tokens() / 16 + sequences.len(), out.columns()];
        let of_genes = modulation.map(|_| Tensor::empty(device, &of_genes));
        let of_genes = of_genes.as_ref().map_or(0, |sums| sums.slice().address());
        let of_values = modulation.and_then(|modulation| Some((modulation.fitness, modulation.of_values?)));
        let dmeans = of_values.map(|(fitness, _)| fitness.empty_like());
        let dmeans = dmeans.as_ref().map_or(0, |dmeans| dmeans.slice().address());
        let ancestry = of_values.and_then(|(_, of_values)| of_values.options.ancestry.as_ref());
        let ancestry = ancestry.map(|ancestry| as_kind(context, &ancestry.shares(), Kind::Bf16));
        let ancestry = ancestry.as_ref().map_or(0, |ancestry| ancestry.slice().address());
        let of_rows = sum_rows::room(device, tile_count, &outputs.map(Tensor::columns));
        let width = outputs.map(Tensor::columns).iter().sum::<usize>() as i32;
        let [dq_sums, dk_sums, dv_sums] = [0, 1, 2].map(|of: usize| of_rows[of].slice().address());
        #[rustfmt::skip]
        let arguments = arguments![
            q, k, v, from, gradient, lse, along, bits, tiles, n_heads, group, causal, kept, fitness, of_genes, dq, dq_sums, width
        ];
        context.launch(program, "attention_gradient_in_queries", self.by_tile(options.n_heads), arguments);
        let in_fitness = dfitness.map_or(dmeans, |dfitness| dfitness.slice_mut().address());
        if in_fitness > 0 {
            let inverse = of_values.map_or(0, |(_, of_values)| of_values.inverse.slice().address());
            let (begins, count) = (sequences.cu_seqlens().slice().address(), sequences.len());
            let kv_heads = options.n_kv_heads;
            #[rustfmt::skip]
            let arguments =
                arguments![of_genes, fitness.0, inverse, begins, count as i32, kv_heads as i32, group, in_fitness];
            let grid = Grid::each(32 * count * kv_heads, THREADS);
            context.launch_yielding(program, "gradient_in_fitness", grid, arguments, in_fitness);
        }
        #[rustfmt::skip]
        let arguments = arguments![
            q, k, v, gradient, lse, along, bits, tiles, n_heads, group, causal, kept, fitness, dmeans, ancestry, dk, dk_sums,
            dv, dv_sums, width
        ];
        let grid = self.by_tile(options.n_kv_heads);
        context.launch_overlapping(program, "attention_gradient_in_keys", grid, arguments, in_fitness);
        outputs.into_iter().zip(of_rows).for_each(|(output, sums)| partial_sums::keep(output, sums));
    }

    fn on_rows(&self, qkv: [&Tensor; 3], saved: &AttentionSaved, dout: &Tensor, outputs: [&Tensor; 3]) {
        let Call { context, sequences, options, group, causal, dropout, .. } = *self;
        let ([q, k, v], [dq, dk, dv]) = (qkv.map(heads), outputs.map(heads));
        let (of_sequences, lse) = (owners_begins_and_ids(sequences), saved.lse.slice().address());
        let mut along = Tensor::empty(dout.device(), &[sequences.tokens(), options.n_heads]);
        let along = along.slice_mut().address();
        let (gradient, tokens) = (heads(dout), sequences.tokens() as i32);
        let (d, kind) = (self.head_dim as i32, suffix(self.kind));
        let arguments = arguments![q, k, v, gradient, lse, of_sequences, tokens, group, causal, dropout, d, dq, along];
        let kernel = format!("attention_gradient_in_queries_{kind}");
        context.launch(Program::AttentionGeneral, &kernel, self.by_row(options.n_heads), arguments);
        let arguments =
            arguments![q, k, v, gradient, lse, along, of_sequences, tokens, group, causal, dropout, d, dk, dv];
        let kernel = format!("attention_gradient_in_keys_{kind}");
        context.launch(Program::AttentionGeneral, &kernel, self.by_row(options.n_kv_heads), arguments);
    }
}
