//! Copies of parameters as matrix products read them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::arena::Block;
use super::context::{Context, arguments};
use super::elementwise::grid;
use super::programs::Program::Linear;
use super::slice::{Kind, Slice};
use crate::tensor::Tensor;

/// Weights and biases as products read them: in the activations' kind, those of one input joined. Made when they are
/// first needed, for the forward and the backward pass, and written again by whoever updates their parameters.
#[derive(Default)]
pub struct Weights(Mutex<HashMap<(Vec<u64>, Kind), Copy>>);

struct Copy {
    /// The contents that it is a copy of.
    stamps: Vec<u64>,
    /// Of their memory, so that copies of what is no more can be dropped.
    sources: Vec<Weak<Block>>,
    joined: Slice,
}

impl Weights {
    /// Tensors of equal columns, one below the other, in that kind.
    pub fn joined(&self, context: &Context, tensors: &[&Tensor], kind: Kind) -> Slice {
        if let &[single] = tensors
            && single.slice().kind() == kind
        {
            return single.slice().clone();
        }
        let slices: Vec<&Slice> = tensors.iter().map(|tensor| tensor.slice()).collect();
        let key = (slices.iter().map(|slice| slice.address()).collect(), kind);
        let stamps: Vec<u64> = slices.iter().map(|slice| slice.stamp()).collect();
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copies.get(&key).filter(|copy| copy.stamps == stamps) {
            return copy.joined.clone();
        }
        copies.retain(|_, copy| copy.sources.iter().all(|source| source.strong_count() > 0));
        let joined = Slice::new(slices[0].context(), kind, slices.iter().map(|slice| slice.len()).sum());
        let mut to = joined.address();
        for slice in &slices {
            let (kernel, count) = (if kind == Kind::Bf16 { "round_weights" } else { "copy_weights" }, slice.len());
            context.launch(Linear, kernel, grid(count.div_ceil(4)), arguments![slice.address(), to, count]);
            to += (count * kind.size()) as u64;
        }
        // A device that has failed has written nothing.
        if !context.has_failed() {
            let sources = slices.iter().map(|slice| slice.lifetime()).collect();
            copies.insert(key, Copy { stamps, sources, joined: joined.clone() });
        }
        joined
    }

    /// Where an update of parameters is to leave them rounded as well: an address for each, with the memory that it is in,
    /// or nothing where there is no copy. These copies become those of what the parameters hold then; an update that is
    /// skipped changes neither.
    pub fn renewed(&self, parameters: &mut [&mut Tensor]) -> Vec<Option<(u64, Arc<Block>)>> {
        let before: Vec<u64> = parameters.iter().map(|parameter| parameter.slice().stamp()).collect();
        let place: HashMap<u64, usize> = parameters
            .iter_mut()
            .enumerate()
            .map(|(place, parameter)| (parameter.slice_mut().address(), place))
            .collect();
        let mut rounded = vec![None; parameters.len()];
        for ((addresses, kind), copy) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let places: Option<Vec<usize>> = addresses.iter().map(|address| place.get(address).copied()).collect();
            let Some(places) = places.filter(|_| *kind == Kind::Bf16) else { continue };
            let valid = places.iter().zip(&copy.stamps).all(|(&place, &stamp)| before[place] == stamp);
            // Where a parameter has several copies, alone and joined, the others are made again when they are needed.
            if !valid || places.iter().any(|&place| rounded[place].is_some()) {
                continue;
            }
            let mut to = copy.joined.address();
            for &place in &places {
                rounded[place] = Some((to, copy.joined.block().clone()));
                to += (parameters[place].len() * kind.size()) as u64;
            }
            copy.stamps = places.iter().map(|&place| parameters[place].slice().stamp()).collect();
        }
        rounded
    }
}
