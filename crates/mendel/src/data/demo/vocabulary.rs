//! A WordPiece vocabulary learned by merging frequent pairs of pieces.
//!
//! The trainer of the `tokenizers` crate numbers pieces and breaks ties in the order of randomly seeded hash maps, so
//! two processes can get two vocabularies. Here equal counts go to the alphabetically first pair.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The tokens that BERT needs, in BERT's order.
pub(super) const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// A pair that stands in one word only is not worth an entry.
const LEAST_COUNT: usize = 2;

/// At most `size` tokens, in the order of their ids: the special ones, then single letters, then merged pieces.
pub(super) fn learn<'a>(texts: impl Iterator<Item = &'a str>, size: usize) -> Vec<String> {
    let mut words = spelled_words(texts);
    let letters: BTreeSet<String> = words.iter().flat_map(|(pieces, _)| pieces.iter().cloned()).collect();
    let mut vocabulary: Vec<String> = SPECIAL_TOKENS.iter().map(|token| token.to_string()).chain(letters).collect();
    let mut known: BTreeSet<String> = vocabulary.iter().cloned().collect();
    let mut counts = PairCounts::default();
    for (word, (pieces, count)) in words.iter().enumerate() {
        counts.add(word, pieces, *count as isize);
    }
    while vocabulary.len() < size {
        let Some((left, right)) = counts.most_frequent() else { break };
        let merged = format!("{left}{}", right.trim_start_matches("##"));
        for word in counts.words_with(&left, &right) {
            let (pieces, count) = &mut words[word];
            counts.add(word, pieces, -(*count as isize));
            *pieces = merge(pieces, &left, &right, &merged);
            counts.add(word, pieces, *count as isize);
        }
        if known.insert(merged.clone()) {
            vocabulary.push(merged);
        }
    }
    vocabulary
}

/// The distinct words, each as its single letters, with how often it occurs.
fn spelled_words<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<(Vec<String>, usize)> {
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        for word in bert_words(&text.to_lowercase()) {
            *words.entry(word.to_string()).or_default() += 1;
        }
    }
    let spell = |(place, letter): (usize, char)| if place == 0 { letter.to_string() } else { format!("##{letter}") };
    words.into_iter().map(|(word, count)| (word.chars().enumerate().map(spell).collect(), count)).collect()
}

/// As BERT's pre-tokenizer splits: at white space, and every punctuation mark is a word.
fn bert_words(text: &str) -> impl Iterator<Item = &str> {
    let is_mark = |letter: char| letter.is_ascii_punctuation();
    text.split_whitespace().flat_map(move |word| word.split_inclusive(is_mark)).flat_map(move |part| {
        let (word, mark) = part.split_at(part.trim_end_matches(is_mark).len());
        [word, mark].into_iter().filter(|piece| !piece.is_empty())
    })
}

fn merge(pieces: &[String], left: &str, right: &str, merged: &str) -> Vec<String> {
    let mut result: Vec<String> = Vec::with_capacity(pieces.len());
    let mut place = 0;
    while place < pieces.len() {
        if pieces[place] == left && pieces.get(place + 1).is_some_and(|next| next == right) {
            result.push(merged.to_string());
            place += 2;
        } else {
            result.push(pieces[place].clone());
            place += 1;
        }
    }
    result
}

/// How often each pair of neighbouring pieces occurs, and in which words it may occur.
#[derive(Default)]
struct PairCounts {
    pairs: HashMap<(String, String), (usize, BTreeSet<usize>)>,
}

impl PairCounts {
    fn add(&mut self, word: usize, pieces: &[String], count: isize) {
        for pair in pieces.windows(2) {
            let entry = self.pairs.entry((pair[0].clone(), pair[1].clone())).or_default();
            entry.0 = entry.0.saturating_add_signed(count);
            entry.1.insert(word);
        }
    }

    /// The order of the map does not show: no two pairs compare equal.
    fn most_frequent(&self) -> Option<(String, String)> {
        let best = self.pairs.iter().max_by_key(|(pair, (count, _))| (*count, Reverse(*pair)))?;
        (best.1.0 >= LEAST_COUNT).then(|| best.0.clone())
    }

    fn words_with(&self, left: &str, right: &str) -> Vec<usize> {
        let pair = (left.to_string(), right.to_string());
        self.pairs.get(&pair).map(|(_, words)| words.iter().copied().collect()).unwrap_or_default()
    }
}
