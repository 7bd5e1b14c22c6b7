//! Dropout (Srivastava et al. 2014) with counter-based draws.

use crate::error::{Result, ensure_shape};
use crate::random::Site;
use crate::sequences::Sequences;
use crate::tape::Var;
use crate::tensor::Tensor;

impl Var {
    /// Each element of `[N, H]` becomes 0 with the given probability (in [0, 1)) and is else divided by what is left
    /// of 1. The draw is named by the site, the sequence, the position in it and the feature.
    pub fn dropout(&self, sequences: &Sequences, probability: f32, site: Site) -> Result<Var> {
        ensure_shape!(
            (0.0..1.0).contains(&probability) && self.value().rows() == sequences.tokens(),
            "dropout",
            "{:?} with {} tokens and probability {probability}",
            self.shape(),
            sequences.tokens()
        );
        if probability == 0.0 {
            return Ok(self.clone());
        }
        let node = self.node();
        let sequences = sequences.clone();
        let masked = move |x: &Tensor| {
            let mut out = x.empty_like();
            x.device().kernels().dropout(x, &sequences, probability, site, &mut out);
            out
        };
        Ok(Var::record(masked(self.value()), &[self], move |dy, gradients| {
            gradients.add(node, masked(dy));
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::random::{Purpose, Site};
    use crate::testing::{check_gradients, device, random, sequences};
    use crate::{Sequences, Tape, Tensor};
    use proptest::prelude::*;

    const SITE: Site = Site { seed: 3, step: 5, layer: 1, purpose: Purpose::FeedForwardDropout };

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn dropout_has_the_right_gradient(lengths in prop::collection::vec(1..6_usize, 1..4), n in 1..40_usize, p in 0.0..0.9_f32) {
            let sequences = sequences(&lengths);
            check_gradients(&[random(&[sequences.tokens(), n], 1)], |v| v[0].dropout(&sequences, p, SITE));
        }
    }

    #[test]
    fn dropout_drops_the_share_asked_for_and_keeps_the_mean() {
        let sequences = sequences(&[40, 60]);
        let ones = Tape::inference().constant(Tensor::full(&device(), &[100, 1001], 1.0));
        let y = ones.dropout(&sequences, 0.3, SITE).unwrap().value().to_vec();
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f32 / y.len() as f32;
        let mean = y.iter().sum::<f32>() / y.len() as f32;
        assert!((dropped - 0.3).abs() < 0.01 && (mean - 1.0).abs() < 0.01, "{dropped} {mean}");
    }

    #[test]
    fn a_sequence_is_dropped_the_same_in_any_batch() {
        let x = random(&[5, 33], 1);
        let both = random(&[9, 33], 2);
        let mut packed = both.clone();
        packed.data_mut()[4 * 33..].copy_from_slice(x.data());
        let tape = Tape::inference();
        let alone = tape.constant(x).dropout(&Sequences::new(&device(), &[5], &[77]).unwrap(), 0.5, SITE).unwrap();
        let batch = Sequences::new(&device(), &[4, 5], &[3, 77]).unwrap();
        let together = tape.constant(packed).dropout(&batch, 0.5, SITE).unwrap();
        assert_eq!(alone.value().data(), &together.value().data()[4 * 33..]);
    }
}
