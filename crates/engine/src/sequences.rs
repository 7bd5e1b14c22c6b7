//! The boundaries of sequences packed into one row of tokens.

use std::sync::Arc;

use crate::device::Device;
use crate::error::{Result, ensure_shape};
use crate::tensor::Ids;

/// `S` sequences packed one after the other into `N` rows, without padding.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// The same as `cu_seqlens`, for the host.
    bounds: Arc<[u32]>,
    cu_seqlens: Ids,
    ids: Ids,
    owners: Ids,
    tiles: Ids,
    mask_begins: Ids,
    mask_words: usize,
}

/// Queries, or keys, that a GPU's kernels of attention take at once.
pub(crate) const TILE: usize = 64;
/// Those of one warp.
const WARP_ROWS: usize = 16;
/// Words of a row of [`Sequences::tiles`].
const TILE_WORDS: usize = 5;
/// In place of a sequence, where a warp has none.
const NO_SEQUENCE: u32 = u32::MAX;

impl Sequences {
    /// From the length of each sequence and the number by which the random generator knows it.
    /// A sequence keeps its number whatever batch it stands in. Lengths must be at least 1.
    pub fn new(device: &Device, lengths: &[usize], ids: &[u32]) -> Result<Self> {
        ensure_shape!(
            lengths.len() == ids.len(),
            "sequences",
            "{} lengths but {} sequence ids",
            lengths.len(),
            ids.len()
        );
        let mut cu_seqlens = Vec::with_capacity(lengths.len() + 1);
        cu_seqlens.push(0);
        let mut end = 0;
        for (place, &length) in lengths.iter().enumerate() {
            ensure_shape!(length > 0, "sequences", "sequence {place} is empty");
            end += length;
            ensure_shape!(u32::try_from(end).is_ok(), "sequences", "more than 2^32 tokens in one batch");
            cu_seqlens.push(end as u32);
        }
        let on_device = |numbers: &[u32]| Ids::known_from_slice(device, &[numbers.len()], numbers);
        let plan = device.gpu().map(|_| (owners(lengths), tiles(lengths))).unwrap_or_default();
        let mut mask_words = 0;
        let mask_begins: Vec<u32> = lengths
            .iter()
            .map(|length| {
                let begin = mask_words as u32;
                mask_words += length.div_ceil(TILE).pow(2) * TILE * TILE / 32;
                begin
            })
            .collect();
        Ok(Sequences {
            cu_seqlens: on_device(&cu_seqlens)?,
            ids: on_device(ids)?,
            owners: on_device(&plan.0)?,
            tiles: on_device(&plan.1)?,
            mask_begins: on_device(if device.gpu().is_some() { &mask_begins } else { &[] })?,
            mask_words,
            bounds: cu_seqlens.into(),
        })
    }

    /// The number of sequences `S`.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The number of tokens `N` in all sequences.
    pub fn tokens(&self) -> usize {
        self.bounds[self.len()] as usize
    }

    /// The rows of sequence `s`.
    pub fn range(&self, s: usize) -> std::ops::Range<usize> {
        self.bounds[s] as usize..self.bounds[s + 1] as usize
    }

    /// The rows of every sequence in order.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        (0..self.len()).map(|s| self.range(s))
    }

    /// `[S + 1]`: where each sequence begins, and the end of the last.
    pub fn cu_seqlens(&self) -> &Ids {
        &self.cu_seqlens
    }

    /// `[S]`: the number by which the random generator knows each sequence.
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// `[N]` on a GPU, else empty: the sequence of each token.
    pub(crate) fn owners(&self) -> &Ids {
        &self.owners
    }

    /// `[tiles, 5]` on a GPU, else empty: what the four warps of a block of attention's kernels take, [`WARP_ROWS`] rows
    /// each. That is a sequence for each, and the position of the tile of [`TILE`] rows in it: the same sequence for all
    /// four, or four short ones, of which [`NO_SEQUENCE`] are missing. The longest come first, which have the most work.
    pub(crate) fn tiles(&self) -> &Ids {
        &self.tiles
    }

    /// How many rows [`Sequences::tiles`] has.
    pub(crate) fn tile_count(&self) -> usize {
        self.tiles.len() / TILE_WORDS
    }
}

impl Sequences {
    /// `[S]` on a GPU, else empty: where each sequence's dropout masks begin, of a head's, in 32-bit words. A pair of a
    /// query and a key has a bit, and both are filled up to whole tiles.
    pub(crate) fn mask_begins(&self) -> &Ids {
        &self.mask_begins
    }

    /// Words of a head's masks.
    pub(crate) fn mask_words(&self) -> usize {
        self.mask_words
    }
}

fn owners(lengths: &[usize]) -> Vec<u32> {
    (0..).zip(lengths).flat_map(|(sequence, &length)| std::iter::repeat_n(sequence, length)).collect()
}

fn tiles(lengths: &[usize]) -> Vec<u32> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&sequence| std::cmp::Reverse(lengths[sequence]));
    let short = longest_first.partition_point(|&sequence| lengths[sequence] > WARP_ROWS);
    let (long, short) = longest_first.split_at(short);
    let long = long.iter().flat_map(|&sequence| {
        (0..lengths[sequence]).step_by(TILE).map(move |position| ([sequence as u32; 4], position as u32))
    });
    let short = short.chunks(4).map(|four| {
        let sequences = std::array::from_fn(|warp| four.get(warp).map_or(NO_SEQUENCE, |&sequence| sequence as u32));
        (sequences, 0)
    });
    long.chain(short).flat_map(|([a, b, c, d], position)| [a, b, c, d, position]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_the_longest_first_and_short_sequences_by_fours() {
        let none = NO_SEQUENCE;
        #[rustfmt::skip]
        let expected = [
            2, 2, 2, 2, 0,  2, 2, 2, 2, 64,
            5, 5, 5, 5, 0,
            1, 0, 3, 4, 0,  6, none, none, none, 0,
        ];
        assert_eq!(tiles(&[9, 16, 65, 9, 9, 17, 1]), expected);
    }
}
