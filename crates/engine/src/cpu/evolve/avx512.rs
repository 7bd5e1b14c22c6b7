//! What the compiler does not turn into vector instructions by itself: choices, lists and sums across registers.

use std::arch::x86_64::{
    __m512i, _CMP_LT_OQ, _mm_cvtsi32_si128, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_alignr_epi32,
    _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_cmplt_epi32_mask,
    _mm512_cmplt_epu32_mask, _mm512_cvtepi32_ps, _mm512_cvtepu32_ps, _mm512_cvttps_epu32, _mm512_div_ps,
    _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mask_add_epi32, _mm512_mask_blend_epi32,
    _mm512_mask_cmple_epu32_mask, _mm512_mask_cmplt_epu32_mask, _mm512_mask_i32gather_epi32, _mm512_mask_loadu_epi32,
    _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps, _mm512_maskz_compress_epi32, _mm512_maskz_loadu_epi32,
    _mm512_maskz_loadu_ps, _mm512_maskz_or_epi32, _mm512_mul_epu32, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_permutex2var_epi32, _mm512_permutexvar_epi32, _mm512_rol_epi32, _mm512_set_epi32, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_sll_epi32, _mm512_srl_epi32,
    _mm512_srli_epi32, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::breeding::{Breeding, words_of_draws};
use super::genes::{MOST_CARRIED, WHOLE, words_of};
use super::selection::{Couples, SIBLINGS, SUMMED, half_and_one};
use crate::cpu::math::{LANES, lanes_below};
use crate::random::UNIT;

/// Words of an organism whose place among its siblings' is one of 16 bits.
pub const MOST_WORDS: usize = (1 << 16) / SIBLINGS;

/// Of the second where the first has a bit, else of the third.
const CHOOSE: i32 = 0xCA;

/// `Breeding::breed`: mutants are listed and looked up in the end.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn breed(
    breeding: &Breeding<'_>,
    couples: &Couples,
    living: &[u32],
    draws: &[u32],
    children: &mut [u32],
    mutants: &mut [u32],
) {
    let Breeding { d, .. } = *breeding;
    let (words, words_of_pair) = (words_of(d), d.next_multiple_of(4));
    let siblings = children.len() / words;
    assert!(siblings <= SIBLINGS && words <= MOST_WORDS && draws.len() >= words_of_draws(siblings, d));
    let (mutants, places) = mutants.split_at_mut(mutants.len() / 2);
    assert!(mutants.len() >= Breeding::MUTANTS / 2 && places.len() >= Breeding::MUTANTS / 2);
    let last = couples.0.as_flattened().iter().fold(0, |last, &parent| last.max(parent));
    assert!(last as usize + words <= living.len());
    let every = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let [threshold, middle] = [breeding.threshold, breeding.middle].map(|draw| _mm512_set1_epi32(draw as i32));
    // So that the token is in the high half.
    let per_draw = _mm512_set1_ps(breeding.tokens_per_draw * 65_536.0);
    let token = _mm512_set1_epi32(0xFFFF_0000_u32 as i32);
    let next = _mm512_set1_epi32(words as i32);
    for g in (0..words).step_by(LANES) {
        let lanes = lanes_below(d, g);
        let (mut count, mut place) = (0, _mm512_add_epi32(every, _mm512_set1_epi32(g as i32)));
        for pair in 0..siblings.div_ceil(2) {
            // SAFETY: by the assertions, all registers lie in the slices: `g` is below `words`, which are whole
            // registers, and at most 16 mutants of each child are listed.
            unsafe {
                let word = _mm512_loadu_si512(draws.as_ptr().add(pair * words_of_pair + g).cast());
                for (child, draw) in [(2 * pair, word), (2 * pair + 1, _mm512_rol_epi32::<16>(word))] {
                    if child == siblings {
                        break;
                    }
                    let [a, b] = [0, 1].map(|i| living.as_ptr().add(couples.0[i][child] as usize + g));
                    let out = child * words + g;
                    let of_a = _mm512_cmplt_epu32_mask(draw, middle);
                    let genes = _mm512_mask_loadu_epi32(_mm512_loadu_si512(b.cast()), of_a, a.cast());
                    _mm512_storeu_si512(children.as_mut_ptr().add(out).cast(), genes);

                    let mutates = _mm512_mask_cmplt_epu32_mask(lanes, draw, threshold);
                    let tokens = _mm512_cvttps_epu32(_mm512_mul_ps(_mm512_cvtepu32_ps(draw), per_draw));
                    let mutant = _mm512_ternarylogic_epi32::<CHOOSE>(token, tokens, place);
                    place = _mm512_add_epi32(place, next);
                    let listed = _mm512_maskz_compress_epi32(mutates, mutant);
                    let more = mutants.as_mut_ptr().add(count);
                    // More than half of a register are rare, and to store it all would take as long as two halves, since
                    // it seldom begins with a line of the cache.
                    _mm256_storeu_si256(more.cast(), _mm512_castsi512_si256(listed));
                    let listing = mutates.count_ones() as usize;
                    if listing > LANES / 2 {
                        _mm512_storeu_si512(more.cast(), listed);
                    }
                    count += listing;
                }
            }
        }
        look_up(breeding.table, [words, g], [mutants, places], count, children);
    }
}

/// Gives the first `count` mutants their tokens' genes, where `places` is room for these. All are of the register of genes
/// from `first` on; each is listed by its token and, in the low half, its place among the children's words.
#[inline]
#[target_feature(enable = "avx512bw,popcnt")]
fn look_up(
    table: &[u32],
    [words, first]: [usize; 2],
    [mutants, places]: [&mut [u32]; 2],
    count: usize,
    children: &mut [u32],
) {
    let [words, first, lane] = [words, first, LANES - 1].map(|x| _mm512_set1_epi32(x as i32));
    for (mutant, place) in mutants.chunks_exact(LANES).zip(places.chunks_exact_mut(LANES)).take(count.div_ceil(LANES)) {
        // SAFETY: both are registers.
        unsafe {
            let mutant = _mm512_loadu_si512(mutant.as_ptr().cast());
            let row = _mm512_mullo_epi32(_mm512_srli_epi32::<16>(mutant), words);
            let gene = _mm512_add_epi32(first, _mm512_and_si512(mutant, lane));
            _mm512_storeu_si512(place.as_mut_ptr().cast(), _mm512_add_epi32(row, gene));
        }
    }
    for (&mutant, &place) in mutants.iter().zip(&*places).take(count) {
        children[mutant as usize & 0xFFFF] = table[place as usize];
    }
}

/// `weigh_organisms` of the selection: 16 organisms at a time, each in a register until the end.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn weigh_organisms(organisms: &[u32], weights: &[u32], shift: u32, phi: &mut [u32]) {
    let words = weights.len();
    assert!(words.is_multiple_of(LANES) && organisms.len() >= phi.len() * words);
    let shift = _mm_cvtsi32_si128(shift as i32);
    for (organisms, phi) in organisms.chunks(LANES * words).zip(phi.chunks_mut(LANES)) {
        // Beyond the last organism stands the last again.
        let rows: [usize; LANES] = std::array::from_fn(|n| n.min(phi.len() - 1) * words);
        let mut sums = [_mm512_setzero_si512(); LANES];
        for g in (0..words).step_by(LANES) {
            // SAFETY: an organism has as many words as the weights, which are whole registers.
            unsafe {
                let weights = _mm512_loadu_si512(weights.as_ptr().add(g).cast());
                for n in 0..LANES {
                    let genes = _mm512_loadu_si512(organisms.as_ptr().add(rows[n] + g).cast());
                    // A weight's high half is 0, so that the token does not count.
                    let products = _mm512_srl_epi32(_mm512_madd_epi16(genes, weights), shift);
                    sums[n] = _mm512_add_epi32(sums[n], products);
                }
            }
        }
        // SAFETY: the mask lets through what lies in the slice.
        unsafe { _mm512_mask_storeu_epi32(phi.as_mut_ptr().cast(), lanes_below(phi.len(), 0), folded(sums)) };
    }
}

/// The sum of each register's lanes, in the lane of its number.
#[inline]
#[target_feature(enable = "avx512bw,popcnt")]
fn folded(sums: [__m512i; LANES]) -> __m512i {
    let pairs: [__m512i; 8] = std::array::from_fn(|i| {
        let [a, b] = [sums[2 * i], sums[2 * i + 1]];
        _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
    });
    let fours: [__m512i; 4] = std::array::from_fn(|i| {
        let [a, b] = [pairs[2 * i], pairs[2 * i + 1]];
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    });
    // Now each quarter of a register has a sum of each of four registers.
    let quarters = |a, b| {
        _mm512_add_epi32(_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
    };
    quarters(quarters(fours[0], fours[1]), quarters(fours[2], fours[3]))
}

/// As `pair_anywhere`, all marks at once, so that their searches do not wait for each other.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn pair(draws: &[u32; 4 * SIBLINGS], crossover_rate: f32, words: usize, wheel: &[u32]) -> Couples {
    let (turn, words) = (_mm512_set1_epi32(wheel[wheel.len() - 1] as i32), _mm512_set1_epi32(words as i32));
    let [first, second] = [0, 1].map(|half| by_purpose(&draws.as_chunks().0[half]));
    let marks = [first[0], first[1], second[0], second[1]].map(|draws| high_product(draws, turn));
    let [a, b, c, d] = stops(wheel, marks).map(|parents| _mm512_mullo_epi32(parents, words));
    let mut couples = Couples([[0; SIBLINGS]; 2]);
    for (half, [a, b, mixes]) in [[a, b, first[2]], [c, d, second[2]]].into_iter().enumerate() {
        let mixes = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32::<8>(mixes)), _mm512_set1_ps(UNIT));
        let mixes = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(mixes, _mm512_set1_ps(crossover_rate));
        for (out, parents) in couples.0.iter_mut().zip([a, _mm512_mask_blend_epi32(mixes, a, b)]) {
            // SAFETY: there are two registers of parents.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(half * LANES).cast(), parents) };
        }
    }
    couples
}

/// The first, second and third of each child's four draws.
#[inline]
#[target_feature(enable = "avx512bw,popcnt")]
fn by_purpose(draws: &[u32; 4 * LANES]) -> [__m512i; 3] {
    // SAFETY: there are four registers.
    let four = [0, 1, 2, 3].map(|i| unsafe { _mm512_loadu_si512(draws.as_ptr().add(i * LANES).cast()) });
    let first_and_second = _mm512_set_epi32(29, 25, 21, 17, 13, 9, 5, 1, 28, 24, 20, 16, 12, 8, 4, 0);
    let thirds = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 30, 26, 22, 18, 14, 10, 6, 2);
    let [low, high] = [0, 2].map(|i| _mm512_permutex2var_epi32(four[i], first_and_second, four[i + 1]));
    let [low_thirds, high_thirds] = [0, 2].map(|i| _mm512_permutex2var_epi32(four[i], thirds, four[i + 1]));
    [
        _mm512_shuffle_i32x4::<0b01_00_01_00>(low, high),
        _mm512_shuffle_i32x4::<0b11_10_11_10>(low, high),
        _mm512_shuffle_i32x4::<0b01_00_01_00>(low_thirds, high_thirds),
    ]
}

/// The high half of each product of two words.
#[inline]
#[target_feature(enable = "avx512bw,popcnt")]
fn high_product(a: __m512i, b: __m512i) -> __m512i {
    const ODD: u16 = 0xAAAA;
    let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(a, b));
    _mm512_mask_blend_epi32(ODD, even, _mm512_mul_epu32(_mm512_srli_epi64::<32>(a), b))
}

/// Of each mark how many sums of the wheel are not above it, the last one aside. A wheel of at most 32 stays in registers.
#[inline]
#[target_feature(enable = "avx512bw,popcnt")]
fn stops(wheel: &[u32], marks: [__m512i; 4]) -> [__m512i; 4] {
    let last = _mm512_set1_epi32(wheel.len() as i32 - 1);
    let [low, high] = [0, LANES].map(|first| {
        // SAFETY: the mask lets through what lies in the slice.
        unsafe { _mm512_maskz_loadu_epi32(lanes_below(wheel.len(), first), wheel.as_ptr().wrapping_add(first).cast()) }
    });
    let mut stops = [_mm512_setzero_si512(); 4];
    let mut step = wheel.len().next_power_of_two() / 2;
    while step > 0 {
        for (stops, marks) in stops.iter_mut().zip(marks) {
            let at = _mm512_add_epi32(*stops, _mm512_set1_epi32(step as i32 - 1));
            let before = _mm512_cmplt_epi32_mask(at, last);
            let sums = if wheel.len() <= 2 * LANES {
                _mm512_permutex2var_epi32(low, at, high)
            } else {
                // SAFETY: the mask lets through what lies before the last.
                unsafe { _mm512_mask_i32gather_epi32::<4>(marks, before, at, wheel.as_ptr().cast()) }
            };
            let passed = _mm512_mask_cmple_epu32_mask(before, sums, marks);
            *stops = _mm512_mask_add_epi32(*stops, passed, *stops, _mm512_set1_epi32(step as i32));
        }
        step /= 2;
    }
    stops
}

/// As `add_up_anywhere`: within a register lanes are added to those 1, 2, 4 and 8 places up.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn add_up(numbers: &mut [u32], by: [u32; 2]) {
    let (zero, [up, down]) = (_mm512_setzero_si512(), by.map(|bits| _mm_cvtsi32_si128(bits as i32)));
    let mut before = zero;
    for at in (0..numbers.len()).step_by(LANES) {
        let lanes = lanes_below(numbers.len(), at);
        // SAFETY: the mask lets through what lies in the slice.
        unsafe {
            let numbers = numbers.as_mut_ptr().add(at).cast();
            let mut sums = _mm512_sll_epi32(_mm512_maskz_loadu_epi32(lanes, numbers), up);
            sums = _mm512_srl_epi32(sums, down);
            sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<15>(sums, zero));
            sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<14>(sums, zero));
            sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<12>(sums, zero));
            sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<8>(sums, zero));
            sums = _mm512_add_epi32(sums, before);
            before = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), sums);
            _mm512_mask_storeu_epi32(numbers, lanes, sums);
        }
    }
}

/// As `weigh_genes_anywhere`.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn weigh_genes(organisms: &[u32], size: usize, weights: &mut [u32]) {
    let words = weights.len();
    assert!(words.is_multiple_of(LANES) && organisms.len() >= size * words);
    let [half, one] = half_and_one(size).map(|x| _mm512_set1_ps(x));
    let whole = _mm512_set1_ps(WHOLE);
    let carried = _mm512_set1_epi32(MOST_CARRIED as i32);
    for g in (0..words).step_by(LANES) {
        let mut total = half;
        for first in (0..size).step_by(SUMMED) {
            let mut sums = [_mm512_setzero_si512(); 2];
            let end = size.min(first + SUMMED);
            // SAFETY: by the assertion all organisms are there, of whole registers.
            unsafe {
                let genes = |n: usize| {
                    let genes = _mm512_loadu_si512(organisms.as_ptr().add(n * words + g).cast());
                    _mm512_and_si512(genes, carried)
                };
                for n in (first..end - end % 2).step_by(2) {
                    sums = [_mm512_add_epi32(sums[0], genes(n)), _mm512_add_epi32(sums[1], genes(n + 1))];
                }
                if end % 2 == 1 {
                    sums[0] = _mm512_add_epi32(sums[0], genes(end - 1));
                }
            }
            total = _mm512_add_ps(total, _mm512_cvtepu32_ps(_mm512_add_epi32(sums[0], sums[1])));
        }
        let rounded = _mm512_castps_si512(_mm512_add_ps(_mm512_div_ps(one, total), whole));
        // SAFETY: the weights are whole registers.
        unsafe { _mm512_storeu_si512(weights.as_mut_ptr().add(g).cast(), _mm512_and_si512(rounded, carried)) };
    }
}

/// As `tabulate_anywhere`.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn tabulate(expression: &[f32], d: usize, table: &mut [u32]) {
    let words = words_of(d);
    let [most, whole] = [MOST_CARRIED as f32, WHOLE].map(|x| _mm512_set1_ps(x));
    let carried = _mm512_set1_epi32(MOST_CARRIED as i32);
    for (token, (genes, p)) in table.chunks_exact_mut(words).zip(expression.chunks_exact(d)).enumerate() {
        let token = _mm512_set1_epi32((token << 16) as i32);
        for g in (0..words).step_by(LANES) {
            let lanes = lanes_below(d, g);
            // SAFETY: the mask lets through what lies in the row; the genes are whole registers.
            unsafe {
                let p = _mm512_maskz_loadu_ps(lanes, p.as_ptr().add(g));
                let rounded = _mm512_castps_si512(_mm512_add_ps(_mm512_mul_ps(p, most), whole));
                let gene = _mm512_maskz_or_epi32(lanes, token, _mm512_and_si512(rounded, carried));
                _mm512_storeu_si512(genes.as_mut_ptr().add(g).cast(), gene);
            }
        }
    }
}

/// As `means_of_descendants_anywhere`, a register of genes at a time, whose means so stay in one.
#[target_feature(enable = "avx512bw,popcnt")]
pub fn means_of_descendants(descendants: &[u32], share: f32, expression: &[f32], means: &mut [f32]) {
    let (d, share) = (means.len(), _mm512_set1_ps(share));
    for g in (0..d).step_by(LANES) {
        let lanes = lanes_below(d, g);
        let mut sums = _mm512_setzero_ps();
        for (counts, p) in descendants.chunks_exact(words_of(d)).zip(expression.chunks_exact(d)) {
            // SAFETY: the mask lets through what lies in the row, of `d` elements; the counts are whole registers.
            unsafe {
                let counts = _mm512_cvtepu32_ps(_mm512_loadu_si512(counts.as_ptr().add(g).cast()));
                let p = _mm512_maskz_loadu_ps(lanes, p.as_ptr().add(g));
                sums = _mm512_add_ps(sums, _mm512_mul_ps(_mm512_mul_ps(counts, share), p));
            }
        }
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_ps(means.as_mut_ptr().add(g), lanes, sums) };
    }
}
