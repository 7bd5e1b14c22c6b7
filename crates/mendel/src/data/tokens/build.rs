//! Making a store: rows are read, and meanwhile those before them tokenised in parallel, a chunk at a time, and written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::{mem, thread};

use bytemuck::{cast_slice, pod_collect_to_vec};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::column::Column;
use super::{Columns, Text, TokenStore, fit};
use crate::data::fingerprint::{Fingerprint, query_hash, text_key};
use crate::data::load::{LoadOptions, read_files};
use crate::data::report::LoadReport;
use crate::data::source::{DataFile, file_name};
use crate::data::{DataError, Pair};
use crate::files::sha256;
use crate::progress::{Event, Observer};
use crate::texts::TextEncoder;

/// Changes with anything that changes what the same texts become.
const VERSION: u64 = 2;
/// Pairs that are tokenised together.
const CHUNK: usize = 2048;
/// Chunks that wait between the one that is read and the one that is tokenised.
const CHUNKS_AHEAD: usize = 2;
/// The file that says that a store is whole.
const MANIFEST: &str = "store.json";

/// Where stores are kept, and how texts become tokens.
#[derive(Clone, Debug)]
pub struct TokenCache {
    /// The folder of all stores.
    pub folder: PathBuf,
    /// From texts to tokens.
    pub encoder: TextEncoder,
}

/// What a store says of itself.
#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Bytes of each column.
    bytes: BTreeMap<String, u64>,
    /// Where the dataset's files were.
    files: Vec<PathBuf>,
    report: LoadReport,
}

impl TokenCache {
    /// The pairs of files as tokens: those that an earlier run left, else made now.
    ///
    /// # Errors
    /// Where a file cannot be read, too much of the data is malformed, or the store cannot be written.
    pub(in crate::data) fn of_files(
        &self,
        name: &str,
        files: &[DataFile],
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<TokenStore, DataError> {
        let folder = self.folder.join(key(files, &self.encoder, observer)?);
        let lock = folder.with_extension("lock");
        fs::create_dir_all(&self.folder).map_err(cache_error(&self.folder))?;
        // Held until the store is whole: who comes second waits, and then finds what the first has made.
        let locked = File::create(&lock).map_err(cache_error(&lock))?;
        locked.lock().map_err(cache_error(&lock))?;
        if let Some(store) = open(&folder, files) {
            info!(folder = %folder.display(), pairs = store.len(), "tokens of an earlier run are used");
            options.check(name, &store.report)?;
            return Ok(store);
        }
        let partial = folder.with_extension("partial");
        // What a killed run left, and a store that is damaged.
        remove_folder(&partial).and_then(|()| remove_folder(&folder)).map_err(cache_error(&folder))?;
        if let Err(error) = self.make(name, files, &partial, options, observer) {
            // What cannot be removed now the next run removes.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
        fs::rename(&partial, &folder).and_then(|()| sync(&self.folder)).map_err(cache_error(&folder))?;
        let unreadable = || cache_error(&folder)(ErrorKind::InvalidData.into());
        open(&folder, files).ok_or_else(unreadable)
    }

    /// Writes all of a store into `partial`. The threads that tokenise are the global pool's: a caller that is one of them would
    /// keep it waiting.
    fn make(
        &self,
        name: &str,
        files: &[DataFile],
        partial: &Path,
        options: &LoadOptions,
        observer: &mut dyn Observer,
    ) -> Result<(), DataError> {
        fs::create_dir_all(partial).map_err(cache_error(partial))?;
        let create = |column: &str| Ok(BufWriter::new(File::create(partial.join(column))?));
        let mut writer = Writer::new(create).map_err(cache_error(partial))?;
        let (report, written) = thread::scope(|scope| {
            let (chunks, read) = mpsc::sync_channel(CHUNKS_AHEAD);
            let write = || read.into_iter().try_for_each(|chunk: Vec<Pair>| writer.add(&chunk, &self.encoder));
            let writing = scope.spawn(write);
            let report = send_in_chunks(files, observer, chunks, || cache_error(partial)(ErrorKind::BrokenPipe.into()));
            (report, writing.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        // Where writing has failed, reading tells in most cases that nobody received what was read.
        written.map_err(cache_error(partial))?;
        let report = report?;
        options.check(name, &report)?;
        let files = files.iter().map(|file| file.path.clone()).collect();
        finish(writer, partial, files, report).map_err(cache_error(partial))
    }
}

/// Reads pairs and sends them a chunk at a time; `nobody` is the error where nobody receives them.
fn send_in_chunks(
    files: &[DataFile],
    observer: &mut dyn Observer,
    chunks: SyncSender<Vec<Pair>>,
    nobody: impl Fn() -> DataError,
) -> Result<LoadReport, DataError> {
    let mut chunk = Vec::with_capacity(CHUNK);
    let send = |chunk| chunks.send(chunk).map_err(|_| nobody());
    let report = read_files(files, "Tokenising", observer, &mut |pair| {
        chunk.push(pair);
        if chunk.len() < CHUNK { Ok(()) } else { send(mem::replace(&mut chunk, Vec::with_capacity(CHUNK))) }
    })?;
    send(chunk)?;
    Ok(report)
}

/// Brings all to the disk, the manifest last.
fn finish(writer: Writer<BufWriter<File>>, folder: &Path, files: Vec<PathBuf>, report: LoadReport) -> io::Result<()> {
    let mut bytes = BTreeMap::new();
    for (name, column) in writer.columns.named() {
        let file = column.into_inner()?;
        file.sync_all()?;
        bytes.insert(name.to_owned(), file.metadata()?.len());
    }
    let manifest = serde_json::to_vec_pretty(&Manifest { bytes, files, report })?;
    let mut file = File::create(folder.join(MANIFEST))?;
    file.write_all(&manifest)?;
    file.sync_all()?;
    sync(folder)
}

impl TokenStore {
    /// Pairs that are in memory, as tokens in memory.
    pub fn of_pairs(pairs: &[Pair], encoder: &TextEncoder) -> Self {
        let report = LoadReport { rows: pairs.len() as u64, usable: pairs.len() as u64, ..LoadReport::default() };
        Self::in_memory(report, |writer| pairs.chunks(CHUNK).try_for_each(|chunk| writer.add(chunk, encoder)))
    }

    /// Queries and positives that are tokens already, all taken to be different, without negatives.
    pub fn of_tokens(pairs: impl IntoIterator<Item = (Vec<u32>, Vec<u32>)>) -> Self {
        Self::in_memory(LoadReport::default(), |writer| {
            pairs.into_iter().zip(0..).try_for_each(|((query, positive), number)| {
                writer.query_or_positive(Text { tokens: &query, key: 2 * number })?;
                writer.query_or_positive(Text { tokens: &positive, key: 2 * number + 1 })?;
                writer.end_pair(number)
            })
        })
    }

    fn in_memory(report: LoadReport, write: impl FnOnce(&mut Writer<Vec<u8>>) -> io::Result<()>) -> Self {
        let in_memory = Writer::new(|_| Ok(Vec::new())).and_then(|mut writer| write(&mut writer).map(|()| writer));
        let Columns { tokens, texts, negative_tokens, negatives, pairs } =
            in_memory.expect("memory takes what is written to it").columns;
        let columns = Columns {
            tokens: Column::Owned(pod_collect_to_vec(&tokens)),
            texts: Column::Owned(pod_collect_to_vec(&texts)),
            negative_tokens: Column::Owned(pod_collect_to_vec(&negative_tokens)),
            negatives: Column::Owned(pod_collect_to_vec(&negatives)),
            pairs: Column::Owned(pod_collect_to_vec(&pairs)),
        };
        TokenStore { columns, report }
    }
}

/// A store that is being written.
struct Writer<W> {
    columns: Columns<W, W>,
    /// Tokens of queries and positives so far.
    tokens: u64,
    /// Tokens of negatives so far.
    negative_tokens: u64,
    /// Negatives so far.
    negatives: u64,
}

impl<W: Write> Writer<W> {
    fn new(create: impl FnMut(&'static str) -> io::Result<W>) -> io::Result<Self> {
        Ok(Writer { columns: Columns::create(create)?, tokens: 0, negative_tokens: 0, negatives: 0 })
    }

    /// Tokenises pairs on all threads and writes them.
    fn add(&mut self, pairs: &[Pair], encoder: &TextEncoder) -> io::Result<()> {
        let queries: Vec<&str> = pairs.iter().map(|pair| pair.query.as_str()).collect();
        let positives: Vec<&str> = pairs.iter().map(|pair| pair.positive.as_str()).collect();
        let negatives: Vec<&str> = pairs.iter().flat_map(|pair| &pair.negatives).map(String::as_str).collect();
        let (query_tokens, positive_tokens) = (encoder.queries(&queries), encoder.passages(&positives));
        let negative_tokens = encoder.passages(&negatives);
        let mut negatives = negatives.iter().zip(&negative_tokens);
        for ((pair, query), positive) in pairs.iter().zip(&query_tokens).zip(&positive_tokens) {
            self.query_or_positive(Text { tokens: query, key: text_key(&pair.query) })?;
            self.query_or_positive(Text { tokens: positive, key: text_key(&pair.positive) })?;
            for (text, tokens) in negatives.by_ref().take(pair.negatives.len()) {
                self.negative(Text { tokens, key: text_key(text) })?;
            }
            self.end_pair(query_hash(&pair.query))?;
        }
        Ok(())
    }

    fn query_or_positive(&mut self, text: Text<'_>) -> io::Result<()> {
        self.tokens += text.tokens.len() as u64;
        self.columns.tokens.write_all(cast_slice(text.tokens))?;
        self.columns.texts.write_all(cast_slice(&[self.tokens, text.key]))
    }

    fn negative(&mut self, text: Text<'_>) -> io::Result<()> {
        self.negative_tokens += text.tokens.len() as u64;
        self.negatives += 1;
        self.columns.negative_tokens.write_all(cast_slice(text.tokens))?;
        self.columns.negatives.write_all(cast_slice(&[self.negative_tokens, text.key]))
    }

    fn end_pair(&mut self, query_hash: u64) -> io::Result<()> {
        self.columns.pairs.write_all(cast_slice(&[query_hash, self.negatives]))
    }
}

/// What a store's folder is called: a hash of all that decides what is in it.
fn key(files: &[DataFile], encoder: &TextEncoder, observer: &mut dyn Observer) -> Result<String, DataError> {
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(VERSION);
    fingerprint.add_bytes(&1_u64.to_ne_bytes());
    fingerprint.add_bytes(encoder.fingerprint().as_bytes());
    for file in files {
        fingerprint.add_bytes(format!("{:?}", file.format).as_bytes());
        for path in file.parts() {
            let digest = digest(&path, observer).map_err(|source| DataError::Read { path, source })?;
            fingerprint.add_bytes(&digest);
        }
    }
    let mut name = fingerprint.finish();
    name.truncate(32);
    Ok(name)
}

/// SHA-256 of a file.
fn digest(path: &Path, observer: &mut dyn Observer) -> io::Result<Vec<u8>> {
    let (what, total) = (format!("Looking over {}", file_name(path)), fs::metadata(path)?.len());
    observer.observe(Event::StageStarted { what, unit: "bytes", total: Some(total) });
    let digest = sha256(path, |done| observer.observe(Event::StageAdvanced { done }))?;
    observer.observe(Event::StageFinished);
    Ok(digest)
}

/// A store that is whole; none where there is no folder, or one that something has damaged.
fn open(folder: &Path, files: &[DataFile]) -> Option<TokenStore> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?;
    match map(folder, &manifest) {
        Ok(columns) => {
            let mut report = manifest.report;
            let moved = |file: &Path| {
                let place = manifest.files.iter().position(|then| then == file);
                place.and_then(|place| files.get(place)).map_or(file.to_path_buf(), |now| now.path.clone())
            };
            report.relocate(moved);
            Some(TokenStore { columns, report })
        }
        Err(error) => {
            warn!(folder = %folder.display(), %error, "a token store is damaged and made anew");
            None
        }
    }
}

fn map(folder: &Path, manifest: &Manifest) -> io::Result<Columns<Column<u32>, Column<u64>>> {
    let bytes = |name: &str| manifest.bytes.get(name).copied().unwrap_or_default();
    let tokens = |name: &str| Column::map(&folder.join(name), bytes(name));
    let numbers = |name: &str| Column::map(&folder.join(name), bytes(name));
    let columns = Columns {
        tokens: tokens(TOKENS)?,
        texts: numbers(TEXTS)?,
        negative_tokens: tokens(NEGATIVE_TOKENS)?,
        negatives: numbers(NEGATIVES)?,
        pairs: numbers(PAIRS)?,
    };
    if fit(&columns) { Ok(columns) } else { Err(io::Error::new(ErrorKind::InvalidData, "its columns do not fit")) }
}

fn cache_error(path: &Path) -> impl FnOnce(io::Error) -> DataError {
    move |source| DataError::Cache { path: path.to_path_buf(), source }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Returns once a folder's entries will survive a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened for this; elsewhere its entries are the file system's business.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The columns' file names.
const TOKENS: &str = "tokens";
const TEXTS: &str = "texts";
const NEGATIVE_TOKENS: &str = "negative-tokens";
const NEGATIVES: &str = "negatives";
const PAIRS: &str = "pairs";

impl<W> Columns<W, W> {
    fn create(mut create: impl FnMut(&'static str) -> io::Result<W>) -> io::Result<Self> {
        Ok(Columns {
            tokens: create(TOKENS)?,
            texts: create(TEXTS)?,
            negative_tokens: create(NEGATIVE_TOKENS)?,
            negatives: create(NEGATIVES)?,
            pairs: create(PAIRS)?,
        })
    }

    fn named(self) -> [(&'static str, W); 5] {
        let Columns { tokens, texts, negative_tokens, negatives, pairs } = self;
        [(TOKENS, tokens), (TEXTS, texts), (NEGATIVE_TOKENS, negative_tokens), (NEGATIVES, negatives), (PAIRS, pairs)]
    }
}
