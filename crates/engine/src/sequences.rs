//! The boundaries of sequences packed into one row of tokens.

use crate::device::Device;
use crate::error::{Result, ensure_shape};
use crate::tensor::Ids;

/// `S` sequences packed one after the other into `N` rows, without padding.
#[derive(Clone, Debug)]
pub struct Sequences {
    cu_seqlens: Ids,
    ids: Ids,
}

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
        Ok(Sequences {
            cu_seqlens: Ids::from_slice(device, &[cu_seqlens.len()], &cu_seqlens)?,
            ids: Ids::from_slice(device, &[ids.len()], ids)?,
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
        self.cu_seqlens.data()[self.len()] as usize
    }

    /// The rows of sequence `s`.
    pub fn range(&self, s: usize) -> std::ops::Range<usize> {
        let bounds = self.cu_seqlens.data();
        bounds[s] as usize..bounds[s + 1] as usize
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
}
