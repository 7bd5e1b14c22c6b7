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

/// Whether a token that is looked for in texts, as they are or after the tokenizer's rules, lies within one word wherever it
/// is found.
pub(super) fn stays_within_a_word(token: &str) -> bool {
    token.bytes().all(|letter| letter.is_ascii_graphic())
}

/// A part of a text that is cut by itself.
#[derive(Clone, Copy)]
pub(super) enum Word<'a> {
    /// ASCII letters and digits, or one mark: a word for the tokenizer's rules, which at most change its casing.
    Whole(&'a str),
    /// Anything else between separators.
    Uncut(&'a str),
}

/// Words and their pieces, shared by all threads.
pub(super) struct KnownWords {
    pieces: RwLock<HashMap<Box<str>, Box<[u32]>>>,
    /// With what the tokens begin that are looked for in whatever stands between separators.
    beginnings: Vec<char>,
}

impl KnownWords {
    /// None yet, of a tokenizer with these added tokens.
    pub(super) fn beside<'a>(added: impl Iterator<Item = &'a str>) -> Self {
        KnownWords { pieces: RwLock::default(), beginnings: added.filter_map(|token| token.chars().next()).collect() }
    }

    /// What stands between two separators, cut where that is certain.
    fn cut<'a>(&self, text: &'a str) -> impl Iterator<Item = Word<'a>> {
        let begins =
            |letter: u8| self.beginnings.iter().any(|beginning| beginning.eq_ignore_ascii_case(&letter.into()));
        let certain = text.bytes().all(|letter| letter.is_ascii_graphic() && !begins(letter));
        let mut rest = text;
        std::iter::from_fn(move || {
            let letters = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let (word, after) = rest.split_at(if certain { letters.max(1).min(rest.len()) } else { rest.len() });
            rest = after;
            (!word.is_empty()).then_some(if certain { Word::Whole(word) } else { Word::Uncut(word) })
        })
    }

    /// The pieces of a text's first words, of as many as give `room` pieces. `pieces_of` finds those of a word that is not
    /// known.
    pub(super) fn pieces(&self, text: &str, room: usize, pieces_of: impl Fn(Word<'_>) -> Vec<u32>) -> Vec<u32> {
        let (mut pieces, mut new) = (Vec::new(), Vec::new());
        let mut known = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        for word in text.split(SEPARATORS).flat_map(|text| self.cut(text)) {
            let (Word::Whole(letters) | Word::Uncut(letters)) = word;
            if let Some(found) = known.get(letters) {
                pieces.extend_from_slice(found);
            } else {
                drop(known);
                let found = pieces_of(word);
                pieces.extend_from_slice(&found);
                if letters.len() <= LONGEST {
                    new.push((letters, found));
                }
                known = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
            }
            if pieces.len() >= room {
                break;
            }
        }
        drop(known);
        if !new.is_empty() {
            let owned = new.into_iter().map(|(word, pieces)| (word.into(), pieces.into()));
            let mut known = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
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
