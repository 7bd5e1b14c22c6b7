//! TensorBoard's event files: records as TensorFlow frames them (`tensorflow/core/lib/io/record_writer.h`), each an
//! `Event` message (`tensorflow/core/util/event.proto`) of which the few fields that scalars need are encoded here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// TensorBoard takes every file with `tfevents` in its name.
const NAME: &str = "events.out.tfevents.0.mendel";
const VERSION: &str = "brain.Event:2";

/// Fields of `Event`, of `Summary`, and of its `Value`.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const VALUE: u64 = 1;
const TAG: u64 = 1;
const SIMPLE_VALUE: u64 = 2;

/// How protocol buffers mark what follows a field's number.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// An event file being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Where the event file in `folder` is.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// Begins one in `folder`, which is made if missing, in place of any that is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(folder: &Path, wall_time: f64) -> io::Result<EventFile> {
        fs::create_dir_all(folder)?;
        let mut events = EventFile { file: File::create(Self::path(folder))? };
        let mut event = Message::default();
        event.double(WALL_TIME, wall_time).bytes(FILE_VERSION, VERSION.as_bytes());
        events.record(&event.0)?;
        Ok(events)
    }

    /// Adds scalars of a step, at once, so that the file can be followed while the run works. `wall_time` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append<'a>(
        &mut self,
        wall_time: f64,
        step: u64,
        scalars: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let mut scalar = Message::default();
            scalar.bytes(TAG, tag.as_bytes()).float(SIMPLE_VALUE, value as f32);
            summary.bytes(VALUE, &scalar.0);
        }
        let mut event = Message::default();
        event.double(WALL_TIME, wall_time).varint(STEP, step).bytes(SUMMARY, &summary.0);
        self.record(&event.0)
    }

    /// Length, its checksum, the data, its checksum.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let [of_length, of_data] = [&length[..], data].map(|bytes| masked_checksum(bytes).to_le_bytes());
        self.file.write_all(&[&length[..], &of_length, data, &of_data].concat())
    }
}

/// A checksum of data that holds checksums is weak, hence the mask.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer's message being encoded.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn key(&mut self, field: u64, kind: u64) -> &mut Self {
        self.number(field << 3 | kind)
    }

    fn varint(&mut self, field: u64, value: u64) -> &mut Self {
        self.key(field, VARINT).number(value)
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.key(field, EIGHT_BYTES).0.extend(value.to_le_bytes());
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Self {
        self.key(field, FOUR_BYTES).0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.key(field, LENGTH_DELIMITED).number(value.len() as u64).0.extend(value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_tensorboards_own_writer() {
        // Made by benches/peers/tensorboard_events.py: a version record, then two scalars of step 300.
        let expected = include_bytes!("../../tests/fixtures/events.tfevents");
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 1.5).unwrap();
        events.append(2.5, 300, [("train/loss", 0.25), ("eval/mrr@10", -1.0)]).unwrap();
        assert_eq!(fs::read(EventFile::path(folder.path())).unwrap(), expected);
    }
}
