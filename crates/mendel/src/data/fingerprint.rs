//! Short names for texts, and for data as a whole.

use sha2::{Digest, Sha256};

/// A number that equal texts share and, but for one chance in 2⁶⁴, different ones do not.
pub type TextKey = u64;

/// The key of a text: the first bytes of its SHA-256, the same everywhere.
pub fn text_key(text: &str) -> TextKey {
    first_bytes(Sha256::digest(text).as_slice())
}

/// The number that decides whether a query is held out: blind to case, punctuation and spacing.
pub fn query_hash(query: &str) -> u64 {
    let lower = query.to_lowercase();
    let words: Vec<&str> =
        lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    text_key(&words.join(" "))
}

fn first_bytes(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// What data is recognised by: SHA-256 over numbers, keys of texts for the most part.
#[derive(Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Goes on with a number.
    pub fn add(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    /// Goes on with bytes, their count first, so that no two sequences of them read alike.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// All that was added, in hex.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_part_a_query_from_itself() {
        assert_eq!(query_hash("What is  DNA?"), query_hash("what is dna"));
        assert_ne!(query_hash("what is rna"), query_hash("what is dna"));
    }

    #[test]
    fn keys_are_the_same_on_every_platform() {
        // sha256("abc") begins ba7816bf 8f01cfea.
        assert_eq!(text_key("abc"), 0xba78_16bf_8f01_cfea);
    }
}
