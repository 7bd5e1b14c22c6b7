//! MS MARCO's official files: one JSON object of columns, each an object from a row's key to its value. They are
//! read as a stream: of the text only the queries are ever held, because a file has them after the passages.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::format::EachRow;
use super::lines::open;
use super::msmarco::Row;
use super::{DataError, RefusedReason};

const QUERY: &str = "query";
const PASSAGES: &str = "passages";
/// Fields of a row's `passages`, which is an object in a file of rows too.
const OF_A_ROW: [&str; 3] = ["is_selected", "passage_text", "url"];

/// So much of a file is enough to see whether its first field is a column.
const BEGINNING: u64 = 1 << 20;

/// Whether a file is an object of columns.
pub(super) fn is_columns(path: &Path) -> Result<bool, DataError> {
    let text = open(path)?;
    let mut shape = Shape::Other;
    let mut json = serde_json::Deserializer::from_reader(text.reader.take(BEGINNING));
    // An error after the shape is known is of no interest, and before it the file is not columns.
    let _ = json.deserialize_any(FirstField(&mut shape));
    Ok(shape == Shape::Columns)
}

/// Reads the pairs in the order of the passages. Rows count from 1.
pub(super) fn read(path: &Path, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let mut queries = HashMap::new();
    let has_queries = for_each_value(path, QUERY, &mut |key, query| {
        queries.insert(key, query);
        Ok(())
    })?;
    let mut row = 0;
    let has_passages = for_each_value(path, PASSAGES, &mut |key, passages| {
        row += 1;
        let query = queries.remove(&key).unwrap_or_default();
        let fields = serde_json::Map::from_iter([(QUERY.to_owned(), query), (PASSAGES.to_owned(), passages)]);
        let parsed = serde_json::from_value::<Row>(Value::Object(fields)).map_err(|_| RefusedReason::WrongType);
        each(row, parsed.and_then(Row::pair))
    })?;
    if has_queries && has_passages {
        return Ok(());
    }
    let missing = if has_queries { PASSAGES } else { QUERY };
    Err(DataError::UnknownFormat { path: path.into(), why: format!("it is column-oriented JSON without {missing}") })
}

/// Takes a value of a column with its row's key.
type EachValue<'a> = dyn FnMut(String, Value) -> Result<(), DataError> + 'a;

/// Calls `each` with every value of a column; false where the file has no such column.
fn for_each_value(path: &Path, column: &str, each: &mut EachValue<'_>) -> Result<bool, DataError> {
    let text = open(path)?;
    let mut place = Place::default();
    let visitor = Columns { wanted: column, each, place: &mut place };
    let mut json = serde_json::Deserializer::from_reader(text.reader);
    let read = visitor.deserialize(&mut json).and_then(|()| json.end());
    let Err(error) = read else { return Ok(place.found) };
    if let Some(stopped) = place.stopped {
        return Err(stopped);
    }
    let path = path.to_path_buf();
    Err(match error.io_error_kind() {
        Some(io::ErrorKind::UnexpectedEof) if text.gzip => DataError::Truncated { path, row: place.row },
        Some(_) => DataError::Read { path, source: error.into() },
        None => DataError::BrokenColumns { path, row: place.row + 1, column: place.column, why: error.to_string() },
    })
}

/// How far reading has come.
#[derive(Default)]
struct Place {
    /// The column that is being read.
    column: String,
    /// Its rows that were read whole.
    row: u64,
    /// Whether the wanted column was seen.
    found: bool,
    /// What the taker of values failed with.
    stopped: Option<DataError>,
}

/// Looks for one column among the fields of the outer object.
struct Columns<'a, 'b> {
    wanted: &'a str,
    each: &'a mut EachValue<'b>,
    place: &'a mut Place,
}

impl<'de> DeserializeSeed<'de> for Columns<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Columns<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of columns")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Columns { wanted, each, place } = self;
        while let Some(column) = map.next_key::<String>()? {
            let is_wanted = column == wanted;
            place.found |= is_wanted;
            (place.column, place.row) = (column, 0);
            map.next_value_seed(Column { each: is_wanted.then_some(&mut *each), place: &mut *place })?;
        }
        Ok(())
    }
}

/// A column's values by their rows' keys; passed over where nobody takes them.
struct Column<'a, 'b> {
    each: Option<&'a mut EachValue<'b>>,
    place: &'a mut Place,
}

impl<'de> DeserializeSeed<'de> for Column<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Column<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column: an object from a row's key to its value")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match &mut self.each {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(each) => {
                    if let Err(error) = each(key, map.next_value()?) {
                        self.place.stopped = Some(error);
                        return Err(M::Error::custom("stopped"));
                    }
                }
            }
            self.place.row += 1;
        }
        Ok(())
    }
}

#[derive(PartialEq)]
enum Shape {
    Columns,
    Other,
}

/// What the first field of an object is.
struct FirstField<'a>(&'a mut Shape);

impl<'de> Visitor<'de> for FirstField<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        if map.next_key::<String>()?.is_some() {
            map.next_value_seed(FirstKey(self.0))?;
        }
        Ok(())
    }
}

/// The first key of a field that is an object.
struct FirstKey<'a>(&'a mut Shape);

impl<'de> DeserializeSeed<'de> for FirstKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FirstKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let first = map.next_key::<String>()?;
        if !first.is_some_and(|key| OF_A_ROW.contains(&key.as_str())) {
            *self.0 = Shape::Columns;
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, _: S) -> Result<(), S::Error> {
        Ok(())
    }
}
