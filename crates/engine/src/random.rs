//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! Every draw has a name: what it is for, the step, layer, head, sequence and index. The same name gives the same
//! number whatever the order of work, the number of threads, the device or the batch.

use rayon::prelude::*;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// Blocks computed at once, so that the compiler can use vector registers.
const LANES: usize = 16;

/// What random numbers are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights.
    Weights = 0,
    /// Dropout after the embedding sum.
    EmbeddingDropout = 1,
    /// Dropout on attention probabilities.
    AttentionDropout = 2,
    /// Dropout after the attention's output projection.
    AttentionOutputDropout = 3,
    /// Dropout after the feed-forward block.
    FeedForwardDropout = 4,
    /// Evolution: the offset of the founders' systematic sample.
    Founders = 5,
    /// Evolution: a child's two parents, and whether it mixes them.
    Parents = 6,
    /// Evolution: each gene's origin and mutation.
    Genes = 7,
}

/// A place in the network where random numbers are drawn in one training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The run's seed: the key.
    pub seed: u64,
    /// The training step.
    pub step: u32,
    /// The layer, below 256.
    pub layer: u32,
    /// What the numbers are for.
    pub purpose: Purpose,
}

impl Site {
    /// The seed's two halves, the step, and purpose and layer where [`Site::stream`] puts them: what kernels on other
    /// devices take.
    pub(crate) fn words(self) -> [u32; 4] {
        let name = (self.purpose as u32) << 28 | (self.layer & 0xFF) << 20;
        [self.seed as u32, (self.seed >> 32) as u32, self.step, name]
    }

    /// The stream of one head (below 256) and generation (below 4096) of one sequence at this site.
    #[inline(always)]
    pub fn stream(self, sequence: u32, head: u32, generation: u32) -> Stream {
        let [seed_low, seed_high, step, name] = self.words();
        let name = name | (head & 0xFF) << 12 | (generation & 0xFFF);
        Stream { key: [seed_low, seed_high], counter: [name, sequence, step] }
    }
}

/// A sequence of blocks of four 32-bit numbers, addressed by index.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 3],
}

impl Stream {
    /// The stream of initial weights of the parameter `name`.
    pub fn weights(seed: u64, name: &str) -> Stream {
        // FNV-1a: any fixed 64-bit hash serves, and this one is short.
        let hash =
            name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        let site = Site { seed, step: (hash >> 32) as u32, layer: 0, purpose: Purpose::Weights };
        site.stream(hash as u32, 0, 0)
    }

    /// The block of that index.
    #[inline(always)]
    pub fn block(&self, index: u32) -> [u32; 4] {
        let [a, b, c] = self.counter;
        philox([index, a, b, c], self.key)
    }

    /// Fills `draws` with the numbers of the blocks from `first` on, four from each.
    #[inline(always)]
    pub fn fill(&self, first: u32, draws: &mut [u32]) {
        let mut index = first;
        let keys = round_keys(self.key);
        let (groups, rest) = draws.as_chunks_mut();
        for group in groups {
            self.lanes(&keys, index, group);
            index = index.wrapping_add(LANES as u32);
        }
        if !rest.is_empty() {
            let mut group = [0; 4 * LANES];
            self.lanes(&keys, index, &mut group);
            rest.copy_from_slice(&group[..rest.len()]);
        }
    }

    /// [`Stream::block`] for `LANES` indices from `first` on, with the stream's keys.
    #[inline(always)]
    fn lanes(&self, keys: &RoundKeys, first: u32, out: &mut [u32; 4 * LANES]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has the instructions.
            return unsafe { avx512::lanes(self.counter, keys, first, out) };
        }
        self.lanes_anywhere(keys, first, out);
    }

    /// Written so that each line is one vector instruction.
    #[inline(always)]
    fn lanes_anywhere(&self, keys: &RoundKeys, first: u32, out: &mut [u32; 4 * LANES]) {
        let mut x0: [u32; LANES] = std::array::from_fn(|lane| first.wrapping_add(lane as u32));
        let mut x1 = [self.counter[0]; LANES];
        let mut x2 = [self.counter[1]; LANES];
        let mut x3 = [self.counter[2]; LANES];
        for key in keys {
            for lane in 0..LANES {
                let p0 = u64::from(x0[lane]) * u64::from(MULTIPLIERS[0]);
                let p1 = u64::from(x2[lane]) * u64::from(MULTIPLIERS[1]);
                x0[lane] = (p1 >> 32) as u32 ^ x1[lane] ^ key[0];
                x1[lane] = p1 as u32;
                x2[lane] = (p0 >> 32) as u32 ^ x3[lane] ^ key[1];
                x3[lane] = p0 as u32;
            }
        }
        for (lane, quad) in out.chunks_exact_mut(4).enumerate() {
            quad.copy_from_slice(&[x0[lane], x1[lane], x2[lane], x3[lane]]);
        }
    }
}

/// The two keys of each round.
type RoundKeys = [[u32; 2]; ROUNDS];

#[inline(always)]
fn round_keys(key: [u32; 2]) -> RoundKeys {
    std::array::from_fn(|round| [0, 1].map(|i| key[i].wrapping_add(WEYL[i].wrapping_mul(round as u32))))
}

/// Philox4x32-10.
#[inline(always)]
fn philox(mut x: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    for key in round_keys(key) {
        let p0 = u64::from(x[0]) * u64::from(MULTIPLIERS[0]);
        let p1 = u64::from(x[2]) * u64::from(MULTIPLIERS[1]);
        x = [(p1 >> 32) as u32 ^ x[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ x[3] ^ key[1], p0 as u32];
    }
    x
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_mask_shuffle_epi32, _mm512_mul_epu32, _mm512_set_epi32, _mm512_set1_epi32,
        _mm512_shuffle_epi32, _mm512_storeu_si512, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi64, _mm512_xor_si512,
    };

    use super::{LANES, MULTIPLIERS, RoundKeys};

    /// 16 blocks of the generator, in two groups whose instructions do not wait for each other. The multiplication
    /// takes every other number, so a register holds one number of eight blocks, each in the low half of its place; what
    /// is in the high halves does not count.
    #[target_feature(enable = "avx512f")]
    pub fn lanes(counter: [u32; 3], keys: &RoundKeys, first: u32, out: &mut [u32; 4 * LANES]) {
        const XOR: i32 = 0x96;
        const ODD: u16 = 0xAAAA;
        const HIGH: i32 = 0b11_11_01_01;
        const LOW: i32 = 0b10_10_00_00;
        let all = |x: u32| _mm512_set1_epi32(x as i32);
        // Blocks 0 and 4, 1 and 5 and so on: in the end, halves of a register that follow each other are blocks that do.
        let places = _mm512_set_epi32(0, 7, 0, 3, 0, 6, 0, 2, 0, 5, 0, 1, 0, 4, 0, 0);
        let multipliers = MULTIPLIERS.map(all);
        let high = _mm512_shuffle_epi32::<HIGH>;
        // Only the first number differs from block to block: what the others become in the first two rounds is one for all.
        let [once, twice] = [keys[0], keys[1]];
        let product = u64::from(counter[1]) * u64::from(MULTIPLIERS[1]);
        let same = [(product >> 32) as u32 ^ counter[0] ^ once[0], product as u32];
        let product = u64::from(same[0]) * u64::from(MULTIPLIERS[0]);
        let same = [same[1] ^ twice[0], (product >> 32) as u32 ^ twice[1], product as u32].map(all);
        let group = |ahead: u32| {
            let index = _mm512_add_epi32(all(first.wrapping_add(ahead)), places);
            let product0 = _mm512_mul_epu32(index, multipliers[0]);
            let third = _mm512_xor_si512(high(product0), all(counter[2] ^ once[1]));
            let product1 = _mm512_mul_epu32(third, multipliers[1]);
            [_mm512_xor_si512(high(product1), same[0]), product1, _mm512_xor_si512(product0, same[1]), same[2]]
        };
        let mut groups: [[__m512i; 4]; 2] = [group(0), group(8)];
        let mut round = |key: &[u32; 2]| {
            let key = [all(key[0]), all(key[1])];
            for x in &mut groups {
                let [product0, product1] =
                    [_mm512_mul_epu32(x[0], multipliers[0]), _mm512_mul_epu32(x[2], multipliers[1])];
                let mixed = |product, x, key| _mm512_ternarylogic_epi32::<XOR>(high(product), x, key);
                *x = [mixed(product1, x[1], key[0]), product1, mixed(product0, x[3], key[1]), product0];
            }
        };
        // Two at a time, after which numbers stand where they stood.
        for [one, other] in keys[2..].as_chunks().0 {
            round(one);
            round(other);
        }
        for (x, out) in groups.iter().zip(out.chunks_exact_mut(2 * LANES)) {
            let low = _mm512_mask_shuffle_epi32::<LOW>(x[0], ODD, x[1]);
            let high = _mm512_mask_shuffle_epi32::<LOW>(x[2], ODD, x[3]);
            // SAFETY: a part is twice 16 numbers.
            unsafe {
                _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_unpacklo_epi64(low, high));
                _mm512_storeu_si512(out.as_mut_ptr().add(LANES).cast(), _mm512_unpackhi_epi64(low, high));
            }
        }
    }
}

/// The draw below which an element is dropped, of 2³².
pub(crate) fn threshold(probability: f32) -> u32 {
    (f64::from(probability) * 4_294_967_296.0) as u32
}

/// The 24 highest of 32 random bits, as a whole number, times this are a number in [0, 1).
pub(crate) const UNIT: f32 = 1.0 / 16_777_216.0;

/// A number in [0, 1) from 32 random bits, with 24 bits of resolution.
#[inline(always)]
pub fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * UNIT
}

/// Normal draws of the given standard deviation (Box–Muller), one per element of `out`.
pub fn fill_normal(stream: &Stream, deviation: f32, out: &mut [f32]) {
    /// Numbers that a thread draws at once.
    const PART: usize = 4096;
    out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
        let mut bits = [0; PART];
        stream.fill((part * PART / 4) as u32, &mut bits);
        for (pair, bits) in out.chunks_mut(2).zip(bits.as_chunks().0) {
            let normals: [f32; 2] = normal_pair(*bits);
            pair.copy_from_slice(&normals.map(|normal| normal * deviation)[..pair.len()]);
        }
    });
}

/// Two independent normal draws from two uniform ones.
fn normal_pair([radius, angle]: [u32; 2]) -> [f32; 2] {
    let radius = (-2.0 * (1.0 - f64::from(unit(radius))).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * f64::from(unit(angle))).sin_cos();
    [(radius * cos) as f32, (radius * sin) as f32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers from the authors' Random123 distribution, `kat_vectors`, "philox4x32 10".
    #[test]
    fn philox_gives_the_published_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn filling_many_gives_the_same_numbers_as_asking_for_each() {
        let stream = Site { seed: 7, step: 3, layer: 2, purpose: Purpose::Genes }.stream(9, 1, 4);
        let mut draws = vec![0; 4 * 37 + 3];
        stream.fill(5, &mut draws);
        for (i, &draw) in draws.iter().enumerate() {
            assert_eq!(draw, stream.block(5 + i as u32 / 4)[i % 4]);
        }
        let mut group = [0; 4 * LANES];
        stream.lanes_anywhere(&round_keys(stream.key), 5, &mut group);
        assert_eq!(group, draws[..4 * LANES]);
    }

    #[test]
    fn every_part_of_a_name_changes_the_numbers() {
        let site = Site { seed: 1, step: 1, layer: 1, purpose: Purpose::Genes };
        let others = [
            Site { seed: 2, ..site }.stream(1, 1, 1),
            Site { seed: 1 << 40, ..site }.stream(1, 1, 1),
            Site { step: 2, ..site }.stream(1, 1, 1),
            Site { layer: 2, ..site }.stream(1, 1, 1),
            Site { purpose: Purpose::Parents, ..site }.stream(1, 1, 1),
            site.stream(2, 1, 1),
            site.stream(1, 2, 1),
            site.stream(1, 1, 2),
        ];
        for other in others {
            assert_ne!(other.block(0), site.stream(1, 1, 1).block(0));
        }
    }

    #[test]
    fn normal_draws_have_the_mean_and_deviation_asked_for() {
        let mut draws = vec![0.0; 100_000];
        fill_normal(&Stream::weights(3, "w"), 0.02, &mut draws);
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / draws.len() as f32;
        assert!(mean.abs() < 3e-4 && (variance.sqrt() - 0.02).abs() < 2e-4, "{mean} {variance}");
    }
}
