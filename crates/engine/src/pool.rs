//! The reusing arena: freed buffers are kept and handed out again, so that a training step in its stride
//! allocates nothing from the system.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::tensor::Element;

/// A buffer is reused for a request that fills at least this share of it.
const LEAST_FILL: f64 = 0.5;

/// Free buffers by capacity.
#[derive(Debug)]
pub struct FreeList<T>(Mutex<BTreeMap<usize, Vec<Vec<T>>>>);

impl<T> Default for FreeList<T> {
    fn default() -> Self {
        FreeList(Mutex::default())
    }
}

impl<T: Element> FreeList<T> {
    /// A buffer of `len` elements with unspecified (but initialised) contents.
    fn take(&self, len: usize) -> Vec<T> {
        let largest = (len as f64 / LEAST_FILL) as usize;
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((&capacity, buffers)) = free.range_mut(len..=largest).next()
            && let Some(mut buffer) = buffers.pop()
        {
            if buffers.is_empty() {
                free.remove(&capacity);
            }
            drop(free);
            buffer.resize(len, T::default());
            return buffer;
        }
        drop(free);
        let mut buffer = Vec::with_capacity(size_class(len));
        buffer.resize(len, T::default());
        buffer
    }

    fn give_back(&self, buffer: Vec<T>) {
        if buffer.capacity() > 0 {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            free.entry(buffer.capacity()).or_default().push(buffer);
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
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    data: Vec<T>,
    pools: Arc<Pools>,
}

impl<T: Element> Buffer<T> {
    pub fn new(pools: &Arc<Pools>, len: usize) -> Self {
        Buffer { data: T::free_list(pools).take(len), pools: pools.clone() }
    }

    pub fn as_slice(&self) -> &[T] {
        &self.data
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut copy = Buffer::new(&self.pools, self.data.len());
        copy.data.copy_from_slice(&self.data);
        copy
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        T::free_list(&self.pools).give_back(std::mem::take(&mut self.data));
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
    fn size_classes_waste_at_most_an_eighth() {
        for len in 1..5000 {
            let class = size_class(len);
            assert!(class >= len && (class - len <= 16 || class <= len + len / 8 + 1), "{len} -> {class}");
        }
    }
}
