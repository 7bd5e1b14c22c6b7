//! Device memory: a reusing arena, as `arena.rs` is for the host, but of whole blocks.
//!
//! All work of a device goes through one stream, in order. So memory may be handed out again as soon as the host has
//! dropped it: whoever gets it next is behind whoever had it. What runs aside holds its memory until the main stream
//! waits for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{result, sys::CUdeviceptr};

use super::context::Context;
use super::error::{CudaError, CudaResult};

/// A block is reused for a request that fills at least this share of it: steps have the same few sizes again and again.
const LEAST_FILL: f64 = 0.8;
/// Blocks are multiples of this, and begin at one.
const ALIGNMENT: usize = 512;

/// Free blocks by size, and how much memory is and was in use.
#[derive(Debug, Default)]
pub struct Arena(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    free: BTreeMap<usize, Vec<CUdeviceptr>>,
    /// Bytes that live blocks take.
    in_use: usize,
    /// The most that were in use since the last reset.
    peak: usize,
}

impl Arena {
    /// Whether so many bytes more would be more than have ever been in use.
    fn would_be_a_peak(&self, bytes: usize) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_use + size_class(bytes) > state.peak
    }

    /// Memory with unspecified contents.
    fn take(&self, bytes: usize) -> CudaResult<(CUdeviceptr, usize)> {
        let wanted = size_class(bytes);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = state.reuse(wanted);
        let (address, size) = match reused {
            Some(found) => found,
            None => (state.allocate(wanted)?, wanted),
        };
        state.in_use += size;
        state.peak = state.peak.max(state.in_use);
        Ok((address, size))
    }

    fn give_back(&self, address: CUdeviceptr, size: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_use -= size;
        state.free.entry(size).or_default().push(address);
    }

    /// The most bytes that were in use since [`Arena::reset_peak`].
    pub fn peak(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).peak
    }

    /// Begins a new peak at what is in use now.
    pub fn reset_peak(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.peak = state.in_use;
    }

    /// Gives all free memory back to the driver.
    pub fn trim(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trim();
    }
}

impl State {
    fn reuse(&mut self, wanted: usize) -> Option<(CUdeviceptr, usize)> {
        let largest = (wanted as f64 / LEAST_FILL) as usize;
        let (&size, addresses) = self.free.range_mut(wanted..=largest).next()?;
        let address = addresses.pop()?;
        if addresses.is_empty() {
            self.free.remove(&size);
        }
        Some((address, size))
    }

    fn allocate(&mut self, size: usize) -> CudaResult<CUdeviceptr> {
        // SAFETY: a plain allocation; the context is current.
        let mut allocated = unsafe { result::malloc_sync(size) };
        if allocated.is_err() {
            self.trim();
            // SAFETY: as above.
            allocated = unsafe { result::malloc_sync(size) };
        }
        allocated.map_err(|error| CudaError::of_allocation(error, size, self.in_use))
    }

    /// Freeing waits for the device, so nothing is still at work in what goes.
    fn trim(&mut self) {
        for address in std::mem::take(&mut self.free).into_values().flatten() {
            // SAFETY: a free block, allocated by `allocate`. What the driver says cannot be mended here.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}

/// Sizes come in 256 classes an octave, so that batches of nearly equal token counts ask for the same.
fn size_class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 512).max(ALIGNMENT);
    bytes.max(1).div_ceil(step) * step
}

/// Memory of one or several arrays; goes back to the arena when the last of them is dropped.
#[derive(Debug)]
pub struct Block {
    context: Arc<Context>,
    address: CUdeviceptr,
    size: usize,
    stamp: AtomicU64,
    /// The job aside that writes it, until the main stream waits for that; 0 is none.
    aside: AtomicU64,
}

/// The next number for contents.
static NEXT_STAMP: AtomicU64 = AtomicU64::new(0);

fn next_stamp() -> u64 {
    NEXT_STAMP.fetch_add(1, Ordering::Relaxed)
}

impl Block {
    /// Memory for so many bytes. Where there is none the device's failure is kept, and the block has no memory:
    /// a device that has failed runs nothing.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Self {
        context.enter();
        // What runs aside would be done soon: to wait for the memory that it holds is better than to need more.
        if context.arena().would_be_a_peak(bytes) {
            context.keep(context.aside().wait_for_all(context.stream()));
        }
        let taken = context.arena().take(bytes).or_else(|_| {
            context.keep(context.aside().wait_for_all(context.stream()));
            context.arena().take(bytes)
        });
        let (address, size) = taken.unwrap_or_else(|error| {
            context.fail(error);
            (0, 0)
        });
        Block { context: context.clone(), address, size, stamp: AtomicU64::new(next_stamp()), aside: AtomicU64::new(0) }
    }

    /// The first byte. Whatever runs aside and writes here is waited for.
    pub fn address(&self) -> CUdeviceptr {
        let job = self.aside.load(Ordering::Relaxed);
        if job > 0 {
            self.context.keep(self.context.aside().wait(self.context.stream(), job));
            // Another thread may have begun another job.
            let _ = self.aside.compare_exchange(job, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.address
    }

    /// Tells that the job aside of that number writes it.
    pub fn written_aside(&self, job: u64) {
        self.aside.store(job, Ordering::Relaxed);
    }

    /// What it holds, by a number that no other contents have had.
    pub fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// Tells that the contents change.
    pub fn touch(&self) {
        self.stamp.store(next_stamp(), Ordering::Relaxed);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.size > 0 {
            self.context.no_overlap();
            self.context.arena().give_back(self.address, self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_waste_at_most_a_256th() {
        for bytes in (0..5_000_000).step_by(77) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGNMENT));
            assert!(class - bytes <= ALIGNMENT.max(bytes / 256 + 1), "{bytes} -> {class}");
        }
    }
}
