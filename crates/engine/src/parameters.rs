//! A model's trainable tensors, by name.

use std::collections::HashMap;

use crate::tensor::Tensor;

/// A parameter's place in its [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub(crate) usize);

/// Named tensors in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, ParameterId>,
}

impl Parameters {
    /// Adds a tensor, or replaces the one of that name.
    pub fn insert(&mut self, name: &str, tensor: Tensor) -> ParameterId {
        if let Some(&id) = self.by_name.get(name) {
            self.tensors[id.0] = tensor;
            return id;
        }
        let id = ParameterId(self.names.len());
        self.names.push(name.to_owned());
        self.tensors.push(tensor);
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The number of trainable numbers in all tensors.
    pub fn element_count(&self) -> usize {
        self.tensors.iter().map(Tensor::len).sum()
    }

    /// The parameter of that name.
    pub fn id(&self, name: &str) -> Option<ParameterId> {
        self.by_name.get(name).copied()
    }

    /// A parameter's name.
    pub fn name(&self, id: ParameterId) -> &str {
        &self.names[id.0]
    }

    /// A parameter's value.
    pub fn get(&self, id: ParameterId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// A parameter's value, to be changed.
    pub fn get_mut(&mut self, id: ParameterId) -> &mut Tensor {
        &mut self.tensors[id.0]
    }

    /// Every parameter's value in order, to be changed.
    pub(crate) fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.tensors.iter_mut()
    }

    /// Every parameter in order.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &str, &Tensor)> {
        self.names
            .iter()
            .zip(&self.tensors)
            .enumerate()
            .map(|(i, (name, tensor))| (ParameterId(i), name.as_str(), tensor))
    }
}
