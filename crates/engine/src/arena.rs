//! The arena that arrays lie in: what is freed joins what is free beside it and is handed out again, so that a training
//! step in its stride asks the system for nothing, and no room is lost to the sizes that earlier arrays had.

use std::any::Any;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;

use crate::memory::{CACHE_LINE, Memory};

/// Bytes, or multiples of them, that the system is asked for at once. On Linux they are addresses: pages come when they are
/// first written.
const REGION: usize = 1 << 30;

/// What takes fewer bytes fills the smallest gap, from whatever side.
const SMALL: usize = 1 << 16;

/// Memory of a device.
#[derive(Debug, Default)]
pub struct Arena(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By number; one that was given up leaves its number free.
    regions: Vec<Option<Memory<u8>>>,
    /// How many bytes are free from each place on; no two of them adjoin.
    free: BTreeMap<Place, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    region: usize,
    offset: usize,
}

/// From which side memory is taken.
///
/// Gradients of weights come while activations go, and stay longer. Activations are taken from the beginning of the smallest
/// place that they fit in; gradients, unless they are small, from the end of the last one between others, so that what they leave
/// adjoins what goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Begin,
    End,
}

impl Arena {
    /// Memory of that many bytes with unspecified (but initialised) contents.
    ///
    /// # Panics
    /// If the system has no more.
    fn take(&self, bytes: usize, side: Side) -> (Place, NonNull<u8>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = if side == Side::End && bytes >= SMALL { state.last_fit(bytes) } else { None };
        let free = last.or_else(|| state.best_fit(bytes)).unwrap_or_else(|| state.extend(bytes));
        let left = state.free.remove(&free).unwrap_or(bytes) - bytes;
        let (place, rest) = match side {
            Side::End if !state.ends_region(free, bytes + left) => (Place { offset: free.offset + left, ..free }, free),
            _ => (free, Place { offset: free.offset + bytes, ..free }),
        };
        if left > 0 {
            state.free.insert(rest, left);
        }
        // SAFETY: places lie in their regions.
        (place, unsafe { state.region(place).data().add(place.offset) })
    }

    fn give_back(&self, place: Place, bytes: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut begin, mut end) = (place.offset, place.offset + bytes);
        if let Some((&after, &bytes)) = state.free.range(place..).next()
            && after == (Place { offset: end, ..place })
        {
            end += bytes;
            state.free.remove(&after);
        }
        if let Some((&before, &bytes)) = state.free.range(..place).next_back()
            && (Place { offset: before.offset + bytes, ..before }) == place
        {
            begin = before.offset;
        }
        state.free.insert(Place { offset: begin, ..place }, end - begin);
    }
}

impl State {
    /// The smallest free place that is large enough, of several the first.
    fn best_fit(&self, bytes: usize) -> Option<Place> {
        let fits = self.free.iter().filter(|&(_, &free)| free >= bytes);
        fits.min_by_key(|&(_, &free)| free).map(|(&place, _)| place)
    }

    /// The last free place that is large enough and has something behind it.
    fn last_fit(&self, bytes: usize) -> Option<Place> {
        let fits = |&(&place, &free): &(&Place, &usize)| free >= bytes && !self.ends_region(place, free);
        self.free.iter().rev().find(fits).map(|(&place, _)| place)
    }

    /// Whether a free place goes to the end of a region, where there may be no pages yet.
    fn ends_region(&self, place: Place, bytes: usize) -> bool {
        place.offset + bytes == self.region(place).capacity()
    }

    fn region(&self, place: Place) -> &Memory<u8> {
        self.regions[place.region].as_ref().expect("a region is kept as long as anything lies in it")
    }

    /// The beginning of a new region, which holds at least so many bytes. Regions in which nothing lies are given up for it.
    fn extend(&mut self, bytes: usize) -> Place {
        for (region, memory) in self.regions.iter_mut().enumerate() {
            let whole = Place { region, offset: 0 };
            if memory.as_ref().is_some_and(|memory| self.free.get(&whole) == Some(&memory.capacity())) {
                self.free.remove(&whole);
                *memory = None;
            }
        }
        let mut size = bytes.checked_next_multiple_of(REGION).unwrap_or(bytes);
        let memory = loop {
            match Memory::try_new(size) {
                Some(memory) => break memory,
                // Where addresses are scarce, as few as it takes.
                None if size > bytes => size = bytes.max(size / 2),
                None => panic!("the system has no {bytes} bytes more of memory"),
            }
        };
        let region = self.regions.iter().position(Option::is_none).unwrap_or(self.regions.len());
        let place = Place { region, offset: 0 };
        self.free.insert(place, memory.capacity());
        if region == self.regions.len() {
            self.regions.push(None);
        }
        self.regions[region] = Some(memory);
        place
    }
}

/// Elements that lie in an arena until they are dropped.
#[derive(Debug)]
pub struct Buffer<T: Pod> {
    data: NonNull<T>,
    len: usize,
    place: Place,
    arena: Arc<Arena>,
    derived: Mutex<Option<Derived>>,
}

// SAFETY: a buffer owns its elements, which are plain numbers.
unsafe impl<T: Pod + Send> Send for Buffer<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Pod + Sync> Sync for Buffer<T> {}

/// What was made of a buffer's contents, as long as they stay.
#[derive(Clone, Debug)]
struct Derived {
    /// The shape that they were taken to have.
    shape: Vec<usize>,
    value: Arc<dyn Any + Send + Sync>,
}

/// What so many elements take of an arena: whole cache lines.
fn bytes_of<T>(len: usize) -> usize {
    len.checked_mul(size_of::<T>())
        .and_then(|bytes| bytes.max(1).checked_next_multiple_of(CACHE_LINE))
        .unwrap_or_else(|| panic!("no address space holds {len} elements"))
}

impl<T: Pod> Buffer<T> {
    pub fn new(arena: &Arc<Arena>, len: usize) -> Self {
        Buffer::at(arena, len, Side::Begin)
    }

    /// A buffer that is to outlast others.
    pub fn lasting(arena: &Arc<Arena>, len: usize) -> Self {
        Buffer::at(arena, len, Side::End)
    }

    fn at(arena: &Arc<Arena>, len: usize, side: Side) -> Self {
        let (place, data) = arena.take(bytes_of::<T>(len), side);
        Buffer { data: data.cast(), len, place, arena: arena.clone(), derived: Mutex::default() }
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the buffer has that many elements, which are initialised (zeros at first), in a region that its arena keeps.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        *self.derived.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        // SAFETY: as above, and nobody else has them.
        unsafe { slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }

    /// What `make` makes of the contents in that shape. If it is to be kept, it is made once, until they change; else what was
    /// kept is given up.
    pub fn derived<D: Any + Send + Sync>(&self, shape: &[usize], keep: bool, make: impl FnOnce() -> D) -> Arc<D> {
        if let Some(kept) = self.kept(shape).filter(|_| keep) {
            return kept;
        }
        // Not locked meanwhile: a thread that waits for others to help it may be given work that wants the same.
        let made = Arc::new(make());
        let derived = keep.then(|| Derived { shape: shape.to_vec(), value: made.clone() });
        *self.derived.lock().unwrap_or_else(PoisonError::into_inner) = derived;
        made
    }

    /// What was made of the contents in that shape and kept, if that is a `D`.
    pub fn kept<D: Any + Send + Sync>(&self, shape: &[usize]) -> Option<Arc<D>> {
        let kept = self.derived.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.filter(|kept| kept.shape == shape)?.value.downcast().ok()
    }
}

impl<T: Pod> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut copy = Buffer::new(&self.arena, self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl<T: Pod> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.arena.give_back(self.place, bytes_of::<T>(self.len));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buffers_that_were_side_by_side_make_room_for_one_of_their_size_together() {
        let arena = Arc::default();
        let buffers = [1000, 40, 3000].map(|len| Buffer::<f32>::new(&arena, len));
        let [first, second, third] = &buffers;
        let begin = first.as_slice().as_ptr();
        assert!(begin < second.as_slice().as_ptr() && second.as_slice().as_ptr() < third.as_slice().as_ptr());
        drop(buffers);
        let together = Buffer::<u16>::new(&arena, 8000);
        assert_eq!(together.as_slice().as_ptr(), begin.cast());
        let next = Buffer::<f32>::new(&arena, 40);
        drop(together);
        assert_eq!(Buffer::<u32>::new(&arena, 1).as_slice().as_ptr(), begin.cast());
        assert_ne!(next.as_slice().as_ptr(), begin);
    }

    #[test]
    fn what_lasts_lies_at_the_end_of_what_is_free_between_others() {
        let arena = Arc::default();
        let [first, freed, third] = [1000, 1600, 1000].map(|len| Buffer::<f32>::new(&arena, len));
        let end = third.as_slice().as_ptr();
        drop(freed);
        let lasting = Buffer::<f32>::lasting(&arena, 160);
        assert_eq!(lasting.as_slice().as_ptr_range().end, end);
        let brief = Buffer::<f32>::new(&arena, 1440);
        assert_eq!(brief.as_slice().as_ptr_range().end, lasting.as_slice().as_ptr());
        // What is free behind all others has never been written to.
        let behind = Buffer::<f32>::lasting(&arena, 1000);
        assert_eq!(behind.as_slice().as_ptr().addr() - third.as_slice().as_ptr().addr(), bytes_of::<f32>(1000));
        drop((first, third));
    }

    #[test]
    fn what_lasts_and_is_not_small_lies_at_the_end_of_the_last_place_between_others() {
        let arena = Arc::default();
        // Free are, by number: 1, the smallest that fits; 3; 5, too small; and what is behind all.
        let buffer = |parts: usize| Buffer::<f32>::new(&arena, parts * SMALL / 4);
        let mut all = [1, 3, 1, 4, 1, 2, 1].map(|parts| Some(buffer(parts)));
        let begin = |buffer: &Option<Buffer<f32>>| buffer.as_ref().map(|buffer| buffer.as_slice().as_ptr());
        let (first, after_third) = (begin(&all[1]), begin(&all[4]));
        for number in [1, 3, 5] {
            all[number] = None;
        }
        let lasting = Buffer::<f32>::lasting(&arena, 3 * SMALL / 4);
        assert_eq!(Some(lasting.as_slice().as_ptr_range().end), after_third);
        assert_eq!(begin(&Some(buffer(3))), first);
    }

    #[test]
    fn what_is_larger_than_a_region_has_one_of_whole_regions_and_what_is_empty_is_given_up() {
        let arena = Arc::<Arena>::default();
        let free = || arena.0.lock().unwrap().free.values().copied().collect::<Vec<usize>>();
        let small = Buffer::<f32>::new(&arena, 1);
        let mut large = Buffer::<f32>::new(&arena, REGION / 4 + 1);
        *large.as_mut_slice().last_mut().unwrap() = 1.0;
        assert_eq!(large.as_slice().first(), Some(&0.0));
        drop(large);
        assert_eq!(free(), [REGION - CACHE_LINE, 2 * REGION]);
        let larger = Buffer::<f32>::new(&arena, REGION / 2 + 1);
        assert_eq!(free(), [REGION - CACHE_LINE, REGION - CACHE_LINE]);
        drop((small, larger));
        assert_eq!(free(), [REGION, 3 * REGION]);
    }

    proptest! {
        #[test]
        fn buffers_never_share_memory_and_leave_it_in_one_piece(
            steps in prop::collection::vec((0..60_000_usize, any::<prop::sample::Index>(), any::<[bool; 2]>()), 1..60),
        ) {
            let arena = Arc::default();
            let mut buffers: Vec<(u32, Buffer<u32>)> = Vec::new();
            for (number, (len, which, [drops, lasts])) in (0..).zip(steps) {
                if drops && !buffers.is_empty() {
                    buffers.swap_remove(which.index(buffers.len()));
                }
                let mut buffer = if lasts { Buffer::lasting(&arena, len) } else { Buffer::new(&arena, len) };
                buffer.as_mut_slice().fill(number);
                prop_assert!(buffer.as_slice().as_ptr().cast::<u8>().align_offset(CACHE_LINE) == 0);
                buffers.push((number, buffer));
                for (number, buffer) in &buffers {
                    prop_assert!(buffer.as_slice().iter().all(|x| x == number));
                }
            }
            buffers.clear();
            let state = arena.0.lock().unwrap();
            prop_assert_eq!(state.free.values().collect::<Vec<_>>(), [&REGION]);
        }
    }

    #[test]
    fn what_is_made_of_a_buffer_is_made_once_until_the_buffer_changes() {
        let mut buffer = Buffer::<f32>::new(&Arc::default(), 1);
        buffer.as_mut_slice()[0] = 1.0;
        let first = buffer.derived(&[1], true, || buffer.as_slice()[0]);
        assert!(Arc::ptr_eq(&first, &buffer.derived(&[1], true, || 0.0)));
        assert_eq!(
            (buffer.kept(&[1]), buffer.kept::<f32>(&[1, 1]), buffer.kept::<u8>(&[1])),
            (Some(first), None, None)
        );
        assert_eq!(*buffer.derived(&[1], true, || "of another type"), "of another type");
        buffer.as_mut_slice()[0] = 2.0;
        assert_eq!(buffer.kept::<&str>(&[1]), None);
        assert_eq!(*buffer.derived(&[1], true, || buffer.as_slice()[0]), 2.0);
        assert_eq!(*buffer.derived(&[1, 1], true, || 2.5_f32), 2.5);
        assert_eq!(*buffer.derived(&[1], false, || 3.0_f32), 3.0);
        assert_eq!(*buffer.derived(&[1], true, || 4.0_f32), 4.0);
    }
}
