//! The sum of rows of several tables: BERT's word, position and token-type embeddings.

use crate::device::Device;
use crate::error::{Error, Result, ensure_shape};
use crate::gradients::Gradient;
use crate::tape::Var;
use crate::tensor::{Ids, Tensor};

impl Var {
    /// `out[n] = Σ_k table_k[ids_k[n]]`: tables `[rows_k, H]`, ids `[N]`; the result is `[N, H]`.
    pub fn embedding_sum(parts: &[(&Ids, &Var)]) -> Result<Var> {
        look_up(parts, Tensor::activation)
    }

    /// Rows of a matrix `[R, H]` in the order that ids `[N]` name, in single precision: `[N, H]`.
    pub fn gather(&self, ids: &Ids) -> Result<Var> {
        look_up(&[(ids, self)], Tensor::empty)
    }
}

/// `room` is what the result is written into.
fn look_up(parts: &[(&Ids, &Var)], room: fn(&Device, &[usize]) -> Tensor) -> Result<Var> {
    let Some(&(first_ids, first)) = parts.first() else {
        return Err(Error::Shape { operation: "embedding_sum", what: "no table".into() });
    };
    let (tokens, columns) = (first_ids.len(), first.value().columns());
    for (ids, table) in parts {
        ensure_shape!(
            ids.len() == tokens && table.shape().len() == 2 && table.value().columns() == columns,
            "embedding_sum",
            "{} ids in a table {:?}, where others have {tokens} ids and {columns} columns",
            ids.len(),
            table.shape()
        );
        let rows = table.value().rows();
        let outside = |ids: &[u32]| ids.iter().copied().enumerate().find(|&(_, id)| id as usize >= rows);
        if let Some((place, index)) = ids.known().and_then(outside) {
            return Err(Error::Index { operation: "embedding_sum", index, place, rows });
        }
    }
    let values: Vec<(&Ids, &Tensor)> = parts.iter().map(|(ids, table)| (*ids, table.value())).collect();
    let mut out = room(first.value().device(), &[tokens, columns]);
    out.device().clone().kernels().embedding_sum(&values, &mut out);
    let kept: Vec<(Ids, usize, Option<usize>)> =
        parts.iter().map(|(ids, table)| ((*ids).clone(), table.value().rows(), table.node())).collect();
    let tables: Vec<&Var> = parts.iter().map(|part| part.1).collect();
    Ok(Var::record(out, &tables, move |dy, gradients| {
        for (ids, rows, node) in kept.iter().filter(|part| part.2.is_some()) {
            gradients.add(*node, Gradient::of_lookup(ids, dy, *rows));
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_gradients, device, random};
    use crate::{Error, Ids, Tape, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn embedding_sum_has_the_right_gradient(
            ids in prop::collection::vec((0..5_u32, 0..3_u32), 1..30),
            columns in 1..20_usize,
            seed in 0..1000_u64,
        ) {
            let (a, b): (Vec<u32>, Vec<u32>) = ids.into_iter().unzip();
            let a = Ids::from_slice(&device(), &[a.len()], &a).unwrap();
            let b = Ids::from_slice(&device(), &[b.len()], &b).unwrap();
            let tables = [random(&[5, columns], seed), random(&[3, columns], seed + 1)];
            check_gradients(&tables, |v| Var::embedding_sum(&[(&a, &v[0]), (&b, &v[1])]));
        }
    }

    #[test]
    fn an_id_outside_its_table_is_an_error_that_names_it() {
        let table = Tape::recording().leaf(random(&[5, 2], 1));
        let ids = Ids::from_slice(&device(), &[3], &[0, 4, 5]).unwrap();
        let error = Var::embedding_sum(&[(&ids, &table)]).err().unwrap();
        assert_eq!(error, Error::Index { operation: "embedding_sum", index: 5, place: 2, rows: 5 });
    }
}
