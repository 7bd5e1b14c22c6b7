//! The tape: operations are recorded in the forward pass and walked back for the gradients.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::{Result, ensure_shape};
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
        let Some(record) = &self.0 else { return Ok(Gradients::default()) };
        let Record { backward, parameters } = std::mem::take(&mut *record.borrow_mut());
        let mut gradients = Gradients { by_node: vec![None; backward.len()], by_parameter: parameters };
        gradients.add(loss.node, Tensor::full(loss.value.device(), loss.value.shape(), 1.0));
        for (node, operation) in backward.into_iter().enumerate().rev() {
            let Some(operation) = operation else { continue };
            if let Some(gradient) = gradients.by_node[node].take() {
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

/// Gradients of a scalar, by leaf and by parameter.
#[derive(Default)]
pub struct Gradients {
    by_node: Vec<Option<Tensor>>,
    by_parameter: Vec<Option<usize>>,
}

impl Gradients {
    /// The gradient of a leaf; `None` if the scalar does not depend on it.
    pub fn of(&self, leaf: &Var) -> Option<&Tensor> {
        self.by_node.get(leaf.node?)?.as_ref()
    }

    /// The gradient of a parameter; `None` if the scalar does not depend on it.
    pub fn of_parameter(&self, id: ParameterId) -> Option<&Tensor> {
        self.by_node.get((*self.by_parameter.get(id.0)?)?)?.as_ref()
    }

    /// Every parameter's gradient, in the parameters' order.
    pub fn parameters(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        (0..self.by_parameter.len()).map(ParameterId).filter_map(|id| Some((id, self.of_parameter(id)?)))
    }

    /// Adds to the gradient collected at `node`; does nothing where none is wanted.
    pub(crate) fn add(&mut self, node: Option<usize>, gradient: Tensor) {
        let Some(node) = node else { return };
        match &mut self.by_node[node] {
            Some(sum) => gradient.device().clone().kernels().accumulate(&gradient, sum),
            none => *none = Some(gradient),
        }
    }

    /// The gradient collected at `node` so far, for an operation that adds to it and puts it back with
    /// [`Gradients::put`].
    pub(crate) fn take(&mut self, node: Option<usize>) -> Option<Tensor> {
        self.by_node[node?].take()
    }

    /// Puts back what was taken.
    pub(crate) fn put(&mut self, node: Option<usize>, gradient: Tensor) {
        if let Some(node) = node {
            self.by_node[node] = Some(gradient);
        }
    }

    /// Lets the walk stop at `node`, which needs no gradient of its own.
    fn reach(&mut self, node: Option<usize>, any: &Tensor) {
        if let Some(node) = node {
            self.by_node[node].get_or_insert_with(|| any.clone());
        }
    }
}
