//! Retrieval on a collection in BEIR's layout, by a model and by BM25. The corpus streams by: of it only ids are kept.

use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use super::metrics::{Grade, Measures};
use super::search::{Rankings, Search};
use crate::bm25::{Bm25, Bm25Builder, Bm25Error};
use crate::data::DataError;
use crate::data::beir::{Collection, Document, JudgedQuery};
use crate::progress::{Event, Observer};
use crate::saved_model::SavedModel;

/// Documents that are encoded together.
const BLOCK: usize = 8192;
/// Their texts end a block sooner, in bytes.
const BLOCK_BYTES: usize = 64 << 20;
/// A document that has the query's own id is found beyond the depth too.
const DEPTH: usize = Measures::DEPTH + 1;
const DOCUMENTS_PER_EVENT: u64 = 1000;

/// What a system found in a collection.
#[derive(Clone, Debug)]
pub struct Retrieved {
    /// Means over the queries.
    pub mean: Measures,
    /// Each query's measures, in the collection's order.
    pub per_query: Vec<Measures>,
    /// What was found, without what has the query's own id.
    pub rankings: Rankings,
    /// Time for encoding or indexing and searching.
    pub seconds: f64,
}

/// A collection's figures, to be written.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// Means over the queries.
    #[serde(flatten)]
    pub mean: Measures,
    /// Time taken.
    pub seconds: f64,
}

/// Why a collection could not be evaluated.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
#[expect(missing_docs, reason = "each is the failure of what it names")]
pub enum CollectionError {
    Data(#[from] DataError),
    Engine(#[from] mendel_engine::Error),
    Bm25(#[from] Bm25Error),
}

/// Encodes queries and corpus and searches exactly. `level`: the grade from which a document is relevant.
///
/// # Errors
/// Where the corpus cannot be read or an operation fails.
pub fn by_model(
    model: &SavedModel,
    collection: &Collection,
    level: Grade,
    observer: &mut dyn Observer,
) -> Result<Retrieved, CollectionError> {
    let started = Instant::now();
    let queries: Vec<&str> = collection.queries.iter().map(|query| query.text.as_str()).collect();
    let mut encoding = Encoding { model, observer, done: 0 };
    encoding.stage("Encoding queries", "queries", queries.len() as u64);
    let queries = encoding.embed(&model.texts.queries(&queries))?;
    encoding.observer.observe(Event::StageFinished);
    let mut search = Search::new(model.encoder.bert.device(), &queries, DEPTH)?;
    encoding.stage("Encoding and searching", "passages", collection.documents);
    let mut block: Vec<Document> = Vec::with_capacity(BLOCK);
    let mut bytes = 0;
    collection.for_each_document(|document| {
        bytes += document.text.len();
        block.push(document);
        if block.len() == BLOCK || bytes >= BLOCK_BYTES {
            encoding.add(&mut search, std::mem::take(&mut block))?;
            bytes = 0;
        }
        Ok::<(), CollectionError>(())
    })?;
    encoding.add(&mut search, block)?;
    encoding.observer.observe(Event::StageFinished);
    Ok(Retrieved::new(search.finish(), &collection.queries, level, started))
}

/// Encodes texts and tells how many are done.
struct Encoding<'a> {
    model: &'a SavedModel,
    observer: &'a mut dyn Observer,
    done: u64,
}

impl Encoding<'_> {
    fn stage(&mut self, what: &str, unit: &'static str, total: u64) {
        self.done = 0;
        self.observer.observe(Event::StageStarted { what: what.into(), unit, total: Some(total) });
    }

    fn embed(&mut self, tokens: &[Vec<u32>]) -> mendel_engine::Result<crate::dual_encoder::Embeddings> {
        let (before, observer) = (self.done, &mut *self.observer);
        let embeddings = self
            .model
            .encoder
            .embed(tokens, |done| observer.observe(Event::StageAdvanced { done: before + done as u64 }))?;
        self.done += tokens.len() as u64;
        Ok(embeddings)
    }

    fn add(&mut self, search: &mut Search, block: Vec<Document>) -> Result<(), CollectionError> {
        let (ids, texts): (Vec<String>, Vec<String>) =
            block.into_iter().map(|document| (document.id, document.text)).unzip();
        let tokens = self.model.texts.passages(&texts);
        drop(texts);
        let passages = self.embed(&tokens)?;
        Ok(search.add(&ids, &passages)?)
    }
}

/// Ranks by BM25.
///
/// # Errors
/// Where the corpus cannot be read or the index not be written.
pub fn by_bm25(
    collection: &Collection,
    level: Grade,
    observer: &mut dyn Observer,
) -> Result<Retrieved, CollectionError> {
    let started = Instant::now();
    let mut builder = Bm25Builder::new()?;
    let mut ids = Vec::new();
    let total = Some(collection.documents);
    observer.observe(Event::StageStarted { what: "Indexing for BM25".into(), unit: "passages", total });
    collection.for_each_document(|document| {
        builder.add(&document.text)?;
        ids.push(document.id);
        if (ids.len() as u64).is_multiple_of(DOCUMENTS_PER_EVENT) {
            observer.observe(Event::StageAdvanced { done: ids.len() as u64 });
        }
        Ok::<(), CollectionError>(())
    })?;
    let index = builder.finish()?;
    observer.observe(Event::StageFinished);
    let of_query = collection.queries.par_iter().map(|query| ranked(&index, &query.text, &ids));
    let of_query = of_query.collect::<Result<_, Bm25Error>>()?;
    Ok(Retrieved::new(Rankings { ids, of_query }, &collection.queries, level, started))
}

/// The best passages for a query, equal scores in trec_eval's order.
fn ranked(index: &Bm25, query: &str, ids: &[String]) -> Result<Vec<(u32, f32)>, Bm25Error> {
    let mut found: Vec<(u32, f32)> =
        index.search(query, DEPTH)?.into_iter().map(|(place, score)| (place as u32, score)).collect();
    Rankings::sort(&mut found, ids);
    Ok(found)
}

impl Retrieved {
    fn new(mut rankings: Rankings, queries: &[JudgedQuery], level: Grade, started: Instant) -> Self {
        let Rankings { ids, of_query } = &mut rankings;
        for (ranking, query) in of_query.iter_mut().zip(queries) {
            // As BEIR does: where queries are documents too, a query does not find itself.
            ranking.retain(|(place, _)| ids[*place as usize] != query.id);
            ranking.truncate(Measures::DEPTH);
        }
        let measure = |(ranking, query): (&Vec<(u32, f32)>, &JudgedQuery)| {
            let grade = |(place, _): &(u32, f32)| query.judged.get(&ids[*place as usize]).copied().unwrap_or(0);
            let ranked: Vec<Grade> = ranking.iter().map(grade).collect();
            Measures::of(&ranked, &query.judged.values().copied().collect::<Vec<_>>(), level)
        };
        let per_query: Vec<Measures> = of_query.iter().zip(queries).map(measure).collect();
        let mean = Measures::mean(&per_query).unwrap_or_default();
        Retrieved { mean, per_query, rankings, seconds: started.elapsed().as_secs_f64() }
    }

    /// What is to be written.
    pub fn figures(&self) -> Figures {
        Figures { mean: self.mean, seconds: self.seconds }
    }
}
