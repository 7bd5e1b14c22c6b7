//! MS MARCO v2.1 as the Hub has it: Parquet with the schema that `datasets` writes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

const SCHEMA: &str = "message schema {
    optional group answers (LIST) { repeated group list { optional binary element (STRING); } }
    optional group passages {
        optional group is_selected (LIST) { repeated group list { optional int32 element; } }
        optional group passage_text (LIST) { repeated group list { optional binary element (STRING); } }
        optional group url (LIST) { repeated group list { optional binary element (STRING); } }
    }
    optional binary query (STRING);
    optional int32 query_id;
    optional binary query_type (STRING);
    optional group wellFormedAnswers (LIST) { repeated group list { optional binary element (STRING); } }
}";

/// Rows in a group; several groups make a file.
const ROWS_IN_A_GROUP: usize = 20;

/// A question and its passages with their labels.
#[derive(Clone, Debug)]
pub struct Row {
    pub query: String,
    pub passages: Vec<(i32, String)>,
}

/// Rows about buildings in towns: a selected passage each and one that is not.
pub fn rows(count: usize) -> Vec<Row> {
    let row = |i: usize| Row {
        query: format!("who built mill {i} of ash"),
        passages: vec![
            (0, format!("Mill {i} of Ash is old.")),
            (1, format!("Mill {i} of Ash was built by guild {i}.")),
        ],
    };
    (0..count).map(row).collect()
}

/// A row as JSON, with the fields of the Hub's.
pub fn json_row(row: &Row) -> Value {
    let labels: Vec<i32> = row.passages.iter().map(|(label, _)| *label).collect();
    let texts: Vec<&String> = row.passages.iter().map(|(_, text)| text).collect();
    json!({
        "answers": ["a guild"],
        "passages": {"is_selected": labels, "passage_text": texts, "url": vec![""; labels.len()]},
        "query": row.query, "query_id": 7, "query_type": "PERSON", "wellFormedAnswers": [],
    })
}

/// Rows in the official layout: an object for each column.
pub fn columns(rows: &[Row]) -> Value {
    let column = |value: &dyn Fn(&Row) -> Value| -> Value {
        rows.iter()
            .enumerate()
            .map(|(place, row)| (place.to_string(), value(row)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let passages = |row: &Row| -> Value {
        let passage = |(label, text): &(i32, String)| json!({"is_selected": label, "passage_text": text, "url": ""});
        row.passages.iter().map(passage).collect()
    };
    json!({
        "answers": column(&|_| json!(["a guild"])),
        "passages": column(&passages),
        "query": column(&|row| json!(row.query)),
        "query_id": column(&|_| json!(7)),
        "query_type": column(&|_| json!("PERSON")),
        "wellFormedAnswers": column(&|_| json!("[]")),
    })
}

/// Writes a shard.
pub fn write_parquet(path: &Path, rows: &[Row]) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in rows.chunks(ROWS_IN_A_GROUP) {
        let mut group = writer.next_row_group().unwrap();
        let texts = |row: &Row| row.passages.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        let columns = [
            Column::Texts(1, rows.iter().map(|_| vec!["a guild".to_owned()]).collect()),
            Column::Labels(rows.iter().map(|row| row.passages.iter().map(|(label, _)| *label).collect()).collect()),
            Column::Texts(2, rows.iter().map(texts).collect()),
            Column::Texts(2, rows.iter().map(|row| vec![String::new(); row.passages.len()]).collect()),
            Column::Text(rows.iter().map(|row| row.query.clone()).collect()),
            Column::Number(vec![7; rows.len()]),
            Column::Text(vec!["PERSON".into(); rows.len()]),
            Column::Texts(1, vec![Vec::new(); rows.len()]),
        ];
        for column in columns {
            let mut open = group.next_column().unwrap().unwrap();
            column.write(open.untyped());
            open.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A column's values, a list or one for each row.
enum Column {
    /// Lists of texts; how many groups deep the list stands.
    Texts(i16, Vec<Vec<String>>),
    /// Lists of numbers, two groups deep.
    Labels(Vec<Vec<i32>>),
    Text(Vec<String>),
    Number(Vec<i32>),
}

impl Column {
    fn write(self, writer: &mut ColumnWriter<'_>) {
        match (self, writer) {
            (Column::Texts(depth, lists), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let (definition, repetition) = levels(depth, lists.iter().map(Vec::len));
                let values: Vec<ByteArray> = lists.iter().flatten().map(|text| text.as_str().into()).collect();
                writer.write_batch(&values, Some(&definition), Some(&repetition)).unwrap();
            }
            (Column::Labels(lists), ColumnWriter::Int32ColumnWriter(writer)) => {
                let (definition, repetition) = levels(2, lists.iter().map(Vec::len));
                writer.write_batch(&lists.concat(), Some(&definition), Some(&repetition)).unwrap();
            }
            (Column::Text(texts), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let values: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
                writer.write_batch(&values, Some(&vec![1; values.len()]), None).unwrap();
            }
            (Column::Number(numbers), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(&numbers, Some(&vec![1; numbers.len()]), None).unwrap();
            }
            _ => unreachable!("the columns are in the schema's order"),
        }
    }
}

/// Definition and repetition levels of lists of these lengths, `depth` optional groups deep.
fn levels(depth: i16, lengths: impl Iterator<Item = usize>) -> (Vec<i16>, Vec<i16>) {
    let (mut definition, mut repetition) = (Vec::new(), Vec::new());
    for length in lengths {
        // An empty list is defined down to itself, an element two levels further.
        definition.extend(if length == 0 { vec![depth] } else { vec![depth + 2; length] });
        repetition.extend((0..length.max(1)).map(|place| i16::from(place > 0)));
    }
    (definition, repetition)
}
