//! Values one below the other.

use crate::error::{Result, ensure_shape};
use crate::tape::Var;
use crate::tensor::Tensor;

impl Var {
    /// The rows of all parts `[m_k, n]` in the parts' order: `[Σ m_k, n]`. Fails without parts.
    pub fn concat(parts: &[Var]) -> Result<Var> {
        let columns = parts.first().map(|part| part.value().columns());
        ensure_shape!(
            columns.is_some_and(|columns| parts.iter().all(|part| part.value().columns() == columns)),
            "concat",
            "{:?} are not one or more values of the same width",
            parts.iter().map(Var::shape).collect::<Vec<_>>()
        );
        let first = parts[0].value();
        let rows = parts.iter().map(|part| part.value().rows()).sum();
        let mut out = Tensor::empty(first.device(), &[rows, first.columns()]);
        let mut places = Vec::with_capacity(parts.len());
        let mut end = 0;
        for part in parts {
            let x = part.value();
            x.device().kernels().copy_rows(x, 0..x.rows(), &mut out, end);
            places.push((part.node(), x.shape().to_vec(), end..end + x.rows()));
            end += x.rows();
        }
        Ok(Var::record(out, &parts.iter().collect::<Vec<_>>(), move |dy, gradients| {
            for (node, shape, rows) in places {
                let mut dx = Tensor::empty(dy.device(), &shape);
                dy.device().kernels().copy_rows(dy, rows, &mut dx, 0);
                gradients.add(node, dx);
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_gradients, random};
    use crate::{Tape, Var};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::cases())]
        #[test]
        fn concat_has_the_right_gradient_also_in_a_part_that_stands_twice(
            rows in prop::collection::vec(1..6_usize, 1..5), n in 1..20_usize, seed in 0..1000_u64,
        ) {
            let parts: Vec<_> = rows.iter().zip(seed..).map(|(&m, seed)| random(&[m, n], seed)).collect();
            check_gradients(&parts, |v| Var::concat(&[v, &v[..1]].concat()));
        }

        #[test]
        fn the_rows_of_a_value_put_together_again_are_the_value(m in 1..20_usize, n in 1..20_usize, cut in 0.0..1.0_f64) {
            let x = Tape::inference().constant(random(&[m, n], 1));
            let cut = (cut * m as f64) as usize;
            let again = Var::concat(&[x.rows(0, cut).unwrap(), x.rows(cut, m).unwrap()]).unwrap();
            prop_assert_eq!((again.shape(), again.value().data()), (x.shape(), x.value().data()));
        }
    }

    #[test]
    fn parts_of_unlike_width_and_no_parts_are_errors() {
        let tape = Tape::inference();
        let parts = [[2, 3], [2, 4]].map(|shape| tape.constant(random(&shape, 1)));
        assert!(Var::concat(&parts).err().unwrap().to_string().contains("[[2, 3], [2, 4]]"));
        assert!(Var::concat(&[]).is_err());
    }
}
