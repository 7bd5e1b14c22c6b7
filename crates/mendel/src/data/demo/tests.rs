use std::collections::{BTreeMap, BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use super::vocabulary::SPECIAL_TOKENS;
use super::world::Kind;
use super::*;
use crate::Settings;
use crate::data::{LoadOptions, inspect, load};
use crate::progress::Silent;

fn encoder() -> TextEncoder {
    TextEncoder::new(demo_tokenizer(), &Settings::default(), 512)
}

/// Mean reciprocal rank at 10 of the cosine between the counts of word pieces: what shared words alone find.
fn bag_of_pieces_mrr(set: &EvaluationSet) -> f64 {
    let bag = |text: &Vec<u32>| {
        let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
        for &id in text {
            *counts.entry(id).or_default() += 1.0;
        }
        let norm = counts.values().map(|count| count * count).sum::<f64>().sqrt();
        counts.values_mut().for_each(|count| *count /= norm);
        counts
    };
    let passages: Vec<BTreeMap<u32, f64>> = set.passages.iter().map(bag).collect();
    let mut total = 0.0;
    for (query, relevant) in set.queries.iter().zip(&set.relevant) {
        let query = bag(query);
        let score = |passage: &BTreeMap<u32, f64>| {
            query.iter().filter_map(|(id, x)| passage.get(id).map(|y| x * y)).sum::<f64>()
        };
        let best = relevant.iter().map(|&index| score(&passages[index])).fold(0.0, f64::max);
        let above = passages.iter().filter(|passage| score(passage) > best).count();
        total += if above < 10 { 1.0 / (above as f64 + 1.0) } else { 0.0 };
    }
    total / set.queries.len() as f64
}

#[test]
fn shared_words_alone_do_not_find_the_passage() {
    let mrr = bag_of_pieces_mrr(&demo().evaluation_set(&encoder()));
    eprintln!("bag of word pieces: MRR@10 {mrr:.3}");
    assert!(mrr < 0.25, "MRR@10 {mrr:.3}");
}

#[test]
fn the_demo_has_the_sizes_that_it_says() {
    let demo = demo();
    assert_eq!((demo.train.len(), demo.held_out.len(), demo.passages.len()), (5214, 450, 1930));
    let distinct: HashSet<&String> = demo.passages.iter().collect();
    assert_eq!(distinct.len(), demo.passages.len());
    let pairs = || demo.train.iter().chain(&demo.held_out);
    assert!(pairs().all(|pair| distinct.contains(&pair.positive)));
    assert!(pairs().all(|pair| pair.negatives.len() == 4 && !pair.negatives.contains(&pair.positive)));
    let set = demo.evaluation_set(&encoder());
    assert_eq!((set.queries.len(), set.passages.len()), (450, 1930));
}

#[test]
fn the_demo_is_the_same_bytes_everywhere() {
    let inspection = inspect("demo", None, &mut Silent).unwrap();
    assert_eq!(inspection.fingerprint, "b6f23016071f96b2df2a5680961019f685d524969f99cda75043ad04fb83243c");
    let saved = tempfile::tempdir().unwrap();
    demo_tokenizer().save(saved.path()).unwrap();
    let vocabulary = std::fs::read(saved.path().join("vocab.txt")).unwrap();
    let digest: String = Sha256::digest(vocabulary).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "db481ff6fda15f45d31ac5bd9345401d4db7c8eb9ec40917e991df0ff10a3b6d");
}

#[test]
fn held_out_questions_are_not_asked_in_training_and_a_quarter_of_their_facts_never_is() {
    let bare = |pair: &Pair| pair.query.trim_end_matches('?').to_string();
    let demo = demo();
    let asked: HashSet<String> = demo.train.iter().map(bare).collect();
    assert!(demo.held_out.iter().all(|pair| !asked.contains(&bare(pair))));

    let world = World::new(&mut SplitMix64::keyed(&[SEED]));
    let ways: Vec<Vec<String>> = (0..world.facts.len())
        .map(|fact| {
            let name = world.entities[world.facts[fact].subject].name.to_lowercase();
            world.relation(fact).questions.iter().map(|question| question.replace("{s}", &name)).collect()
        })
        .collect();
    let never_asked: HashSet<&String> =
        ways.iter().filter(|ways| !ways.iter().any(|way| asked.contains(way))).flatten().collect();
    let about_them = demo.held_out.iter().filter(|pair| never_asked.contains(&bare(pair))).count();
    assert_eq!(about_them, NEVER_ASKED_FACTS);
}

/// Words that any question or statement may have.
const PLAIN_WORDS: &str = "a an and are at by can could did do does every for from get gets give gives had has have how i in into \
    is it keeps like look most no of on one or out own should some than that the they this to up was were what when where \
    which who whom whose why with would";

#[test]
fn questions_have_other_telling_words_than_the_statements_of_their_relation() {
    let telling = |templates: &[&str]| -> BTreeSet<String> {
        let words = templates.iter().flat_map(|template| template.split(|letter: char| !letter.is_alphabetic()));
        let words = words.map(str::to_lowercase).filter(|word| word.len() > 1);
        words.filter(|word| !PLAIN_WORDS.split_whitespace().any(|plain| plain == word)).collect()
    };
    for kind in [Kind::Person, Kind::Town, Kind::Company, Kind::Animal, Kind::Machine] {
        for relation in relations_of(kind) {
            let (stated, asked) = (telling(&relation.statements), telling(&relation.questions));
            let shared: Vec<&String> = stated.intersection(&asked).collect();
            assert!(shared.is_empty(), "{shared:?} in {:?} and {:?}", relation.statements, relation.questions);
            let templates = || relation.statements.iter().chain(&relation.questions);
            assert!(templates().all(|template| template.matches("{s}").count() == 1));
            assert!(relation.statements.iter().all(|statement| statement.matches("{o}").count() == 1));
        }
    }
}

#[test]
fn the_vocabulary_spells_every_text_of_the_demo() {
    let demo = demo();
    let tokenizer = demo_tokenizer();
    assert_eq!(tokenizer.vocab_size(), VOCABULARY_SIZE);
    let unknown = SPECIAL_TOKENS.iter().position(|token| *token == "[UNK]").unwrap() as u32;
    let texts = demo.passages.iter().chain(demo.held_out.iter().map(|pair| &pair.query));
    for text in texts {
        let ids = tokenizer.encode(text, 64);
        assert!(!ids.contains(&unknown) && ids.len() < 64, "{text}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    write_demo(folder.path()).unwrap();
    let read = |path: &Path| load(path.to_str().unwrap(), &LoadOptions::default(), &mut Silent).unwrap().pairs;
    let demo = demo();
    assert_eq!(read(&folder.path().join("train.jsonl")), demo.train);
    assert_eq!(read(&folder.path().join("dev.jsonl")), demo.held_out);
    assert_eq!(read(folder.path()), demo.train);
}
