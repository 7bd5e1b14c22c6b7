//! Sentence pairs with a similarity: the STS benchmark (Cer et al. 2017) as TSV or CSV, plain or gzip.

use std::io::Read;
use std::path::Path;

use super::lines::open;
use super::{DataError, Location};

/// Two sentences and how alike people found them.
#[derive(Clone, Debug, PartialEq)]
pub struct SentencePair {
    /// The first.
    pub first: String,
    /// The second.
    pub second: String,
    /// The gold score; 0 to 5 in the benchmark.
    pub score: f64,
}

/// Where score and sentences stand in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    score: usize,
    first: usize,
    second: usize,
}

/// The benchmark's own files: genre, file, year, number, score, two sentences, perhaps sources.
const ORIGINAL: Columns = Columns { score: 4, first: 5, second: 6 };

/// Reads the pairs of a file. A header may name `score`, `sentence1` and `sentence2` in any order; without one a row is
/// two sentences with a number before or after them, or as the benchmark's own files have it. Of TSV a quotation mark is a letter.
///
/// # Errors
/// Where the file cannot be read, or a row has no two sentences and a score; with its line.
pub fn sentence_pairs(path: &Path) -> Result<Vec<SentencePair>, DataError> {
    let content = open(path)?;
    let mut text = Vec::new();
    let mut reader = content.reader;
    reader.read_to_end(&mut text).map_err(|source| match source.kind() {
        std::io::ErrorKind::UnexpectedEof if content.gzip => {
            DataError::Truncated { path: path.into(), row: text.iter().filter(|&&byte| byte == b'\n').count() as u64 }
        }
        _ => DataError::Read { path: path.into(), source },
    })?;
    parse(&text).map_err(|(line, why)| DataError::Row { at: Location { file: path.into(), line }, why })
}

/// The pairs of a file's content; else the line that is wrong, and why.
pub(super) fn parse(text: &[u8]) -> Result<Vec<SentencePair>, (u64, String)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let first_line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut rows = Rows::default();
    if first_line.contains(&b'\t') {
        for (line, row) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            let row = row.strip_suffix(b"\r").unwrap_or(row);
            if !row.trim_ascii().is_empty() {
                rows.take(row.split(|&byte| byte == b'\t')).map_err(|why| (line, why))?;
            }
        }
        return Ok(rows.pairs);
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let mut row = csv::ByteRecord::new();
    let line = |position: Option<&csv::Position>| position.map_or(0, csv::Position::line);
    while reader.read_byte_record(&mut row).map_err(|error| (line(error.position()), error.to_string()))? {
        rows.take(row.iter()).map_err(|why| (line(row.position()), why))?;
    }
    Ok(rows.pairs)
}

/// The rows of a file, as far as they were read.
#[derive(Default)]
struct Rows {
    /// Known from the first row on.
    columns: Option<Columns>,
    pairs: Vec<SentencePair>,
}

impl Rows {
    fn take<'a>(&mut self, fields: impl Iterator<Item = &'a [u8]>) -> Result<(), String> {
        let fields: Result<Vec<&str>, _> = fields.map(std::str::from_utf8).collect();
        let fields = fields.map_err(|_| "it is not UTF-8".to_owned())?;
        let columns = match self.columns {
            Some(columns) => columns,
            None => {
                if let Some(named) = named_columns(&fields) {
                    self.columns = Some(named);
                    return Ok(());
                }
                *self.columns.insert(unnamed_columns(&fields)?)
            }
        };
        self.pairs.push(pair(&fields, columns)?);
        Ok(())
    }
}

fn named_columns(header: &[&str]) -> Option<Columns> {
    let place = |names: &[&str]| header.iter().position(|name| names.contains(&name.trim().to_lowercase().as_str()));
    Some(Columns {
        score: place(&["score", "similarity_score", "similarity", "label"])?,
        first: place(&["sentence1", "sentence_1", "sent1", "text1"])?,
        second: place(&["sentence2", "sentence_2", "sent2", "text2"])?,
    })
}

fn unnamed_columns(row: &[&str]) -> Result<Columns, String> {
    let is_number = |text: &str| text.trim().parse::<f64>().is_ok();
    match row {
        [first, second, third] => match [first, second, third].map(|text| is_number(text)) {
            [true, _, false] => Ok(Columns { score: 0, first: 1, second: 2 }),
            [false, _, true] => Ok(Columns { score: 2, first: 0, second: 1 }),
            _ => Err("of its three columns neither the first nor the last alone is a number".into()),
        },
        row if row.len() > ORIGINAL.second && is_number(row[ORIGINAL.score]) => Ok(ORIGINAL),
        row => Err(format!(
            "it has {} columns and no header; score, sentence1 and sentence2 are needed, with tabs or commas between",
            row.len()
        )),
    }
}

fn pair(row: &[&str], columns: Columns) -> Result<SentencePair, String> {
    let Columns { score, first, second } = columns;
    let field = |place: usize| match row.get(place) {
        Some(text) if !text.trim().is_empty() => Ok(text.trim()),
        Some(_) => Err(format!("column {} is empty", place + 1)),
        None => Err(format!("it has {} columns, and column {} is needed", row.len(), place + 1)),
    };
    let (first, second, score) = (field(first)?, field(second)?, field(score)?);
    let number = score.parse::<f64>().ok().filter(|score| score.is_finite());
    let number = number.ok_or_else(|| format!("its score '{score}' is not a number"))?;
    Ok(SentencePair { first: first.into(), second: second.into(), score: number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(f64, String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().map(|pair| (pair.score, pair.first, pair.second)).collect()
    }

    #[test]
    fn every_layout_gives_the_same_pairs() {
        let expected = [(4.5, "A \"man\", alone".to_owned(), "A man".to_owned()), (0.0, "x".into(), "y".into())];
        for text in [
            "score\tsentence1\tsentence2\n4.5\tA \"man\", alone\tA man\n0\tx\ty\n",
            "\u{feff}sentence2\tscore\tsentence1\r\nA man\t4.500\tA \"man\", alone\r\ny\t0\tx\r\n",
            "4.5\tA \"man\", alone\tA man\n\n0\tx\ty",
            "A \"man\", alone\tA man\t4.5\nx\ty\t0\n",
            "sentence1,sentence2,score\n\"A \"\"man\"\", alone\",A man,4.5\nx,y,0.0\n",
            "\"A \"\"man\"\", alone\",A man,4.5\nx,y,0.0\n",
            "main-captions\tMSRvid\t2012test\t0001\t4.5\tA \"man\", alone\tA man\nmain-news\tx\t2\t3\t0\tx\ty\tsource\n",
        ] {
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [
            ("score\tsentence1\tsentence2\n1\tx\ty\nhigh\tx\ty\n", 3, "'high' is not a number"),
            ("1\tx\ty\n2\tx\n", 2, "it has 2 columns"),
            ("1\tx\ty\nNaN\tx\ty\n", 2, "'NaN' is not a number"),
            ("1\tx\ty\n2\t \ty\n", 2, "column 2 is empty"),
            ("1\tx\ty\r\n\r\n\r\n2\tx\r\n", 4, "it has 2 columns"),
            ("1\ta\rb\ty\n2\tx\n", 2, "it has 2 columns"),
            ("x\ty\tz\n", 1, "of its three columns"),
            ("a line of prose\n", 1, "no header"),
        ] {
            let (found, why) = parse(text.as_bytes()).unwrap_err();
            assert!(found == line && why.contains(part), "{text:?}: {found}: {why}");
        }
        assert_eq!(parse(b"1\tx\ty\n2\tx\t\xff\n"), Err((2, "it is not UTF-8".into())));
    }
}
