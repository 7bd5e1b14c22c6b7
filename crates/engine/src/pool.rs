//! The reusing arena: freed buffers are kept and handed out again, so that a training step in its stride
//! allocates nothing from the system.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::memory::Memory;
use crate::tensor::Element;

/// A buffer is reused for a request that fills at least this share of it.
const LEAST_FILL: f64 = 0.5;

/// Free buffers by capacity.
#[derive(Debug)]
pub struct FreeList<T: Element>(Mutex<BTreeMap<usize, Vec<Memory<T>>>>);

impl<T: Element> Default for FreeList<T> {
    fn default() -> Self {
        FreeList(Mutex::default())
    }
}

impl<T: Element> FreeList<T> {
    /// Memory for `len` elements with unspecified (but initialised) contents.
    fn take(&self, len: usize) -> Memory<T> {
        let largest = (len as f64 / LEAST_FILL) as usize;
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((&capacity, memories)) = free.range_mut(len..=largest).next()
            && let Some(memory) = memories.pop()
        {
            if memories.is_empty() {
                free.remove(&capacity);
            }
            return memory;
        }
        drop(free);
        Memory::new(size_class(len))
    }

    fn give_back(&self, memory: Memory<T>) {
        if memory.capacity() > 0 {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            free.entry(memory.capacity()).or_default().push(memory);
        }
    }
}

/// Capacities come in eight classes an octave, so that batches of nearly equal token counts share buffers.
fn size_class(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(16);
    len.div_ceil(step) * step
}

/// The free lists of one device, one per element type.
#[derive(Debug, Default)]
pub struct Pools {
    pub(crate) f32: FreeList<f32>,
    pub(crate) u32: FreeList<u32>,
    pub(crate) u16: FreeList<u16>,
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    memory: Memory<T>,
    len: usize,
    pools: Arc<Pools>,
    derived: Mutex<Option<Derived>>,
}

/// What was made of a buffer's contents, as long as they stay.
#[derive(Clone, Debug)]
struct Derived {
    /// The shape that they were taken to have.
    shape: Vec<usize>,
    value: Arc<dyn Any + Send + Sync>,
}

impl<T: Element> Buffer<T> {
    pub fn new(pools: &Arc<Pools>, len: usize) -> Self {
        Buffer { memory: T::free_list(pools).take(len), len, pools: pools.clone(), derived: Mutex::default() }
    }

    pub fn as_slice(&self) -> &[T] {
        self.memory.first(self.len)
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        *self.derived.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.memory.first_mut(self.len)
    }

    /// What `make` makes of the contents in that shape. If it is to be kept, it is made once, until they change; else what was
    /// kept is given up.
    pub fn derived<D: Any + Send + Sync>(&self, shape: &[usize], keep: bool, make: impl FnOnce() -> D) -> Arc<D> {
        let derived = || self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = if keep { derived().clone() } else { None };
        if let Some(value) = kept.filter(|kept| kept.shape == shape).and_then(|kept| kept.value.downcast().ok()) {
            return value;
        }
        // Not locked meanwhile: a thread that waits for others to help it may be given work that wants the same.
        let made = Arc::new(make());
        *derived() = if keep { Some(Derived { shape: shape.to_vec(), value: made.clone() }) } else { None };
        made
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut copy = Buffer::new(&self.pools, self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        T::free_list(&self.pools).give_back(std::mem::replace(&mut self.memory, Memory::new(0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_is_used_again_for_a_request_of_nearly_its_size() {
        let pools = Arc::new(Pools::default());
        let first = Buffer::<f32>::new(&pools, 1000);
        let address = first.as_slice().as_ptr();
        drop(first);
        let second = Buffer::<f32>::new(&pools, 990);
        assert_eq!(second.as_slice().as_ptr(), address);
        assert_eq!(second.as_slice().len(), 990);
        let third = Buffer::<f32>::new(&pools, 1000);
        assert_ne!(third.as_slice().as_ptr(), address);
    }

    #[test]
    fn what_is_made_of_a_buffer_is_made_once_until_the_buffer_changes() {
        let mut buffer = Buffer::<f32>::new(&Arc::default(), 1);
        buffer.as_mut_slice()[0] = 1.0;
        let first = buffer.derived(&[1], true, || buffer.as_slice()[0]);
        assert!(Arc::ptr_eq(&first, &buffer.derived(&[1], true, || 0.0)));
        assert_eq!(*buffer.derived(&[1], true, || "of another type"), "of another type");
        buffer.as_mut_slice()[0] = 2.0;
        assert_eq!(*buffer.derived(&[1], true, || buffer.as_slice()[0]), 2.0);
        assert_eq!(*buffer.derived(&[1, 1], true, || 2.5_f32), 2.5);
        assert_eq!(*buffer.derived(&[1], false, || 3.0_f32), 3.0);
        assert_eq!(*buffer.derived(&[1], true, || 4.0_f32), 4.0);
    }

    #[test]
    fn size_classes_waste_at_most_an_eighth() {
        for len in 1..5000 {
            let class = size_class(len);
            assert!(class >= len && (class - len <= 16 || class <= len + len / 8 + 1), "{len} -> {class}");
        }
    }
}
