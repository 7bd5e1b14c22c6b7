//! The built-in demo world: invented entities, passages that state facts about them, and questions that paraphrase.
//!
//! It needs no network and no files, and comes out the same, byte for byte, everywhere. It is made so that word
//! overlap does not answer it (many passages name the same entity) and a small model learns it in about a minute.

mod relations;
mod vocabulary;
mod world;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use self::relations::{Relation, relations_of};
use self::world::{Fact, World};
use super::{DataError, EvaluationSet, Pair, TokenStore};
use crate::random::SplitMix64;
use crate::texts::TextEncoder;
use crate::tokenizer::{Casing, Tokenizer};

const SEED: u64 = 0x6d65_6e64_656c;
const NEVER_ASKED_FACTS: usize = 113;
const ASKED_HELD_OUT: usize = 337;
const QUESTIONS_PER_FACT: usize = 2;
const VOCABULARY_SIZE: usize = 1800;

/// The demo's data.
#[derive(Clone, Debug, PartialEq)]
pub struct Demo {
    /// Question and passage, with four passages beside that share words with them: about 5,200 pairs.
    pub train: Vec<Pair>,
    /// 450 questions in words that training does not ask them in; a quarter are about facts that it never asks about.
    pub held_out: Vec<Pair>,
    /// Every passage of the world, about 1,900: what the held-out questions are answered from.
    pub passages: Vec<String>,
}

/// The demo's data, always the same.
pub fn demo() -> Demo {
    let mut random = SplitMix64::keyed(&[SEED]);
    let world = World::new(&mut random);
    let mut order: Vec<usize> = (0..world.facts.len()).collect();
    random.shuffle(&mut order);
    let mut train = Vec::new();
    let mut held_out = Vec::new();
    for (place, &fact) in order.iter().enumerate() {
        let mut ways: Vec<usize> = (0..world.relation(fact).questions.len()).collect();
        random.shuffle(&mut ways);
        let (asked, new) = ways.split_at(QUESTIONS_PER_FACT);
        if place >= NEVER_ASKED_FACTS {
            train.extend(asked.iter().map(|&way| world.pair(fact, way, &mut random)));
        }
        if place < NEVER_ASKED_FACTS + ASKED_HELD_OUT {
            held_out.push(world.pair(fact, new[0], &mut random));
        }
    }
    random.shuffle(&mut train);
    random.shuffle(&mut held_out);
    Demo { train, held_out, passages: world.passages }
}

impl Demo {
    /// The held-out questions against every passage of the world.
    pub fn evaluation_set(&self, encoder: &TextEncoder) -> EvaluationSet {
        EvaluationSet::with_passages(&TokenStore::of_pairs(&self.held_out, encoder), &self.passages, encoder)
    }
}

impl World {
    fn relation(&self, fact: usize) -> &'static Relation {
        let Fact { subject, relation, .. } = self.facts[fact];
        &relations_of(self.entities[subject].kind)[relation]
    }

    /// The fact asked about in the `way`th of its relation's questions.
    fn pair(&self, fact: usize, way: usize, random: &mut SplitMix64) -> Pair {
        let Fact { subject, passage, .. } = self.facts[fact];
        let question = self.relation(fact).questions[way].replace("{s}", &self.entities[subject].name.to_lowercase());
        let query = if random.percent(50) { format!("{question}?") } else { question };
        Pair { query, positive: self.passages[passage].clone(), negatives: self.distractors(fact, random) }
    }

    /// Two passages about the same entity and two that state the same relation of others.
    fn distractors(&self, fact: usize, random: &mut SplitMix64) -> Vec<String> {
        let Fact { subject, relation, passage } = self.facts[fact];
        let kind = self.entities[subject].kind;
        let of_subject = |other: &Fact| other.subject == subject;
        let of_relation = |other: &Fact| {
            other.subject != subject && other.relation == relation && self.entities[other.subject].kind == kind
        };
        let mut chosen: Vec<usize> = Vec::new();
        for wanted in [&of_subject as &dyn Fn(&Fact) -> bool, &of_relation] {
            let mut passages: Vec<usize> =
                self.facts.iter().filter(|fact| wanted(fact)).map(|fact| fact.passage).collect();
            passages.dedup();
            passages.retain(|&other| other != passage);
            random.shuffle(&mut passages);
            chosen.extend(passages.iter().take(2));
        }
        chosen.iter().map(|&passage| self.passages[passage].clone()).collect()
    }
}

/// The demo's WordPiece tokenizer: lower-cased, with BERT's special tokens, its vocabulary learned from the demo's texts.
pub fn demo_tokenizer() -> Tokenizer {
    let Demo { train, passages, .. } = demo();
    let texts = train.iter().map(|pair| pair.query.as_str()).chain(passages.iter().map(String::as_str));
    let vocabulary = vocabulary::learn(texts, VOCABULARY_SIZE);
    Tokenizer::from_vocabulary(&vocabulary, Casing::default()).expect("a learned vocabulary has the special tokens")
}

/// Writes the demo into `folder`, which is made if missing: `train.jsonl` and `dev.jsonl` as pairs, and
/// `corpus.jsonl` (`{"_id", "text"}`), every passage of the world.
///
/// # Errors
/// Where the folder or a file cannot be written.
pub fn write_demo(folder: &Path) -> Result<(), DataError> {
    let Demo { train, held_out, passages } = demo();
    std::fs::create_dir_all(folder).map_err(|source| DataError::Write { path: folder.to_path_buf(), source })?;
    let pair = |pair: &Pair| json!({"query": pair.query, "positive": pair.positive, "negatives": pair.negatives});
    write_lines(folder.join("train.jsonl"), train.iter().map(pair))?;
    write_lines(folder.join("dev.jsonl"), held_out.iter().map(pair))?;
    let passage = |(index, text): (usize, &String)| json!({"_id": format!("p{index}"), "text": text});
    write_lines(folder.join("corpus.jsonl"), passages.iter().enumerate().map(passage))
}

fn write_lines(path: PathBuf, rows: impl Iterator<Item = serde_json::Value>) -> Result<(), DataError> {
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for row in rows {
            writeln!(file, "{row}")?;
        }
        file.flush()
    };
    write().map_err(|source| DataError::Write { path, source })
}

#[cfg(test)]
mod tests;
