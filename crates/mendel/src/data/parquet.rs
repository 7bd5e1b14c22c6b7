//! Rows of Parquet files: the Hub's shards of MS MARCO, and pairs.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::DataError;
use super::format::{EachRow, RowKind};

const MAGIC: &[u8] = b"PAR1";

/// Whether a file begins as Parquet does.
pub(super) fn is_parquet(path: &Path) -> Result<bool, DataError> {
    let read = || -> std::io::Result<bool> {
        let mut beginning = Vec::new();
        File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut beginning)?;
        Ok(beginning == MAGIC)
    };
    read().map_err(|source| DataError::Read { path: path.into(), source })
}

/// What a file's rows are, from the names of its columns.
pub(super) fn kind(path: &Path) -> Result<RowKind, DataError> {
    let reader = open(path)?;
    let columns: Vec<&str> = root(&reader).get_fields().iter().map(|column| column.name()).collect();
    RowKind::of_fields(&columns).ok_or_else(|| DataError::UnknownFormat {
        path: path.into(),
        why: format!("its columns are {}", columns.join(", ")),
    })
}

/// Reads a file's rows, which count from 1. Only the columns that `kind` needs are unpacked.
pub(super) fn read(path: &Path, kind: RowKind, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let reader = open(path)?;
    let root = root(&reader);
    let wanted = root.get_fields().iter().filter(|column| kind.fields().contains(&column.name()));
    let projection = Type::group_type_builder(root.name()).with_fields(wanted.cloned().collect()).build();
    let mut number = 0;
    let mut rows = unshaken(|| projection.and_then(|projection| reader.get_row_iter(Some(projection))))
        .map_err(|why| damaged(path, number, why))?;
    while let Some(row) = unshaken(|| rows.next().transpose()).map_err(|why| damaged(path, number + 1, why))? {
        number += 1;
        each(number, kind.pair(object(row.into_columns())))?;
    }
    Ok(())
}

thread_local! {
    /// Whether this thread is in the crate that reads Parquet.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and becomes an error: the crate that reads Parquet panics at some damaged
/// files. A panic hook may keep silent about it.
pub fn panic_becomes_error() -> bool {
    READING.get()
}

/// What the crate gives, a panic being an error like others.
fn unshaken<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    READING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its parts contradict each other".into()),
    }
}

fn open(path: &Path) -> Result<SerializedFileReader<File>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read { path: path.into(), source })?;
    unshaken(|| SerializedFileReader::new(file)).map_err(|why| damaged(path, 0, why))
}

fn root(reader: &SerializedFileReader<File>) -> &Type {
    reader.metadata().file_metadata().schema()
}

fn damaged(path: &Path, row: u64, why: String) -> DataError {
    DataError::DamagedParquet { path: path.into(), row, why }
}

fn object(columns: Vec<(String, Field)>) -> Value {
    columns.into_iter().map(|(name, field)| (name, value(field))).collect::<Map<_, _>>().into()
}

/// A field as JSON; null for kinds that no row of ours has.
fn value(field: Field) -> Value {
    match field {
        Field::Str(text) => text.into(),
        Field::Group(row) => object(row.into_columns()),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect::<Vec<_>>().into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        _ => Value::Null,
    }
}
