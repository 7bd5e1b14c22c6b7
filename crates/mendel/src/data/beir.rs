//! Collections in BEIR's layout (Thakur et al. 2021): `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, plain or
//! gzip.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::fingerprint::{TextKey, text_key};
use super::format::EachRow;
use super::lines::Lines;
use super::source::file_name;
use super::{DataError, Location, Pair};
use crate::evaluate::metrics::Grade;
use crate::progress::{Event, Observer, Silent};

const CORPUS: &str = "corpus.jsonl";
const QUERIES: &str = "queries.jsonl";
const QRELS: &str = "qrels";
const ROWS_PER_EVENT: u64 = 1000;

/// A document of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its id, which no other has.
    pub id: String,
    /// Title and text, as BEIR puts them together for dense retrieval: with a space between, none around.
    pub text: String,
}

/// A query and its judgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedQuery {
    /// Its id.
    pub id: String,
    /// What is asked.
    pub text: String,
    /// The grades of the judged documents by their ids.
    pub judged: BTreeMap<String, Grade>,
}

/// A collection: what is asked and judged; the corpus stays on disk.
#[derive(Clone, Debug)]
pub struct Collection {
    corpus: PathBuf,
    /// The queries of the split, in the order of their file.
    pub queries: Vec<JudgedQuery>,
    /// How many documents the corpus has.
    pub documents: u64,
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "_id")]
    id: Value,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

/// Judgements by query and document, and the line of each.
type Qrels = BTreeMap<String, BTreeMap<String, (Grade, u64)>>;

/// A collection's splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeirSplit {
    Train,
    Dev,
    Test,
}

impl BeirSplit {
    /// Its name, as `--split` takes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            BeirSplit::Train => "train",
            BeirSplit::Dev => "dev",
            BeirSplit::Test => "test",
        }
    }
}

/// Whether a path is a collection's folder.
pub fn is_collection(path: &Path) -> bool {
    splits(path).is_some()
}

/// The splits of a folder that is a collection; `None` of any other.
pub(super) fn splits(folder: &Path) -> Option<Vec<BeirSplit>> {
    either(folder, CORPUS)?;
    let qrels = folder.join(QRELS);
    let is_there = |split: &BeirSplit| either(&qrels, &format!("{}.tsv", split.name())).is_some();
    let splits = [BeirSplit::Train, BeirSplit::Dev, BeirSplit::Test].into_iter().filter(is_there);
    qrels.is_dir().then(|| splits.collect())
}

/// The files that a split's pairs come from.
pub(super) fn files(folder: &Path, split: BeirSplit) -> Vec<PathBuf> {
    let qrels = either(&folder.join(QRELS), &format!("{}.tsv", split.name()));
    [either(folder, CORPUS), either(folder, QUERIES), qrels].into_iter().flatten().collect()
}

/// The documents of a collection's folder, or of its corpus alone; `None` where a path is neither.
pub(super) fn documents(path: &Path) -> Result<Option<Vec<String>>, DataError> {
    let corpus = if path.is_dir() { either(path, CORPUS) } else { Some(path.to_path_buf()) };
    let Some(corpus) = corpus.filter(|corpus| corpus.is_file()) else { return Ok(None) };
    let first = Lines::open(&corpus)?.next()?.and_then(|line| line.bytes);
    if first.is_none_or(|row| parse_row(&row, true).is_err()) {
        return Ok(None);
    }
    let mut texts = Vec::new();
    for_each_row::<DataError>(&corpus, true, &mut |document| {
        texts.push(document.text);
        Ok(())
    })?;
    Ok(Some(texts))
}

impl Collection {
    /// Reads queries and judgements, and looks the corpus over: every id stands once, every judged document is there.
    ///
    /// # Errors
    /// Where a file is missing or malformed, or the judgements name what is not there; with file and line.
    pub fn open(folder: &Path, split: &str, observer: &mut dyn Observer) -> Result<Self, DataError> {
        let file = |name: &str| {
            either(folder, name)
                .ok_or_else(|| DataError::NotBeir { folder: folder.into(), missing: format!("{name} or {name}.gz") })
        };
        let (corpus, queries) = (file(CORPUS)?, file(QUERIES)?);
        let path = split_file(folder, split)?;
        let mut qrels = read_qrels(&path)?;
        let mut judged = Vec::new();
        for_each_row::<DataError>(&queries, false, &mut |row| {
            if let Some(documents) = qrels.remove(&row.id) {
                let documents = documents.into_iter().map(|(id, (grade, _))| (id, grade)).collect();
                judged.push(JudgedQuery { id: row.id, text: row.text, judged: documents });
            }
            Ok(())
        })?;
        if let Some((query, line)) = first_of(&qrels) {
            return Err(row_error(&path, line, format!("the query '{query}' is not in {}", file_name(&queries))));
        }
        if judged.is_empty() {
            return Err(DataError::NoJudgements { path });
        }
        let documents = look_over(&corpus, &path, observer)?;
        Ok(Collection { corpus, queries: judged, documents })
    }

    /// Calls `each` with every document, in the order of the corpus.
    pub fn for_each_document<E: From<DataError>>(
        &self,
        mut each: impl FnMut(Document) -> Result<(), E>,
    ) -> Result<(), E> {
        for_each_row(&self.corpus, true, &mut each)
    }
}

/// Calls `each` with a pair for every document that is judged relevant, counted from 1. Those judged not to be are the
/// negatives. The documents that are judged are held in memory.
pub(super) fn read_pairs(folder: &Path, split: BeirSplit, each: &mut EachRow<'_>) -> Result<(), DataError> {
    let collection = Collection::open(folder, split.name(), &mut Silent)?;
    let wanted: HashSet<&String> = collection.queries.iter().flat_map(|query| query.judged.keys()).collect();
    let mut texts = HashMap::new();
    collection.for_each_document::<DataError>(|document| {
        if wanted.contains(&document.id) {
            texts.insert(document.id, document.text);
        }
        Ok(())
    })?;
    let mut row = 0;
    for query in &collection.queries {
        let of = |relevant: bool| {
            let judged = query.judged.iter().filter(move |(_, grade)| (**grade > 0) == relevant);
            judged.filter_map(|(id, _)| texts.get(id))
        };
        for positive in of(true) {
            row += 1;
            each(row, Pair::new(&query.text, positive, of(false)))?;
        }
    }
    Ok(())
}

/// Counts the documents of a corpus, and refuses one that lacks a judged document.
fn look_over(corpus: &Path, qrels: &Path, observer: &mut dyn Observer) -> Result<u64, DataError> {
    let what = format!("Looking over {}", file_name(corpus));
    observer.observe(Event::StageStarted { what, unit: "documents", total: None });
    let mut ids: HashSet<TextKey> = HashSet::new();
    let mut documents = 0;
    for_each_row::<DataError>(corpus, true, &mut |document| {
        ids.insert(text_key(&document.id));
        documents += 1;
        if documents % ROWS_PER_EVENT == 0 {
            observer.observe(Event::StageAdvanced { done: documents });
        }
        Ok(())
    })?;
    observer.observe(Event::StageFinished);
    let mut absent = read_qrels(qrels)?;
    absent.values_mut().for_each(|documents| documents.retain(|id, _| !ids.contains(&text_key(id))));
    match first_of(&absent) {
        None => Ok(documents),
        Some((_, line)) => {
            let count: usize = absent.values().map(BTreeMap::len).sum();
            let others = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
            Err(row_error(qrels, line, format!("the document judged here{others} is not in {}", file_name(corpus))))
        }
    }
}

/// The query of the first line among judgements, and the line.
fn first_of(qrels: &Qrels) -> Option<(&String, u64)> {
    let lines = qrels.iter().flat_map(|(query, documents)| documents.values().map(move |(_, line)| (query, *line)));
    lines.min_by_key(|(_, line)| *line)
}

/// Calls `each` with every row of a corpus or of queries, whose titles are then not looked at.
fn for_each_row<E: From<DataError>>(
    path: &Path,
    with_title: bool,
    each: &mut dyn FnMut(Document) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = Lines::open(path)?;
    let mut ids: HashMap<TextKey, u64> = HashMap::new();
    while let Some(line) = lines.next()? {
        let error = |why: String| row_error(path, line.number, why);
        let bytes = line.bytes.as_deref().ok_or_else(|| error("it is longer than 64 MiB".into()))?;
        let document = parse_row(bytes, with_title).map_err(error)?;
        if let Some(first) = ids.insert(text_key(&document.id), line.number) {
            return Err(error(format!("the id '{}' stands in line {first} already", document.id)).into());
        }
        each(document)?;
    }
    Ok(())
}

/// A row of a corpus or of queries.
pub(super) fn parse_row(row: &[u8], with_title: bool) -> Result<Document, String> {
    let text = std::str::from_utf8(row).map_err(|_| "it is not UTF-8".to_owned())?;
    if !text.trim_start().starts_with('{') {
        return Err("it is not a JSON object".into());
    }
    let Row { id, title, text } = serde_json::from_str(text).map_err(|error| format!("{error}"))?;
    let id = match id {
        Value::String(id) if !id.trim().is_empty() => id,
        Value::Number(id) => id.to_string(),
        other => return Err(format!("its _id is {other}, not a text")),
    };
    Ok(Document { id, text: titled(title.filter(|_| with_title), &text) })
}

/// Title and text, as BEIR puts them together for dense retrieval: with a space between, none around.
pub(crate) fn titled(title: Option<String>, text: &str) -> String {
    match title {
        Some(title) => format!("{title} {text}").trim().to_owned(),
        None => text.trim().to_owned(),
    }
}

/// The file of a split's judgements.
fn split_file(folder: &Path, split: &str) -> Result<PathBuf, DataError> {
    let qrels = folder.join(QRELS);
    if let Some(path) = either(&qrels, &format!("{split}.tsv")) {
        return Ok(path);
    }
    let names = std::fs::read_dir(&qrels).into_iter().flatten().flatten().map(|entry| file_name(&entry.path()));
    let mut splits: Vec<String> =
        names.filter_map(|name| Some(name.trim_end_matches(".gz").strip_suffix(".tsv")?.to_owned())).collect();
    splits.sort();
    Err(DataError::NoSplit { folder: qrels, split: split.into(), splits })
}

fn read_qrels(path: &Path) -> Result<Qrels, DataError> {
    let mut lines = Lines::open(path)?;
    let mut qrels = Qrels::new();
    let mut first = true;
    while let Some(line) = lines.next()? {
        let error = |why: String| row_error(path, line.number, why);
        let row = line.bytes.as_deref().ok_or_else(|| error("it is longer than 64 MiB".into()))?;
        let judgement = parse_judgement(row);
        // A query may be called so too: what is a judgement is no header.
        if std::mem::take(&mut first) && judgement.is_err() && row.to_ascii_lowercase().starts_with(b"query") {
            continue;
        }
        let (query, document, grade) = judgement.map_err(error)?;
        let documents = qrels.entry(query).or_default();
        if let Some((_, first)) = documents.insert(document, (grade, line.number)) {
            return Err(error(format!("the same query and document stand in line {first} already")));
        }
    }
    Ok(qrels)
}

/// A judgement: query, document and grade with tabs between, or TREC's four columns with any white space.
pub(super) fn parse_judgement(row: &[u8]) -> Result<(String, String, Grade), String> {
    let text = std::str::from_utf8(row).map_err(|_| "it is not UTF-8".to_owned())?;
    let columns: Vec<&str> = match text.split('\t').map(str::trim).collect::<Vec<_>>() {
        columns if columns.len() >= 3 => columns,
        _ => text.split_whitespace().collect(),
    };
    let [query, document, grade] = match columns[..] {
        [query, document, grade] | [query, _, document, grade] => [query, document, grade],
        _ => return Err(format!("it has {} columns, not query-id, corpus-id and score", columns.len())),
    };
    if query.is_empty() || document.is_empty() {
        return Err("an id in it is empty".into());
    }
    let grade = grade.parse().map_err(|_| format!("its score '{grade}' is not a whole number"))?;
    Ok((query.into(), document.into(), grade))
}

/// A file of this name, plain or gzip.
fn either(folder: &Path, name: &str) -> Option<PathBuf> {
    [name.to_owned(), format!("{name}.gz")].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
}

fn row_error(path: &Path, line: u64, why: String) -> DataError {
    DataError::Row { at: Location { file: path.into(), line }, why }
}

#[cfg(test)]
mod tests;
