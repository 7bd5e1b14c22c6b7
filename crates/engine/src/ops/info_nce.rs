//! The InfoNCE objective (van den Oord, Li and Vinyals 2018, arXiv 1807.03748) over in-batch and hard negatives.

use crate::error::{Result, ensure_shape};
use crate::kernels::Binary;
use crate::tape::Var;
use crate::tensor::Tensor;

/// How the loss is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct InfoNce {
    /// Similarities are divided by it.
    pub temperature: f32,
    /// Whether each positive also has to find its query, with the mean of both losses.
    pub symmetric: bool,
    /// Query and candidate pairs that are no negatives, because their texts are equal to the positive's.
    pub excluded: Vec<(u32, u32)>,
}

impl Var {
    /// The mean over queries `i` of `−log softmax_j(q_i·p_j / temperature)[i]`: queries `[B, H]`, candidate passages
    /// `[P, H]` of which the first `B` are the positives in the queries' order and the others hard negatives.
    /// The result is `[1]`.
    pub fn info_nce(queries: &Var, passages: &Var, options: &InfoNce) -> Result<Var> {
        let (count, candidates) = (queries.value().rows(), passages.value().rows());
        ensure_shape!(
            count > 0 && candidates >= count,
            "info_nce",
            "{count} queries and {candidates} passages: each query needs its positive"
        );
        for &(query, candidate) in &options.excluded {
            ensure_shape!(
                (query as usize) < count && (candidate as usize) < candidates && query != candidate,
                "info_nce",
                "cannot exclude passage {candidate} for query {query}"
            );
        }
        queries.matmul_transposed(passages)?.contrast(options)
    }

    /// The loss `[1]` from cosines `[B, P]`.
    fn contrast(&self, options: &InfoNce) -> Result<Var> {
        let scores = self.value();
        let mut loss = Tensor::empty(scores.device(), &[1]);
        let mut dscores = scores.empty_like();
        scores.device().kernels().info_nce(scores, options, &mut loss, &mut dscores);
        let node = self.node();
        Ok(Var::record(loss, &[self], move |dloss, gradients| {
            let mut out = dscores.empty_like();
            dloss.device().kernels().binary(Binary::Mul, &dscores, dloss, &mut out);
            gradients.add(node, out);
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;
    use crate::testing::{check_gradients, random};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn info_nce_has_the_right_gradient(
            batch in 1..6_usize, hard in 0..6_usize, n in 1..9_usize, symmetric: bool, seed in 0..1000_u64,
        ) {
            let inputs = [random(&[batch, n], seed), random(&[batch + hard, n], seed + 1)];
            let excluded = if batch > 2 { vec![(0, 2), (2, 0)] } else { vec![] };
            let options = InfoNce { temperature: 0.7, symmetric, excluded };
            check_gradients(&inputs, |v| Var::info_nce(&v[0], &v[1], &options));
        }

        #[test]
        fn an_excluded_passage_is_as_if_it_were_not_there(n in 1..9_usize, seed in 0..1000_u64) {
            let (q, p) = (random(&[1, n], seed), random(&[3, n], seed + 1));
            let loss = |passages: Tensor, excluded| {
                let tape = Tape::inference();
                let options = InfoNce { temperature: 0.3, symmetric: false, excluded };
                Var::info_nce(&tape.constant(q.clone()), &tape.constant(passages), &options).unwrap().value().item()
            };
            let without = Tensor::from_slice(q.device(), &[2, n], &p.data()[..2 * n]).unwrap();
            prop_assert!((loss(p, vec![(0, 2)]) - loss(without, vec![])).abs() < 1e-6);
        }
    }

    #[test]
    fn equal_similarities_give_the_logarithm_of_the_candidates() {
        let tape = Tape::inference();
        let same = |rows| tape.constant(Tensor::full(&crate::testing::device(), &[rows, 4], 0.5));
        let options = InfoNce { temperature: 0.05, symmetric: false, excluded: vec![] };
        let loss = Var::info_nce(&same(3), &same(8), &options).unwrap().value().item();
        assert!((loss - 8_f32.ln()).abs() < 1e-6);
    }
}
