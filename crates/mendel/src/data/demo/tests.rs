use std::collections::{BTreeMap, HashSet};

use super::*;

/// Mean reciprocal rank at 10 of the cosine between the counts of word pieces: what shared words alone find.
fn bag_of_pieces_mrr(set: &EvaluationSet) -> f64 {
    let tokenizer = demo_tokenizer();
    let bag = |text: &String| {
        let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
        for id in tokenizer.encode(text, 512) {
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
        let score = |passage: &BTreeMap<u32, f64>| query.iter().filter_map(|(id, x)| passage.get(id).map(|y| x * y)).sum::<f64>();
        let best = relevant.iter().map(|&index| score(&passages[index])).fold(0.0, f64::max);
        let above = passages.iter().filter(|passage| score(passage) > best).count();
        total += if above < 10 { 1.0 / (above as f64 + 1.0) } else { 0.0 };
    }
    total / set.queries.len() as f64
}

#[test]
fn shared_words_alone_do_not_find_the_passage() {
    let mrr = bag_of_pieces_mrr(&demo().evaluation_set());
    eprintln!("bag of word pieces: MRR@10 {mrr:.3}");
    assert!(mrr < 0.25, "MRR@10 {mrr:.3}");
}

#[test]
fn show() {
    let demo = demo();
    eprintln!("train {} held out {} passages {}", demo.train.len(), demo.held_out.len(), demo.passages.len());
    for pair in &demo.train[..12] {
        eprintln!("{pair:#?}");
    }
    let t = std::time::Instant::now();
    let tok = demo_tokenizer();
    eprintln!("vocab {} in {:?}", tok.vocab_size(), t.elapsed());
    let lens: Vec<usize> = demo.passages.iter().map(|p| tok.encode(p, 512).len()).collect();
    eprintln!("tokens mean {} max {:?}", lens.iter().sum::<usize>() / lens.len(), lens.iter().max());
    let lens: Vec<usize> = demo.train.iter().map(|p| tok.encode(&p.query, 512).len()).collect();
    eprintln!("query tokens mean {} max {:?}", lens.iter().sum::<usize>() / lens.len(), lens.iter().max());
    if let Ok(f) = std::env::var("DEMO_OUT") { write_demo(Path::new(&f)).unwrap(); tok.save(Path::new(&f)).unwrap(); }
    let _ = HashSet::<u8>::new();
}
