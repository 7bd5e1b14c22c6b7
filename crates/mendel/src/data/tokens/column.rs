//! A column of numbers, mapped from a file or in memory.

use std::io;
use std::ops::Deref;
use std::path::Path;

use bytemuck::{Pod, try_cast_slice};
use memmap2::Mmap;

use crate::files::mapped;

/// Numbers in a row.
#[derive(Debug)]
pub(super) enum Column<T> {
    /// A file's, in this machine's byte order.
    Mapped(Mmap),
    /// In memory.
    Owned(Vec<T>),
}

impl<T: Pod> Column<T> {
    /// Maps a file of exactly `bytes` bytes; an error where it is not.
    pub(super) fn map(path: &Path, bytes: u64) -> io::Result<Self> {
        let mapped = mapped(path)?;
        if mapped.len() as u64 != bytes || try_cast_slice::<u8, T>(&mapped).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has {} bytes, not {bytes}", mapped.len()),
            ));
        }
        Ok(Column::Mapped(mapped))
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            // Mapping has shown that it can be read so.
            Column::Mapped(bytes) => try_cast_slice(bytes).unwrap_or_default(),
            Column::Owned(numbers) => numbers,
        }
    }
}
