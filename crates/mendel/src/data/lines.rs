//! Plain and gzip files, and their lines as bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::DataError;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const LONGEST_LINE: usize = 64 << 20;

/// One line that is not white space.
pub(super) struct Line {
    /// From 1, counting every line of the file.
    pub number: u64,
    /// Without the line end and white space around; `None` where it is longer than 64 MiB.
    pub bytes: Option<Vec<u8>>,
}

/// A file's content.
pub(super) struct Content {
    /// Unpacked where the file starts as gzip does.
    pub reader: Box<dyn BufRead>,
    /// Whether it does.
    pub gzip: bool,
}

/// Opens a plain or gzip file.
pub(super) fn open(path: &Path) -> Result<Content, DataError> {
    let read_error = |source| DataError::Read { path: path.to_path_buf(), source };
    let file = BufReader::with_capacity(1 << 18, File::open(path).map_err(read_error)?);
    let (reader, gzip) = unpacked(file).map_err(read_error)?;
    Ok(Content { reader, gzip })
}

/// What a reader gives, unpacked where it starts as gzip does, and whether it does.
pub(crate) fn unpacked<'a>(mut input: impl BufRead + 'a) -> io::Result<(Box<dyn BufRead + 'a>, bool)> {
    let gzip = input.fill_buf()?.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn BufRead + 'a> =
        if gzip { Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(input))) } else { Box::new(input) };
    Ok((reader, gzip))
}

/// Reads a file line by line.
pub(super) struct Lines {
    path: PathBuf,
    content: Content,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Lines { path: path.to_path_buf(), content: open(path)?, number: 0 })
    }

    /// The next line that is not white space.
    pub(super) fn next(&mut self) -> Result<Option<Line>, DataError> {
        loop {
            let mut bytes = Vec::new();
            let read =
                read_line(&mut self.content.reader, &mut bytes, LONGEST_LINE).map_err(|source| self.error(source))?;
            let Some(whole) = read else { return Ok(None) };
            self.number += 1;
            let number = self.number;
            if !whole {
                return Ok(Some(Line { number, bytes: None }));
            }
            let start = if number == 1 && bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
            if !bytes[start..].trim_ascii().is_empty() {
                bytes.drain(..start);
                return Ok(Some(Line { number, bytes: Some(bytes) }));
            }
        }
    }

    fn error(&self, source: io::Error) -> DataError {
        let path = self.path.clone();
        if self.content.gzip && source.kind() == io::ErrorKind::UnexpectedEof {
            DataError::Truncated { path, row: self.number }
        } else {
            DataError::Read { path, source }
        }
    }
}

/// Reads up to a line end, which is left out. `None` at the end of the file; false where the line is longer than
/// `longest` bytes, which is then passed over without being held.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>, longest: usize) -> io::Result<Option<bool>> {
    let read = reader.take(longest as u64 + 1).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        return Ok(Some(true));
    }
    if read <= longest {
        return Ok(Some(true));
    }
    line.clear();
    reader.skip_until(b'\n')?;
    Ok(Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_the_next_one_is_read() {
        let mut reader: &[u8] = b"0123456789\nabc\r\nxyz";
        let mut read = || {
            let mut line = Vec::new();
            let whole = read_line(&mut reader, &mut line, 5).unwrap();
            (whole, String::from_utf8(line).unwrap())
        };
        assert_eq!(read(), (Some(false), String::new()));
        assert_eq!(read(), (Some(true), "abc".into()));
        assert_eq!(read(), (Some(true), "xyz".into()));
        assert_eq!(read(), (None, String::new()));
    }
}
