//! Hard negatives by BM25: passages that share words with a query and are not known to answer it (Karpukhin et al.
//! 2020, section 3.2).

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::beir::documents;
use super::{DataError, LoadOptions, Pair, TextKey, load, query_hash, text_key};
use crate::bm25::{Bm25, Bm25Builder, Bm25Error};
use crate::files::{FileError, check_writable, write_atomically};
use crate::progress::{Event, Observer};

const PAIRS_PER_EVENT: usize = 256;

/// What is mined.
#[derive(Clone, Debug)]
pub struct Mining<'a> {
    /// The pairs that want negatives.
    pub dataset: &'a str,
    /// Where negatives come from: a collection's folder, its corpus, or another dataset's passages. Without it from the
    /// dataset's own.
    pub corpus: Option<&'a Path>,
    /// How many for each pair.
    pub negatives: usize,
    /// So many of the best passages are looked at.
    pub depth: usize,
    /// So many of the best are passed over: they may answer the query though nobody said so.
    pub skip: usize,
    /// How strict reading is.
    pub options: LoadOptions,
}

/// What mining gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mined {
    /// Pairs written.
    pub pairs: usize,
    /// Distinct passages that were searched.
    pub passages: usize,
    /// Negatives written.
    pub negatives: usize,
    /// Pairs with fewer negatives than wanted.
    pub short_of_negatives: usize,
}

/// Why nothing was mined.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
#[expect(missing_docs, reason = "each is the failure of what it names")]
pub enum MiningError {
    Data(#[from] DataError),
    Bm25(#[from] Bm25Error),
    File(#[from] FileError),
}

/// Writes every pair with the negatives found for it, as JSONL `{"query", "positive", "negatives"}`. No passage that
/// is a positive of the same query, however it is spelled, becomes its negative.
///
/// # Errors
/// Where data cannot be read, the index not be made, or the file not be written.
pub fn mine(mining: &Mining<'_>, output: &Path, observer: &mut dyn Observer) -> Result<Mined, MiningError> {
    output.parent().map_or(Ok(()), check_writable)?;
    let pairs = load(mining.dataset, &mining.options, observer)?.pairs;
    let passages = passages(mining, &pairs, observer)?;
    let index = index(&passages, observer)?;
    let mut positives: HashMap<u64, HashSet<TextKey>> = HashMap::new();
    for pair in &pairs {
        positives.entry(query_hash(&pair.query)).or_default().insert(text_key(&pair.positive));
    }
    let negatives_of = |pair: &Pair| -> Result<Vec<&String>, Bm25Error> {
        let own = positives.get(&query_hash(&pair.query));
        let is_own = |text: &&String| own.is_some_and(|own| own.contains(&text_key(text)));
        let found = index.search(&pair.query, mining.depth)?;
        let others =
            found.into_iter().take(mining.depth).map(|(place, _)| &passages[place]).filter(|text| !is_own(text));
        Ok(others.skip(mining.skip).take(mining.negatives).collect())
    };
    let mut mined = Mined { pairs: pairs.len(), passages: passages.len(), negatives: 0, short_of_negatives: 0 };
    let mut bytes = Vec::new();
    let total = Some(pairs.len() as u64);
    observer.observe(Event::StageStarted { what: "Mining".into(), unit: "pairs", total });
    for (chunk, done) in pairs.chunks(PAIRS_PER_EVENT).zip(1_u64..) {
        let found: Vec<Vec<&String>> = chunk.par_iter().map(negatives_of).collect::<Result<_, _>>()?;
        for (pair, negatives) in chunk.iter().zip(found) {
            mined.negatives += negatives.len();
            mined.short_of_negatives += usize::from(negatives.len() < mining.negatives);
            let Pair { query, positive, .. } = pair;
            let row = serde_json::json!({"query": query, "positive": positive, "negatives": negatives});
            bytes.extend(row.to_string().into_bytes());
            bytes.push(b'\n');
        }
        observer.observe(Event::StageAdvanced { done: (done * PAIRS_PER_EVENT as u64).min(pairs.len() as u64) });
    }
    observer.observe(Event::StageFinished);
    write_atomically(output, &bytes)?;
    Ok(mined)
}

/// What negatives are taken from: each text once, in the order of first sight.
fn passages(mining: &Mining<'_>, pairs: &[Pair], observer: &mut dyn Observer) -> Result<Vec<String>, DataError> {
    let mut seen = HashSet::new();
    let mut passages = Vec::new();
    let mut add = |text: &str| {
        if !text.is_empty() && seen.insert(text_key(text)) {
            passages.push(text.to_owned());
        }
    };
    let mut add_pairs = |pairs: &[Pair]| {
        pairs.iter().flat_map(|pair| std::iter::once(&pair.positive).chain(&pair.negatives)).for_each(|text| add(text));
    };
    match mining.corpus {
        None => add_pairs(pairs),
        Some(path) => match documents(path)? {
            Some(documents) => documents.iter().for_each(|text| add(text)),
            None => add_pairs(&load(&path.to_string_lossy(), &mining.options, observer)?.pairs),
        },
    }
    Ok(passages)
}

fn index(passages: &[String], observer: &mut dyn Observer) -> Result<Bm25, Bm25Error> {
    let total = Some(passages.len() as u64);
    observer.observe(Event::StageStarted { what: "Indexing for BM25".into(), unit: "passages", total });
    let mut builder = Bm25Builder::new()?;
    for (passage, done) in passages.iter().zip(1..) {
        builder.add(passage)?;
        if done % 1000 == 0 {
            observer.observe(Event::StageAdvanced { done });
        }
    }
    let index = builder.finish()?;
    observer.observe(Event::StageFinished);
    Ok(index)
}
