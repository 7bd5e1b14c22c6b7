//! The tape: operations are recorded in the forward pass and walked back for the gradients.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::{Result, ensure_shape};
use crate::gradients::Gradients;
use crate::parameters::{ParameterId, Parameters};
use crate::tensor::Tensor;

/// An operation's gradient: takes the gradient of its output and adds to those of its inputs.
type Backward = Box<dyn FnOnce(&Tensor, &mut Gradients) -> Result<()>>;

/// Records what must be done for the gradients. Cheap to clone; clones are the same tape.
#[derive(Clone)]
pub struct Tape(Option<Rc<RefCell<Record>>>);

#[derive(Default)]
struct Record {
    /// By node; a leaf has none.
    backward: Vec<Option<Backward>>,
    /// The leaf of each parameter that took part, by parameter.
    parameters: Vec<Option<usize>>,
}

/// A value on a tape. Clones are the same value.
#[derive(Clone)]
pub struct Var {
    value: Tensor,
    tape: Tape,
    /// Absent where no gradient is wanted.
    node: Option<usize>,
}

impl Tape {
    /// A tape that records.
    pub fn recording() -> Self {
        Tape(Some(Rc::default()))
    }

    /// A tape that records nothing, for inference: each value is freed with its last use.
    pub fn inference() -> Self {
        Tape(None)
    }

    /// A value whose gradient is wanted.
    pub fn leaf(&self, value: Tensor) -> Var {
        let node = self.0.as_ref().map(|record| {
            let mut record = record.borrow_mut();
            record.backward.push(None);
            record.backward.len() - 1
        });
        Var { value, tape: self.clone(), node }
    }

    /// A value without a gradient.
    pub fn constant(&self, value: Tensor) -> Var {
        Var { value, tape: self.clone(), node: None }
    }

    /// A parameter; asked for twice, it is the same leaf.
    pub fn parameter(&self, parameters: &Parameters, id: ParameterId) -> Var {
        let value = parameters.get(id).clone();
        let Some(record) = &self.0 else { return self.constant(value) };
        let known = record.borrow().parameters.get(id.0).copied().flatten();
        if known.is_some() {
            return Var { value, tape: self.clone(), node: known };
        }
        let leaf = self.leaf(value);
        let mut record = record.borrow_mut();
        let count = record.parameters.len().max(id.0 + 1);
        record.parameters.resize(count, None);
        record.parameters[id.0] = leaf.node;
        leaf
    }

    /// The gradients of a scalar with respect to every leaf. Takes the record: a tape is walked once,
    /// and what each operation kept is freed as the walk passes it.
    pub fn backward(&self, loss: &Var) -> Result<Gradients> {
        ensure_shape!(loss.value.len() == 1, "backward", "the loss must be a scalar, not {:?}", loss.value.shape());
        let one = Tensor::full(loss.value.device(), loss.value.shape(), 1.0);
        self.backward_from(loss, one, Gradients::default())
    }

    /// The walk of [`Tape::backward`] from a value of any shape, given a scalar's gradient with respect to it. What it
    /// finds for parameters is added to `before`, the gradients of another tape, of which other leaves are forgotten: so
    /// a scalar can be made of more than is ever recorded at once. Fails if gradient and value differ in shape.
    pub fn backward_from(&self, value: &Var, gradient: Tensor, before: Gradients) -> Result<Gradients> {
        ensure_shape!(
            gradient.shape() == value.shape(),
            "backward_from",
            "a gradient {:?} of a value {:?}",
            gradient.shape(),
            value.shape()
        );
        let Some(record) = &self.0 else { return Ok(before) };
        let Record { backward, parameters } = std::mem::take(&mut *record.borrow_mut());
        let mut gradients = Gradients::of_walk(backward.len(), parameters, before);
        gradients.add(value.node, gradient);
        for (node, operation) in backward.into_iter().enumerate().rev() {
            let Some(operation) = operation else { continue };
            if let Some(gradient) = gradients.take(Some(node)) {
                operation(&gradient, &mut gradients)?;
            }
        }
        Ok(gradients)
    }
}

impl Var {
    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The tape on which the value lies.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Where this value's gradient is collected, for use in [`Gradients::add`].
    pub(crate) fn node(&self) -> Option<usize> {
        self.node
    }

    /// The result of an operation on `inputs`. `backward` is kept only if one of them wants a gradient.
    pub(crate) fn record(
        value: Tensor,
        inputs: &[&Var],
        backward: impl FnOnce(&Tensor, &mut Gradients) -> Result<()> + 'static,
    ) -> Var {
        let recorded = inputs.iter().find(|input| input.node.is_some());
        let tape = recorded.or(inputs.first()).map_or(Tape(None), |input| input.tape.clone());
        let node = recorded.and(tape.0.as_ref()).map(|record| {
            let mut record = record.borrow_mut();
            record.backward.push(Some(Box::new(backward)));
            record.backward.len() - 1
        });
        Var { value, tape, node }
    }
}

impl Var {
    /// The results of an operation with several. `backward` takes the gradient of each that has one.
    pub(crate) fn record_many(
        values: Vec<Tensor>,
        inputs: &[&Var],
        backward: impl FnOnce(Vec<Option<Tensor>>, &mut Gradients) -> Result<()> + 'static,
    ) -> Vec<Var> {
        let Some(first) = values.first().cloned() else { return Vec::new() };
        let collected = Rc::new(RefCell::new(vec![None; values.len()]));
        let results = collected.clone();
        // The operation's own node comes before its results' and is thus walked after them.
        let operation = Var::record(first, inputs, move |_, gradients| backward(results.take(), gradients));
        let collect = |(index, value)| {
            let (collected, node) = (collected.clone(), operation.node);
            Var::record(value, &[&operation], move |gradient, gradients| {
                collected.borrow_mut()[index] = Some(gradient.clone());
                gradients.reach(node, gradient);
                Ok(())
            })
        };
        values.into_iter().enumerate().map(collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{device, random};

    #[test]
    fn walks_of_parts_add_up_to_the_walk_of_the_whole() {
        let mut parameters = Parameters::default();
        let ids = ["both", "first", "second"].map(|name| parameters.insert(name, random(&[3], name.len() as u64)));
        let inputs = [random(&[2, 3], 7), random(&[4, 3], 8)];
        // A function of both parts, of which each uses a parameter of its own and one that both use.
        let part = |tape: &Tape, which: usize| {
            let [both, own] = [ids[0], ids[1 + which]].map(|id| tape.parameter(&parameters, id));
            tape.constant(inputs[which].clone()).mul(&both)?.sigmoid()?.mul(&own)
        };
        let scalar = |parts: &[Var]| parts[0].sum()?.mul(&parts[1].sum()?);

        let tape = Tape::recording();
        let whole = tape.backward(&scalar(&[part(&tape, 0).unwrap(), part(&tape, 1).unwrap()]).unwrap()).unwrap();

        let tape = Tape::recording();
        let leaves = [0, 1].map(|which| tape.leaf(part(&Tape::inference(), which).unwrap().value().clone()));
        let cached = tape.backward(&scalar(&leaves).unwrap()).unwrap();
        let mut sum = Gradients::default();
        for (which, leaf) in leaves.iter().enumerate() {
            let tape = Tape::recording();
            let value = part(&tape, which).unwrap();
            sum = tape.backward_from(&value, cached.of(leaf).unwrap(), sum).unwrap();
        }
        assert_eq!(sum.parameters().count(), 3);
        for id in ids {
            let [sum, whole] = [&sum, &whole].map(|gradients| gradients.of_parameter(id).unwrap().values().to_vec());
            crate::testing::assert_close(&sum, &whole, 1e-6);
        }
    }

    #[test]
    fn a_gradient_of_another_shape_than_the_value_is_an_error() {
        let tape = Tape::recording();
        let leaf = tape.leaf(random(&[2, 3], 1));
        let walked = tape.backward_from(&leaf, Tensor::zeros(&device(), &[3, 2]), Gradients::default());
        assert!(walked.err().unwrap().to_string().contains("[3, 2] of a value [2, 3]"));
    }
}
