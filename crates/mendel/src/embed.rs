//! Texts in, embeddings out: the formats of `mendel embed`.

use std::io::{self, BufRead, Write};

use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::data::beir::titled;
use crate::data::lines::unpacked;
use crate::dual_encoder::Embeddings;

/// A text and, where the input has one, its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub id: Option<String>,
    /// The text.
    pub text: String,
}

/// Why texts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TextsError {
    /// The input could not be read, or is not UTF-8.
    #[error("cannot read line {line}: {source}")]
    Read {
        /// The line, from 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// A line of JSON that is no text.
    #[error("line {line} is no JSON object with a \"text\": {source}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A line without the second column that the first has.
    #[error("line {line} has no tab, but the first line has: give each line an id and a text, or none an id")]
    NoSecondColumn {
        /// The line, from 1.
        line: usize,
    },
}

#[derive(Deserialize)]
struct JsonText {
    #[serde(alias = "_id")]
    id: Option<Value>,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

/// How texts stand in lines; the first line decides.
#[derive(Clone, Copy)]
enum Lines {
    /// `{"id": …, "title": …, "text": …}`, the id optional and also called `_id`, the title optional.
    Json,
    /// An id, a tab, a text.
    Tsv,
    /// A text.
    Plain,
}

/// One text per line: JSON objects with `text`, `id<TAB>text`, or the text alone; plain or gzip. Empty lines are skipped.
/// With `with_title` the `title` of a JSON object stands before its text, as in a collection in BEIR's layout.
pub fn read_texts(input: impl BufRead, with_title: bool) -> Result<Vec<Named>, TextsError> {
    let (input, _) = unpacked(input).map_err(|source| TextsError::Read { line: 1, source })?;
    let mut texts = Vec::new();
    let mut kind = None;
    for (index, line) in input.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|source| TextsError::Read { line: number, source })?;
        if line.trim().is_empty() {
            continue;
        }
        let kind = *kind.get_or_insert_with(|| match () {
            () if line.trim_start().starts_with('{') => Lines::Json,
            () if line.contains('\t') => Lines::Tsv,
            () => Lines::Plain,
        });
        texts.push(read_line(kind, &line, number, with_title)?);
    }
    Ok(texts)
}

fn read_line(kind: Lines, line: &str, number: usize, with_title: bool) -> Result<Named, TextsError> {
    match kind {
        Lines::Plain => Ok(Named { id: None, text: line.to_owned() }),
        Lines::Tsv => {
            let (id, text) = line.split_once('\t').ok_or(TextsError::NoSecondColumn { line: number })?;
            Ok(Named { id: Some(id.to_owned()), text: text.to_owned() })
        }
        Lines::Json => {
            let JsonText { id, title, text } =
                serde_json::from_str(line).map_err(|source| TextsError::Json { line: number, source })?;
            let id = id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
            Ok(Named { id, text: titled(title.filter(|_| with_title), &text) })
        }
    }
}

/// NumPy's format 1.0: little-endian f32, `[texts, width]`, row by row.
pub fn npy(embeddings: &Embeddings) -> Vec<u8> {
    let (rows, width) = (embeddings.norms.len(), embeddings.width);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // Magic, version and length take 10 bytes; with the header's newline all of it is a multiple of 64.
    let padding = (10 + header.len() + 1).next_multiple_of(64) - (10 + header.len() + 1);
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(embeddings.vectors.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// A safetensors file with `embeddings` `[texts, width]`; the metadata's `ids` is a JSON list, `null` where a text has
/// none.
pub fn safetensors(embeddings: &Embeddings, texts: &[Named]) -> Vec<u8> {
    let bytes: Vec<u8> = embeddings.vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![embeddings.norms.len(), embeddings.width];
    let view = TensorView::new(Dtype::F32, shape, &bytes).expect("four bytes for each element of the shape");
    let ids: Vec<&Option<String>> = texts.iter().map(|text| &text.id).collect();
    let metadata = Some([("ids".to_owned(), json!(ids).to_string())].into());
    safetensors::serialize([("embeddings", view)], metadata).expect("serialising to memory cannot fail")
}

/// A JSON object per text: `id` where it has one, `embedding`.
pub fn jsonl(embeddings: &Embeddings, texts: &[Named], mut output: impl Write) -> io::Result<()> {
    for (text, vector) in texts.iter().zip(embeddings.vectors.chunks(embeddings.width)) {
        let line = match &text.id {
            Some(id) => json!({"id": id, "embedding": vector}),
            None => json!({"embedding": vector}),
        };
        writeln!(output, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: Option<&str>, text: &str) -> Named {
        Named { id: id.map(str::to_owned), text: text.into() }
    }

    #[test]
    fn the_first_line_says_how_texts_are_written() {
        let read = |text: &str| read_texts(text.as_bytes(), true).unwrap();
        assert_eq!(read("one two\n\nthree\n"), [named(None, "one two"), named(None, "three")]);
        assert_eq!(read("a\tone\nb\ttwo\tmore\n"), [named(Some("a"), "one"), named(Some("b"), "two\tmore")]);
        let json = "{\"text\": \"x\", \"id\": 3}\n{\"_id\": \"q\", \"text\": \"y\", \"other\": []}";
        assert_eq!(read(json), [named(Some("3"), "x"), named(Some("q"), "y")]);
    }

    #[test]
    fn a_title_stands_before_the_text_where_it_is_wanted() {
        let row = br#"{"_id": "d1", "title": "Cranes", "text": "They lift."}"#.as_slice();
        assert_eq!(read_texts(row, true).unwrap(), [named(Some("d1"), "Cranes They lift.")]);
        assert_eq!(read_texts(row, false).unwrap(), [named(Some("d1"), "They lift.")]);
    }

    #[test]
    fn gzip_is_unpacked() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"one\ntwo\n").unwrap();
        let bytes = gzip.finish().unwrap();
        assert_eq!(read_texts(bytes.as_slice(), true).unwrap(), [named(None, "one"), named(None, "two")]);
    }

    #[test]
    fn a_line_that_does_not_fit_is_named() {
        let error = |text: &[u8]| read_texts(text, true).unwrap_err().to_string();
        assert!(error(b"{\"text\": \"x\"}\n{\"txt\": 1}").contains("line 2"));
        assert!(error(b"a\tb\nc\n").contains("line 2 has no tab"));
        assert!(error(b"ok\n\xFF\n").contains("line 2"));
    }

    #[test]
    fn npy_has_numpys_header() {
        let embeddings = Embeddings { vectors: vec![1.0, 2.0], norms: vec![3.0], width: 2 };
        let bytes = npy(&embeddings);
        let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        assert!(header.is_multiple_of(64) && bytes.starts_with(b"\x93NUMPY\x01\x00"));
        assert!(bytes[10..].starts_with(b"{'descr': '<f4'"));
        assert_eq!(&bytes[header..], [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    }
}
