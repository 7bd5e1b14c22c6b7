//! The pieces of words that were met before: most of a text is, and finding them again is far cheaper than cutting anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// Words that are remembered, about 30 MB; then they are forgotten, lest a file that begins with names fill all for good.
const MOST: usize = 1 << 18;
/// Bytes of the longest word that is remembered.
const LONGEST: usize = 48;

/// What separates words. Other white space either does so only after the tokenizer's rules have changed the text, or, as a
/// form feed, is dropped by them.
const SEPARATORS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Whether a token that is found in texts as they are, or in normalised ones, lies within one word wherever it is found.
pub(super) fn stays_within_a_word(token: &str, normalized: bool) -> bool {
    if normalized { token.chars().all(|letter| letter.is_ascii_graphic()) } else { !token.contains(SEPARATORS) }
}

/// Words and their pieces, shared by all threads.
#[derive(Default)]
pub(super) struct KnownWords(RwLock<HashMap<Box<str>, Box<[u32]>>>);

impl KnownWords {
    /// The pieces of a text's first words, of as many as give `room` pieces. `cut` cuts a word that is not known.
    pub(super) fn pieces(&self, text: &str, room: usize, cut: impl Fn(&str) -> Vec<u32>) -> Vec<u32> {
        let (mut pieces, mut new) = (Vec::new(), Vec::new());
        let mut known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for word in text.split(SEPARATORS).filter(|word| !word.is_empty()) {
            if let Some(found) = known.get(word) {
                pieces.extend_from_slice(found);
            } else {
                drop(known);
                let cut = cut(word);
                pieces.extend_from_slice(&cut);
                if word.len() <= LONGEST {
                    new.push((word, cut));
                }
                known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            }
            if pieces.len() >= room {
                break;
            }
        }
        drop(known);
        if !new.is_empty() {
            let owned = new.into_iter().map(|(word, pieces)| (word.into(), pieces.into()));
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MOST {
                known.clear();
            }
            known.extend(owned);
        }
        pieces
    }
}

impl fmt::Debug for KnownWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownWords").finish_non_exhaustive()
    }
}
