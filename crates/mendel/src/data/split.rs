//! Holding queries out of training, and what they are evaluated against.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::fingerprint::{Fingerprint, TextKey, text_key};
use super::format::Format;
use super::load::{DEMO, read_files};
use super::source::{DataFile, Source};
use super::tokens::{Text, TokenCache, TokenStore};
use super::{DataError, LoadOptions, Pair, demo};
use crate::progress::{Event, Observer, counted};
use crate::texts::TextEncoder;

/// One query in so many is held out.
const HELD_OUT_ONE_IN: u64 = 10;

/// What a run trains on and what it is evaluated on.
#[derive(Clone, Debug)]
pub struct Split {
    /// The dataset's pairs.
    pub store: Arc<TokenStore>,
    /// The places of those to train on, ascending.
    pub training: Vec<usize>,
    /// Empty where the data has a single query, none of which can be held out.
    pub evaluation: EvaluationSet,
}

/// Which data a run works with.
#[derive(Clone, Copy, Debug)]
pub struct DataRequest<'a> {
    /// The dataset to train on.
    pub dataset: &'a str,
    /// The dataset to evaluate on, where it is another.
    pub eval_dataset: Option<&'a str>,
    /// At most so many queries are evaluated; 0 is all.
    pub eval_queries: usize,
    /// How strict reading is.
    pub options: LoadOptions,
}

impl DataRequest<'_> {
    /// The data of a run. Evaluated is `eval_dataset` where it is given, else what the dataset itself holds out, else
    /// about every tenth query, as [`hold_out`] chooses.
    ///
    /// # Errors
    /// Where data cannot be found, read or kept as tokens, or is too malformed.
    pub fn split(&self, cache: &TokenCache, observer: &mut dyn Observer) -> Result<Split, DataError> {
        let DataRequest { dataset, eval_dataset, .. } = *self;
        let (store, own) = if dataset == DEMO {
            (TokenStore::of_pairs(&demo::demo().train, &cache.encoder), None)
        } else {
            let source = Source::find(dataset, observer)?;
            source.ensure_trains()?;
            let store = cache.of_files(dataset, &source.training, &self.options, observer)?;
            (store, Some(source.evaluation).filter(|files| !files.is_empty()))
        };
        let mut training: Vec<usize> = (0..store.len()).collect();
        let evaluation = match (eval_dataset, own) {
            (Some(DEMO), _) => demo::demo().evaluation_set(&cache.encoder),
            (Some(name), _) => {
                let evaluated = self.held_out(name, cache, observer)?;
                warn_of_trained(&store, &evaluated, observer);
                self.limited(&evaluated, None)
            }
            (None, _) if dataset == DEMO => demo::demo().evaluation_set(&cache.encoder),
            (None, Some(files)) => {
                let evaluated = cache.of_files(dataset, &files, &self.options, observer)?;
                warn_of_trained(&store, &evaluated, observer);
                self.limited(&evaluated, None)
            }
            (None, None) => {
                let hashes: Vec<u64> = training.iter().map(|&pair| store.query_hash(pair)).collect();
                let held_out = hold_out(&hashes);
                training.retain(|&pair| !held_out[pair]);
                self.limited(&store, Some(&held_out))
            }
        };
        observer.observe(Event::Note(format!(
            "{} ({}); {} over {} to evaluate",
            counted(training.len() as u64, "training pairs"),
            store.report.reasons(),
            counted(evaluation.queries.len() as u64, "queries"),
            counted(evaluation.passages.len() as u64, "passages"),
        )));
        Ok(Split { store: store.into(), training, evaluation })
    }

    /// What a dataset that is evaluated as a whole holds: for the demo its held-out questions.
    ///
    /// # Errors
    /// As [`split`](Self::split).
    pub fn evaluation_of(
        &self,
        name: &str,
        cache: &TokenCache,
        observer: &mut dyn Observer,
    ) -> Result<EvaluationSet, DataError> {
        if name == DEMO {
            return Ok(demo::demo().evaluation_set(&cache.encoder));
        }
        Ok(self.limited(&self.held_out(name, cache, observer)?, None))
    }

    /// A dataset that is evaluated as a whole.
    fn held_out(&self, name: &str, cache: &TokenCache, observer: &mut dyn Observer) -> Result<TokenStore, DataError> {
        let files = Source::find(name, observer)?.held_out();
        if let Some(DataFile { format: Format::Beir(split), .. }) = files.first() {
            observer.observe(Event::Warning(format!(
                "of {name} the split {} is evaluated over the passages that it judges; over the whole corpus mendel eval \
                 --task beir evaluates a model",
                split.name()
            )));
        }
        cache.of_files(name, &files, &self.options, observer)
    }

    /// The texts of some keys, as far as the evaluated data has them as queries or positives: read again, because a
    /// token store has no texts.
    ///
    /// # Errors
    /// Where data cannot be found or read.
    pub fn texts(
        &self,
        wanted: &HashSet<TextKey>,
        observer: &mut dyn Observer,
    ) -> Result<HashMap<TextKey, String>, DataError> {
        let mut found = HashMap::new();
        let mut look = |pair: Pair| {
            for text in [pair.query, pair.positive] {
                let key = text_key(&text);
                if wanted.contains(&key) {
                    found.insert(key, text);
                }
            }
            Ok(())
        };
        match self.eval_dataset.unwrap_or(self.dataset) {
            DEMO => demo::demo().held_out.into_iter().try_for_each(look)?,
            name => {
                let source = Source::find(name, observer)?;
                // Held out of the training files, where the dataset holds out none itself.
                let of_training = self.eval_dataset.is_none() && source.evaluation.is_empty();
                let files = if of_training { source.training } else { source.held_out() };
                read_files(&files, "Looking up texts in", observer, &mut look)?;
            }
        }
        Ok(found)
    }

    /// The evaluation of those of a store's pairs that are `chosen`, all without it. Where there are more queries than
    /// wanted, those whose hashes are least are taken: the same ones whatever else is in the data.
    fn limited(&self, store: &TokenStore, chosen: Option<&[bool]>) -> EvaluationSet {
        let is_chosen = |pair: &usize| chosen.is_none_or(|chosen| chosen[*pair]);
        let chosen: Vec<usize> = (0..store.len()).filter(is_chosen).collect();
        let hashes: BTreeSet<u64> = chosen.iter().map(|&pair| store.query_hash(pair)).collect();
        let most = hashes.iter().nth(self.eval_queries.wrapping_sub(1)).copied().unwrap_or(u64::MAX);
        EvaluationSet::new(store, chosen.into_iter().filter(|&pair| store.query_hash(pair) <= most))
    }
}

/// Warns of queries that are evaluated although they are trained on.
fn warn_of_trained(training: &TokenStore, evaluated: &TokenStore, observer: &mut dyn Observer) {
    let all: HashSet<u64> = (0..evaluated.len()).map(|pair| evaluated.query_hash(pair)).collect();
    let trained: HashSet<u64> =
        (0..training.len()).map(|pair| training.query_hash(pair)).filter(|hash| all.contains(hash)).collect();
    if !trained.is_empty() {
        let what = "queries that are evaluated are trained on too: on them a model shows what it remembers";
        observer.observe(Event::Warning(format!("{} of {} {what}", trained.len(), all.len())));
    }
}

/// Which pairs, given the hashes of their queries, are held out: about every tenth query, with all its pairs. The hash
/// decides, which is blind to case, punctuation and spacing, so that no query is on both sides and more data moves
/// none. Where chance holds out no query, or all, one is moved.
pub fn hold_out(hashes: &[u64]) -> Vec<bool> {
    let (least, most) = (hashes.iter().min().copied(), hashes.iter().max().copied());
    let by_chance = |hash: u64| hash.is_multiple_of(HELD_OUT_ONE_IN);
    let none = !hashes.iter().any(|&hash| by_chance(hash));
    let all = hashes.iter().all(|&hash| by_chance(hash));
    let is_held_out = |&hash: &u64| {
        if least == most {
            false
        } else if none {
            Some(hash) == least
        } else if all {
            Some(hash) != least
        } else {
            by_chance(hash)
        }
    };
    hashes.iter().map(is_held_out).collect()
}

/// Queries, the passages they are to be answered from, and which of them do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvaluationSet {
    /// Distinct queries, as tokens.
    pub queries: Vec<Vec<u32>>,
    /// A name for each query: `q0`, `q1`, …
    pub query_ids: Vec<String>,
    /// Distinct passages, as tokens.
    pub passages: Vec<Vec<u32>>,
    /// A name for each passage: `p0`, `p1`, …
    pub passage_ids: Vec<String>,
    /// What each query's text is recognised by.
    pub query_keys: Vec<TextKey>,
    /// What each passage's text is recognised by.
    pub passage_keys: Vec<TextKey>,
    /// For each query the indices of the passages that answer it, ascending, at least one.
    pub relevant: Vec<Vec<usize>>,
    /// SHA-256 over queries, passages and which belong together, in hex.
    pub fingerprint: String,
}

impl EvaluationSet {
    /// From pairs of a store, by their places: equal queries become one with all their positives, and every positive
    /// and negative is a passage once, in the order of first sight.
    pub fn new(store: &TokenStore, pairs: impl IntoIterator<Item = usize>) -> Self {
        let mut set = Gathering::default();
        set.add(store, pairs);
        set.finish()
    }

    /// All pairs of a store, and more passages after theirs; those already there are not repeated.
    pub fn with_passages(store: &TokenStore, more: &[String], encoder: &TextEncoder) -> Self {
        let mut set = Gathering::default();
        set.add(store, 0..store.len());
        for (text, tokens) in more.iter().zip(encoder.passages(more)) {
            set.passages.index_of(Text { tokens: &tokens, key: super::text_key(text) });
        }
        set.finish()
    }
}

/// An evaluation set that grows.
#[derive(Default)]
struct Gathering {
    queries: Distinct,
    passages: Distinct,
    relevant: Vec<Vec<usize>>,
}

impl Gathering {
    fn add(&mut self, store: &TokenStore, pairs: impl IntoIterator<Item = usize>) {
        for pair in pairs {
            let query = self.queries.index_of(store.query(pair));
            let positive = self.passages.index_of(store.positive(pair));
            self.relevant.resize_with(self.queries.texts.len(), Vec::new);
            if !self.relevant[query].contains(&positive) {
                self.relevant[query].push(positive);
            }
            for which in 0..store.negative_count(pair) {
                self.passages.index_of(store.negative(pair, which));
            }
        }
    }

    fn finish(mut self) -> EvaluationSet {
        self.relevant.iter_mut().for_each(|passages| passages.sort_unstable());
        let mut fingerprint = Fingerprint::default();
        let counts = [self.queries.texts.len(), self.passages.texts.len()];
        let relevant =
            self.relevant.iter().flat_map(|list| std::iter::once(&list.len()).chain(list).copied().collect::<Vec<_>>());
        counts.into_iter().chain(relevant).for_each(|number| fingerprint.add(number as u64));
        self.queries.keys.iter().chain(&self.passages.keys).for_each(|&key| fingerprint.add(key));
        let ids = |letter: char, count: usize| (0..count).map(|index| format!("{letter}{index}")).collect();
        EvaluationSet {
            query_ids: ids('q', self.queries.texts.len()),
            passage_ids: ids('p', self.passages.texts.len()),
            queries: self.queries.texts,
            passages: self.passages.texts,
            query_keys: self.queries.keys,
            passage_keys: self.passages.keys,
            relevant: self.relevant,
            fingerprint: fingerprint.finish(),
        }
    }
}

/// Texts, each once, in the order of first sight.
#[derive(Default)]
struct Distinct {
    texts: Vec<Vec<u32>>,
    keys: Vec<TextKey>,
    indices: HashMap<TextKey, usize>,
}

impl Distinct {
    fn index_of(&mut self, text: Text<'_>) -> usize {
        *self.indices.entry(text.key).or_insert_with(|| {
            self.texts.push(text.tokens.to_vec());
            self.keys.push(text.key);
            self.texts.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
