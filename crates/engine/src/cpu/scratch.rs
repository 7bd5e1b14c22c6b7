//! Memory that a thread keeps from one task to the next.

use std::cell::RefCell;

use crate::memory::Memory;

thread_local! {
    static SCRATCH: RefCell<Vec<Memory<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of unspecified contents. Loans may be nested.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let kept = SCRATCH.with_borrow_mut(Vec::pop);
    let mut memory = kept.filter(|memory| memory.capacity() >= len).unwrap_or_else(|| Memory::new(len));
    let result = f(memory.first_mut(len));
    SCRATCH.with_borrow_mut(|all| all.push(memory));
    result
}
