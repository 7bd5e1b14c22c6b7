//! Where the time of a step goes: a device that takes the time of every operation.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::kernels::{
    Activation, AdamWUpdate, Affine, AttentionGradients, AttentionOutputs, AttentionSaved, Binary, Kernels,
    LinearGradients, Matrix, Modulation, Moment, PlainEnd, Unary, Updated,
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

/// An operation's name, and when it began and ended.
type Interval = (&'static str, Moment, Moment);

/// Time by operation, as the names in [`Kernels`]. Clones are the same record.
#[derive(Clone, Default)]
pub struct Profile(Arc<Record>);

#[derive(Default)]
struct Record {
    paused: AtomicBool,
    intervals: Mutex<Vec<Interval>>,
}

impl Profile {
    /// Seconds since the last call, by operation. Waits for the device.
    pub fn take(&self) -> BTreeMap<&'static str, f64> {
        let intervals = std::mem::take(&mut *self.0.intervals.lock().unwrap_or_else(PoisonError::into_inner));
        let mut seconds = BTreeMap::new();
        for (operation, began, ended) in intervals {
            *seconds.entry(operation).or_default() += ended.seconds_since(&began);
        }
        seconds
    }

    fn add(&self, operation: &'static str, began: Moment, ended: Moment) {
        self.0.intervals.lock().unwrap_or_else(PoisonError::into_inner).push((operation, began, ended));
    }

    /// Whether time is taken from now on, as it is at first.
    pub fn record(&self, recording: bool) {
        self.0.paused.store(!recording, Ordering::Relaxed);
    }
}

/// Kernels that take the time of others.
pub(crate) struct Profiled {
    pub kernels: Arc<dyn Kernels>,
    pub profile: Profile,
}

macro_rules! take_the_time_of {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        impl Kernels for Profiled {
            fn name(&self) -> &'static str {
                self.kernels.name()
            }

            fn mark(&self) -> Moment {
                self.kernels.mark()
            }

            $(fn $name(&self, $($argument: $type),*) $(-> $result)? {
                if self.profile.0.paused.load(Ordering::Relaxed) {
                    return self.kernels.$name($($argument),*);
                }
                let started = self.kernels.mark();
                let result = self.kernels.$name($($argument),*);
                self.profile.add(stringify!($name), started, self.kernels.mark());
                result
            })*
        }
    };
}

take_the_time_of! {
    fn accumulate(x: &Tensor, sum: &mut Tensor);
    fn scale(x: &Tensor, factor: f32, out: &mut Tensor);
    fn unary(function: Unary, x: &Tensor, out: &mut Tensor);
    fn unary_backward(function: Unary, x: &Tensor, dy: &Tensor, dx: &mut Tensor);
    fn binary(function: Binary, a: &Tensor, b: &Tensor, out: &mut Tensor);
    fn copy_rows(x: &Tensor, rows: Range<usize>, out: &mut Tensor, to: usize);
    fn reduce(x: &Tensor, out: &mut Tensor);
    fn largest(x: &Tensor, count: usize, floors: &[f32]) -> Vec<Vec<Entry>>;
    fn matmul(a: Matrix<'_>, b: Matrix<'_>, out: &mut Tensor);
    fn linear(x: &Tensor, activation: Activation, parts: &[Affine<'_>], outs: &mut [Tensor]);
    fn linear_backward(x: Tensor, activation: Activation, weights: &[&Tensor], douts: &[&Tensor], gradients: LinearGradients<'_>);
    fn linear_norm(x: &Tensor, map: Affine<'_>, end: PlainEnd<'_>, out: &mut Tensor);
    fn feed_forward_norm(x: &Tensor, maps: [Affine<'_>; 2], end: PlainEnd<'_>, out: &mut Tensor);
    fn softmax(x: &Tensor, out: &mut Tensor);
    fn softmax_backward(y: &Tensor, dy: &Tensor, dx: &mut Tensor);
    fn embedding_sum(parts: &[(&Ids, &Tensor)], out: &mut Tensor);
    fn embedding_backward(ids: &Ids, dy: &Tensor, dtable: &mut Tensor);
    fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor, epsilon: f32, y: &mut Tensor, statistics: &mut Tensor);
    fn layer_norm_backward(x: &Tensor, gain: &Tensor, statistics: &Tensor, dy: &Tensor, gradients: [&mut Tensor; 3]);
    fn residual_norm(
        terms: [&Tensor; 2],
        dropout: Option<(&Sequences, ResidualDropout)>,
        affine: [&Tensor; 2],
        epsilon: f32,
        y: &mut Tensor,
        saved: Option<[&mut Tensor; 2]>,
    );
    fn residual_norm_backward(
        saved: [&Tensor; 3],
        dy: &Tensor,
        dropout: Option<(&Sequences, ResidualDropout)>,
        gradients: [&mut Tensor; 3],
        dx: Option<&mut Tensor>,
    );
    fn rms_norm(x: &Tensor, gain: &Tensor, epsilon: f32, y: &mut Tensor, inverse_rms: &mut Tensor);
    fn rms_norm_backward(x: &Tensor, gain: &Tensor, inverse_rms: &Tensor, dy: &Tensor, gradients: [&mut Tensor; 2]);
    fn dropout(x: &Tensor, sequences: &Sequences, probability: f32, site: Site, out: &mut Tensor);
    fn attention(
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        out: &mut Tensor,
    ) -> AttentionSaved;
    fn attention_backward(
        qkv: [&Tensor; 3],
        sequences: &Sequences,
        options: &Attention,
        modulation: Option<Modulation<'_>>,
        outputs: AttentionOutputs<'_>,
        gradients: AttentionGradients<'_>,
    );
    fn evolve(values: &Tensor, sequences: &Sequences, options: &Evolve, fitness: [&mut Tensor; 2]) -> Ancestry;
    fn gene_fitness(values: &Tensor, sequences: &Sequences, options: &GeneFitness, fitness: &mut Tensor, inverse: &mut Tensor);
    fn gene_fitness_backward(values: &Tensor, sequences: &Sequences, options: &GeneFitness, fitness: [&Tensor; 3], dvalues: &mut Tensor, add: bool);
    fn modulate(x: &Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate, out: &mut Tensor);
    fn modulate_backward(x: &Tensor, fitness: &Tensor, sequences: &Sequences, options: &Modulate, dout: &Tensor, gradients: [&mut Tensor; 2]);
    fn pool(x: &Tensor, sequences: &Sequences, pooling: Pooling, out: &mut Tensor, argmax: &mut Ids);
    fn pool_backward(dout: &Tensor, sequences: &Sequences, pooling: Pooling, argmax: &Ids, dx: &mut Tensor);
    fn l2_normalize(x: &Tensor, out: &mut Tensor, norms: &mut Tensor);
    fn l2_normalize_backward(y: &Tensor, norms: &Tensor, dy: &Tensor, dx: &mut Tensor);
    fn info_nce(scores: &Tensor, options: &InfoNce, loss: &mut Tensor, dscores: &mut Tensor);
    fn adamw(options: &AdamW, update: AdamWUpdate<'_>, tensors: Vec<Updated<'_>>);
    fn global_norm(tensors: &[&Tensor], norm: &mut Tensor);
}

#[cfg(test)]
mod tests {
    use crate::testing::random;
    use crate::{Device, Tape};

    #[test]
    fn a_profile_names_the_operations_that_ran_since_it_was_last_taken() {
        let (device, profile) = Device::cpu().profiled();
        let tape = Tape::inference();
        let x = tape.constant(crate::Tensor::from_slice(&device, &[3, 3], random(&[3, 3], 1).data()).unwrap());
        x.matmul(&x).unwrap().gelu().unwrap();
        let times = profile.take();
        assert_eq!(times.keys().copied().collect::<Vec<_>>(), ["matmul", "unary"]);
        assert!(profile.take().is_empty());
    }
}
