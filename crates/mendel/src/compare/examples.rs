//! Queries whose results differ most between arms, with their texts, for a reader to look at.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::comparison::PRIMARY;
use crate::data::TextKey;
use crate::train::{Inputs, Run, RunRecord, TrainError, data_request};

/// So many of the queries that gained most, and of those that lost most.
const OF_EACH_SIGN: usize = 3;

/// Some queries of the first arm beside another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// The first arm.
    pub reference: String,
    /// The other.
    pub arm: String,
    /// The largest gains, then the largest losses.
    pub queries: Vec<Example>,
}

/// A query, and how well each arm answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Its id.
    pub id: String,
    /// Its text.
    pub query: String,
    /// The text of the first passage that answers it.
    pub passage: String,
    /// The reference's mean reciprocal rank, over seeds.
    pub reference: f64,
    /// The arm's.
    pub arm: f64,
}

/// Of the first arm beside each other one.
pub fn of(run: &mut Run<'_>, inputs: &Inputs, by_arm: &[Vec<&RunRecord>]) -> Result<Vec<Examples>, TrainError> {
    let (reference, others) = by_arm.split_first().expect("there is at least one arm");
    let chosen: Vec<Vec<Chosen>> = others.iter().map(|arm| most_different(reference, arm)).collect();
    let set = &inputs.evaluator.set;
    let keys = |query: usize| [set.query_keys[query], set.passage_keys[set.relevant[query][0]]];
    let wanted: HashSet<TextKey> = chosen.iter().flatten().flat_map(|chosen| keys(chosen.query)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let texts: HashMap<TextKey, String> = data_request(run.settings).texts(&wanted, run.observer)?;
    let example = |&Chosen { query, reference, arm }: &Chosen| {
        let [text, passage] = keys(query).map(|key| texts.get(&key).cloned().unwrap_or_default());
        Example { id: set.query_ids[query].clone(), query: text, passage, reference, arm }
    };
    let of_arm = |(arm, chosen): (&Vec<&RunRecord>, &Vec<Chosen>)| Examples {
        reference: reference[0].arm.clone(),
        arm: arm[0].arm.clone(),
        queries: chosen.iter().map(example).collect(),
    };
    Ok(others.iter().zip(&chosen).map(of_arm).collect())
}

/// A query by its place, and the reciprocal ranks of both arms.
struct Chosen {
    query: usize,
    reference: f64,
    arm: f64,
}

fn most_different(reference: &[&RunRecord], arm: &[&RunRecord]) -> Vec<Chosen> {
    let mean = |runs: &[&RunRecord], query: usize| {
        runs.iter().map(|run| run.per_query[PRIMARY][query]).sum::<f64>() / runs.len() as f64
    };
    let of = |query| Chosen { query, reference: mean(reference, query), arm: mean(arm, query) };
    let gain = |chosen: &Chosen| chosen.arm - chosen.reference;
    let mut all: Vec<Chosen> = (0..reference[0].query_ids.len()).map(of).collect();
    all.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
    let gains = all.iter().take(OF_EACH_SIGN).take_while(|chosen| gain(chosen) > 0.0).count();
    let losses = all.iter().rev().take(OF_EACH_SIGN).take_while(|chosen| gain(chosen) < 0.0).count();
    let lost = all.split_off(all.len() - losses);
    all.truncate(gains);
    all.extend(lost.into_iter().rev());
    all
}
