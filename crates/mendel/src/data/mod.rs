//! Training and evaluation data: reading it, splitting it, and the order it is trained in.

pub mod beir;
mod columns;
pub mod demo;
mod error;
mod fingerprint;
mod format;
mod inspect;
pub(crate) mod lines;
mod load;
pub mod mine;
mod msmarco;
mod pairs;
mod parquet;
mod report;
mod sampler;
mod source;
mod split;
pub mod sts;
mod tokens;

pub use self::error::DataError;
pub use self::fingerprint::{Fingerprint, TextKey, query_hash, text_key};
pub use self::inspect::{Inspection, Lengths, inspect};
pub use self::load::{Dataset, LoadOptions, load};
pub use self::parquet::panic_becomes_error;
pub use self::report::{LoadReport, Location, Refused, RefusedReason};
pub use self::sampler::Sampler;
pub use self::split::{DataRequest, EvaluationSet, Split, hold_out};
pub use self::tokens::{Text, TokenCache, TokenStore};

/// A query, a passage that answers it, and passages that do not. No text is empty or has white space around it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Pair {
    /// What is asked.
    pub query: String,
    /// What answers it.
    pub positive: String,
    /// What was seen not to; differs from the positive.
    pub negatives: Vec<String>,
}

impl Pair {
    /// A pair of trimmed texts; negatives that are empty or equal to the positive are left out.
    ///
    /// # Errors
    /// [`RefusedReason::EmptyText`] where the query or the positive is empty.
    fn new(
        query: &str,
        positive: &str,
        negatives: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, RefusedReason> {
        let (query, positive) = (query.trim(), positive.trim());
        if query.is_empty() || positive.is_empty() {
            return Err(RefusedReason::EmptyText);
        }
        let trimmed = negatives.into_iter().map(|text| text.as_ref().trim().to_string());
        let negatives = trimmed.filter(|text| !text.is_empty() && text != positive).collect();
        Ok(Pair { query: query.to_string(), positive: positive.to_string(), negatives })
    }
}

#[cfg(test)]
mod tests;
