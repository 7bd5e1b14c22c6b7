//! Copies from the host that nobody waits for: through page-locked memory, which the device reads at its own time.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdeviceptr, CUevent, CUstream};

use super::error::{Calling, CudaResult};

/// Page-locked memory comes in pieces of this size; larger copies go piece by piece.
const PIECE: usize = 4 << 20;

/// Pieces of page-locked memory, each with the mark behind the copy that reads it.
#[derive(Debug, Default)]
pub struct Staging(Mutex<Vec<Piece>>);

#[derive(Debug)]
struct Piece {
    memory: *mut u8,
    /// Where the next copy is laid.
    used: usize,
    event: CUevent,
}

// SAFETY: page-locked memory and events may be used from any thread.
unsafe impl Send for Piece {}

impl Staging {
    /// Puts a copy of `bytes` into the stream.
    pub fn upload(&self, bytes: &[u8], to: CUdeviceptr, stream: CUstream) -> CudaResult<()> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, part) in bytes.chunks(PIECE).enumerate() {
            let piece = free_piece(&mut pieces, part.len())?;
            // SAFETY: the piece has room for the part behind what is used, and no copy reads there.
            unsafe {
                let memory = piece.memory.add(piece.used);
                std::ptr::copy_nonoverlapping(part.as_ptr(), memory, part.len());
                let staged = std::slice::from_raw_parts(memory, part.len());
                result::memcpy_htod_async(to + (index * PIECE) as u64, staged, stream).calling("cuMemcpyHtoDAsync")?;
                result::event::record(piece.event, stream).calling("cuEventRecord")?;
            }
            piece.used += part.len().next_multiple_of(64);
        }
        Ok(())
    }

    /// Gives the memory back to the driver.
    ///
    /// # Safety
    /// No copy may be under way.
    pub unsafe fn release(&self) {
        for piece in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: by the contract nothing reads the piece.
            unsafe {
                let _ = result::free_host(piece.memory.cast());
                let _ = result::event::destroy(piece.event);
            }
        }
    }
}

/// A piece with room for so many bytes: one that is not full, one whose copies are done, or a new one.
fn free_piece(pieces: &mut Vec<Piece>, bytes: usize) -> CudaResult<&mut Piece> {
    let room = pieces.iter().position(|piece| piece.used + bytes <= PIECE);
    // SAFETY: the events are alive.
    let found = room.or_else(|| pieces.iter().position(|piece| unsafe { result::event::query(piece.event) }.is_ok()));
    let index = match found {
        Some(index) => index,
        None => {
            // SAFETY: plain allocations, given back in `release`.
            let memory = unsafe { result::malloc_host(PIECE, 0) }.calling("cuMemHostAlloc")?;
            let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).calling("cuEventCreate")?;
            pieces.push(Piece { memory: memory.cast(), used: 0, event });
            pieces.len() - 1
        }
    };
    let piece = &mut pieces[index];
    if piece.used + bytes > PIECE {
        piece.used = 0;
    }
    Ok(piece)
}
