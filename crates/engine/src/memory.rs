//! Memory from the system: on cache lines, and on huge pages where it is large.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::{fmt, slice};

use bytemuck::Pod;

/// Vector registers and matrix tiles are loaded by whole cache lines.
pub const CACHE_LINE: usize = 64;
/// From this size on memory begins on a huge page: a product walks through its operands by rows, and each row on another
/// small page costs more than the arithmetic.
const HUGE_PAGE: usize = 2 << 20;

/// A block of elements, of zeros at first. What is never written takes no place in the machine's memory where it is large.
pub struct Memory<T: Pod> {
    allocated: NonNull<u8>,
    layout: Layout,
    data: NonNull<T>,
    capacity: usize,
}

// SAFETY: the block is owned, and elements are plain numbers.
unsafe impl<T: Pod + Send> Send for Memory<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Pod + Sync> Sync for Memory<T> {}

impl<T: Pod> Memory<T> {
    /// A block of `capacity` zeros.
    ///
    /// # Panics
    /// If the system has no more memory.
    pub fn new(capacity: usize) -> Self {
        let bytes = capacity.saturating_mul(size_of::<T>());
        Memory::try_new(capacity).unwrap_or_else(|| panic!("the system has no {bytes} bytes more of memory"))
    }

    /// A block of `capacity` zeros, if the system has one.
    pub fn try_new(capacity: usize) -> Option<Self> {
        let size = capacity.checked_mul(size_of::<T>())?;
        let align = if size >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        // Aligned here: an allocator that is asked to align writes the zeros itself, and so takes every page at once.
        let layout = Layout::from_size_align(size.checked_add(align)?, align_of::<u128>()).ok()?;
        // SAFETY: the layout is not empty.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: at most `align` bytes on, where `size` are left.
        let data = unsafe { allocated.add(allocated.align_offset(align)) };
        if align == HUGE_PAGE {
            ask_for_huge_pages(data, size);
        }
        Some(Memory { allocated, layout, data: data.cast(), capacity })
    }

    /// How many elements there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first element.
    pub fn data(&self) -> NonNull<T> {
        self.data
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

impl<T: Pod> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
    }
}

impl<T: Pod> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements", self.capacity)
    }
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages(data: NonNull<u8>, size: usize) {
    // SAFETY: the range was just allocated. The call is advice: where it fails, pages are small.
    unsafe { libc::madvise(data.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: NonNull<u8>, _: usize) {}
