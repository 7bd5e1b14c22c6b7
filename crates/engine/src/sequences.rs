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
    mask_words: usize,
}

/// Queries, or keys, that a GPU's kernels of attention take at once.
pub(crate) const TILE: usize = 64;
/// Those of one warp.
const WARP_ROWS: usize = 16;
/// Words of a tile in [`Sequences::tiles`].
const TILE_WORDS: usize = 4 * 8;

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
        let mut mask_words = 0;
        let warps: Vec<[u32; 5]> = (0..lengths.len())
            .map(|sequence| {
                let begin = mask_words as u32;
                mask_words += lengths[sequence].next_multiple_of(WARP_ROWS).pow(2) / 32;
                [sequence as u32, ids[sequence], cu_seqlens[sequence], lengths[sequence] as u32, begin]
            })
            .collect();
        let plan = device.gpu().map(|_| (owners(lengths), tiles(&warps))).unwrap_or_default();
        Ok(Sequences {
            cu_seqlens: on_device(&cu_seqlens)?,
            ids: on_device(ids)?,
            owners: on_device(&plan.0)?,
            tiles: on_device(&plan.1)?,
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

    /// `[tiles, 4, 8]` on a GPU, else empty: what each of the four warps of a block of attention's kernels takes,
    /// [`WARP_ROWS`] rows of a tile of [`TILE`]. Its sequence, that one's number, first row and length; the tile's position
    /// in it, whether each warp has a sequence of its own, and where the sequence's masks begin. A warp that has none has
    /// length 0. The longest come first, which have the most work.
    pub(crate) fn tiles(&self) -> &Ids {
        &self.tiles
    }

    /// How many rows [`Sequences::tiles`] has.
    pub(crate) fn tile_count(&self) -> usize {
        self.tiles.len() / TILE_WORDS
    }

    /// 32-bit words of a head's dropout masks. A pair of a query and a key has a bit, and both are filled up to multiples of
    /// [`WARP_ROWS`].
    pub(crate) fn mask_words(&self) -> usize {
        self.mask_words
    }
}

fn owners(lengths: &[usize]) -> Vec<u32> {
    (0..).zip(lengths).flat_map(|(sequence, &length)| std::iter::repeat_n(sequence, length)).collect()
}

/// From each sequence's place, number, first row, length and begin of masks.
fn tiles(sequences: &[[u32; 5]]) -> Vec<u32> {
    let mut longest_first = sequences.to_vec();
    longest_first.sort_by_key(|&[_, _, _, length, _]| std::cmp::Reverse(length));
    let short = longest_first.partition_point(|&[_, _, _, length, _]| length as usize > WARP_ROWS);
    let (long, short) = longest_first.split_at(short);
    let warp = |&[sequence, id, first_row, length, masks]: &[u32; 5], position: usize, alone: bool| {
        [sequence, id, first_row, length, position as u32, u32::from(alone), masks, 0]
    };
    let long = long.iter().flat_map(|of| (0..of[3] as usize).step_by(TILE).map(move |at| [warp(of, at, false); 4]));
    let short = short.chunks(4).map(|four| {
        std::array::from_fn(|place| four.get(place).map_or(warp(&[0; 5], 0, true), |of| warp(of, 0, true)))
    });
    long.chain(short).flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_the_longest_first_and_short_sequences_by_fours() {
        let lengths = [9, 16, 65, 9, 9, 17, 1];
        let sequences: Vec<[u32; 5]> =
            (0..).zip(lengths).map(|(n, length)| [n, 10 + n, 20 + n, length, 30 + n]).collect();
        let all = tiles(&sequences);
        let of = |n: u32, position, alone| [n, 10 + n, 20 + n, lengths[n as usize], position, alone, 30 + n, 0];
        let shared = |n, position| [of(n, position, 0); 4];
        let none = [0, 0, 0, 0, 0, 1, 0, 0];
        let expected = [
            shared(2, 0),
            shared(2, 64),
            shared(5, 0),
            [of(1, 0, 1), of(0, 0, 1), of(3, 0, 1), of(4, 0, 1)],
            [of(6, 0, 1), none, none, none],
        ];
        assert_eq!(all, expected.as_flattened().as_flattened());
    }
}
