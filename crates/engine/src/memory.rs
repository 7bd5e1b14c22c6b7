//! Memory for arrays: on cache lines, and on huge pages where it is large.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::{fmt, slice};

use crate::tensor::Element;

/// Vector registers and matrix tiles are loaded by whole cache lines.
const CACHE_LINE: usize = 64;
/// From this size on an array begins on a huge page of its own: a product walks through its operands by rows, and each
/// row on another small page costs more than the arithmetic.
const HUGE_PAGE: usize = 2 << 20;

/// A block of initialised elements.
pub struct Memory<T: Element> {
    data: NonNull<T>,
    capacity: usize,
}

// SAFETY: the block is owned, and elements are plain numbers.
unsafe impl<T: Element> Send for Memory<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Element> Sync for Memory<T> {}

impl<T: Element> Memory<T> {
    /// A block of `capacity` zeros.
    pub fn new(capacity: usize) -> Self {
        if capacity == 0 {
            return Memory { data: NonNull::dangling(), capacity };
        }
        let layout = layout::<T>(capacity);
        // SAFETY: the layout is not empty.
        let Some(data) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // Before anything is written: the first touch of a page decides its size.
        if layout.align() == HUGE_PAGE {
            ask_for_huge_pages(data, layout.size());
        }
        // SAFETY: the block is that large; all-zero bytes are a valid number.
        unsafe { data.write_bytes(0, layout.size()) };
        Memory { data: data.cast(), capacity }
    }

    /// How many elements there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first `len` elements.
    pub fn first(&self, len: usize) -> &[T] {
        assert!(len <= self.capacity);
        // SAFETY: the block holds `capacity` initialised elements.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), len) }
    }

    /// The first `len` elements, to be written.
    pub fn first_mut(&mut self, len: usize) -> &mut [T] {
        assert!(len <= self.capacity);
        // SAFETY: the block holds `capacity` initialised elements, and is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), len) }
    }
}

impl<T: Element> Drop for Memory<T> {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.data.as_ptr().cast(), layout::<T>(self.capacity)) }
        }
    }
}

impl<T: Element> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements", self.capacity)
    }
}

fn layout<T>(capacity: usize) -> Layout {
    let size = capacity.saturating_mul(size_of::<T>());
    let align = if size >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
    Layout::from_size_align(size, align).unwrap_or_else(|_| panic!("no address space holds {size} bytes"))
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages(data: NonNull<u8>, size: usize) {
    // SAFETY: the range was just allocated. The call is advice: where it fails, pages are small.
    unsafe { libc::madvise(data.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: NonNull<u8>, _: usize) {}
