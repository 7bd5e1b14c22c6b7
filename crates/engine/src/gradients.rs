//! What a walk back over a tape finds.

use crate::device::Device;
use crate::parameters::ParameterId;
use crate::tape::Var;
use crate::tensor::{Ids, Tensor};

/// Gradients of a scalar, by leaf and by parameter.
#[derive(Default)]
pub struct Gradients {
    by_node: Vec<Option<Gradient>>,
    by_parameter: Vec<Option<usize>>,
}

/// A gradient.
#[derive(Clone, Debug)]
pub enum Gradient {
    /// Of every element.
    Dense(Tensor),
    /// Of a matrix of which few rows took part.
    OfRows(RowGradient),
}

/// The gradient of a matrix, which is zero but in some rows.
#[derive(Clone, Debug)]
pub struct RowGradient {
    /// Which rows these are, ascending, each once.
    rows: Ids,
    /// Their gradients, `[rows, H]`.
    values: Tensor,
    /// How many rows the matrix has.
    count: usize,
}

impl RowGradient {
    /// Row `row` of the matrix's gradient; `None` where it is zero. In the host's memory.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        let place = self.rows.data().binary_search(&(row as u32)).ok()?;
        let columns = self.values.columns();
        Some(&self.values.data()[place * columns..][..columns])
    }
}

/// The gradient of a matrix of `count` rows of which rows were looked up, whose gradients are `dy`.
fn looked_up(ids: &Ids, dy: &Tensor, count: usize) -> Tensor {
    let mut out = Tensor::empty(dy.device(), &[count, dy.columns()]);
    dy.device().kernels().embedding_backward(ids, dy, &mut out);
    out
}

fn ids_on(device: &Device, ids: &[u32]) -> Ids {
    Ids::from_slice(device, &[ids.len()], ids).unwrap_or_else(|_| unreachable!("the shape is its own"))
}

/// Each id that occurs, ascending.
fn distinct(ids: &[u32]) -> Vec<u32> {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

impl Gradient {
    /// Of a matrix of `count` rows of which the rows `ids` `[N]` were looked up; `dy` `[N, H]` are the gradients of what was
    /// found there. Those rows alone where that saves memory.
    pub(crate) fn of_lookup(ids: &Ids, dy: &Tensor, count: usize) -> Gradient {
        let device = dy.device();
        let rows = device.keeps_row_gradients().then(|| distinct(ids.data())).filter(|rows| 2 * rows.len() <= count);
        let Some(rows) = rows else { return Gradient::Dense(looked_up(ids, dy, count)) };
        let places: Vec<u32> = ids.data().iter().map(|id| rows.partition_point(|row| row < id) as u32).collect();
        let values = looked_up(&ids_on(device, &places), dy, rows.len());
        Gradient::OfRows(RowGradient { rows: ids_on(device, &rows), values, count })
    }

    /// All elements.
    pub fn dense(&self) -> Tensor {
        self.clone().into_dense()
    }

    /// The elements that may be other than zero.
    pub fn values(&self) -> &Tensor {
        match self {
            Gradient::Dense(tensor) => tensor,
            Gradient::OfRows(of_rows) => &of_rows.values,
        }
    }

    fn into_dense(self) -> Tensor {
        match self {
            Gradient::Dense(tensor) => tensor,
            Gradient::OfRows(RowGradient { rows, values, count }) => looked_up(&rows, &values, count),
        }
    }

    /// The sum of both.
    fn plus(self, other: Gradient) -> Gradient {
        match (self, other) {
            (Gradient::OfRows(a), Gradient::OfRows(b)) => {
                let (device, columns) = (a.values.device(), a.values.columns());
                let ids: Vec<u32> = [&a, &b].into_iter().flat_map(|part| part.rows.data()).copied().collect();
                let ids = ids_on(device, &ids);
                let mut values = Tensor::empty(device, &[ids.len(), columns]);
                let kernels = device.kernels();
                kernels.copy_rows(&a.values, 0..a.rows.len(), &mut values, 0);
                kernels.copy_rows(&b.values, 0..b.rows.len(), &mut values, a.rows.len());
                Gradient::of_lookup(&ids, &values, a.count)
            }
            (a, b) => {
                let mut sum = a.into_dense();
                let more = b.into_dense();
                sum.device().clone().kernels().accumulate(&more, &mut sum);
                Gradient::Dense(sum)
            }
        }
    }
}

impl From<Tensor> for Gradient {
    fn from(tensor: Tensor) -> Self {
        Gradient::Dense(tensor)
    }
}

impl Gradients {
    /// The gradient of a leaf; `None` if the scalar does not depend on it.
    pub fn of(&self, leaf: &Var) -> Option<Tensor> {
        Some(self.by_node.get(leaf.node()?)?.as_ref()?.dense())
    }

    /// The gradient of a parameter; `None` if the scalar does not depend on it.
    pub fn of_parameter(&self, id: ParameterId) -> Option<&Gradient> {
        self.by_node.get((*self.by_parameter.get(id.0)?)?)?.as_ref()
    }

    /// Every parameter's gradient, in the parameters' order.
    pub fn parameters(&self) -> impl Iterator<Item = (ParameterId, &Gradient)> {
        (0..self.by_parameter.len()).map(ParameterId).filter_map(|id| Some((id, self.of_parameter(id)?)))
    }

    /// At the beginning of a walk over so many nodes, of which some are parameters' leaves. Takes the parameters' gradients
    /// of an earlier walk, for this one to add to: a sum is held once, and never a second set of gradients beside it.
    pub(crate) fn of_walk(nodes: usize, by_parameter: Vec<Option<usize>>, before: Gradients) -> Self {
        let mut gradients = Gradients { by_node: vec![None; nodes], by_parameter };
        for (id, gradient) in before.parameters() {
            let places = &mut gradients.by_parameter;
            places.resize(places.len().max(id.0 + 1), None);
            // A parameter that took no part on this tape has no node yet.
            let node = *places[id.0].get_or_insert(gradients.by_node.len());
            gradients.by_node.resize(gradients.by_node.len().max(node + 1), None);
            gradients.by_node[node] = Some(gradient.clone());
        }
        gradients
    }

    /// Adds to the gradient collected at `node`; does nothing where none is wanted.
    pub(crate) fn add(&mut self, node: Option<usize>, gradient: impl Into<Gradient>) {
        let Some(node) = node else { return };
        let sum = match self.by_node[node].take() {
            Some(before) => before.plus(gradient.into()),
            None => gradient.into(),
        };
        self.by_node[node] = Some(sum);
    }

    /// The gradient collected at `node` so far, for an operation that adds to it and puts it back with
    /// [`Gradients::put`].
    pub(crate) fn take(&mut self, node: Option<usize>) -> Option<Tensor> {
        self.by_node[node?].take().map(Gradient::into_dense)
    }

    /// Puts back what was taken.
    pub(crate) fn put(&mut self, node: Option<usize>, gradient: Tensor) {
        if let Some(node) = node {
            self.by_node[node] = Some(gradient.into());
        }
    }

    /// Lets the walk stop at `node`, which needs no gradient of its own.
    pub(crate) fn reach(&mut self, node: Option<usize>, any: &Tensor) {
        if let Some(node) = node {
            self.by_node[node].get_or_insert_with(|| any.clone().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{device, random};

    fn lookup(ids: &[u32], seed: u64) -> (Ids, Tensor) {
        (Ids::from_slice(&device(), &[ids.len()], ids).unwrap(), random(&[ids.len(), 5], seed))
    }

    proptest! {
        #[test]
        fn gradients_of_rows_are_and_add_up_as_those_of_whole_matrices(
            first in prop::collection::vec(0..40_u32, 1..30), second in prop::collection::vec(0..40_u32, 1..30),
        ) {
            let [(ids, dy), (more_ids, more)] = [lookup(&first, 1), lookup(&second, 2)];
            let [a, b] = [(&ids, &dy), (&more_ids, &more)].map(|(ids, dy)| Gradient::of_lookup(ids, dy, 40));
            let [dense_a, dense_b] = [(&ids, &dy), (&more_ids, &more)].map(|(ids, dy)| looked_up(ids, dy, 40));
            prop_assert_eq!(matches!(&a, Gradient::OfRows(_)), distinct(&first).len() <= 20);
            prop_assert_eq!(a.dense().to_vec(), dense_a.to_vec());
            let expected: Vec<f32> = dense_a.data().iter().zip(dense_b.data()).map(|(a, b)| a + b).collect();
            for (a, b) in [
                (a.clone(), b.clone()),
                (a.clone(), dense_b.clone().into()),
                (dense_a.clone().into(), b.clone()),
            ] {
                prop_assert_eq!(a.plus(b).dense().to_vec(), &expected[..]);
            }
            if let Gradient::OfRows(a) = &a {
                for row in 0..40 {
                    let expected = first.contains(&(row as u32)).then(|| &dense_a.data()[row * 5..][..5]);
                    prop_assert_eq!(a.row(row), expected);
                }
            }
        }
    }
}
