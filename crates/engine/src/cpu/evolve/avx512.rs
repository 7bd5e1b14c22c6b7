//! What the compiler does not turn into vector instructions by itself: choices, lists and sums across registers.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_LE_OQ, _CMP_LT_OQ, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cmplt_epi32_mask, _mm512_cmplt_epu32_mask, _mm512_cvtepi32_ps, _mm512_cvtepu32_ps,
    _mm512_cvttps_epi32, _mm512_i32gather_epi32, _mm512_loadu_ps, _mm512_mask_add_epi32, _mm512_mask_blend_epi32,
    _mm512_mask_blend_ps, _mm512_mask_cmp_ps_mask, _mm512_mask_i32gather_ps, _mm512_mask_storeu_epi32,
    _mm512_mask_storeu_ps, _mm512_maskz_compress_epi32, _mm512_maskz_loadu_epi32, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_mullo_epi32, _mm512_permutex2var_ps, _mm512_rolv_epi32, _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::sampled::{Couples, Mutation, Organisms, SIBLINGS, turn_of};
use crate::cpu::math::LANES;
use crate::cpu::matmul::transposed_registers;
use crate::random::UNIT;

/// [`Mutation::breed`]: inherited genes bring their expression along, mutants are listed and look theirs up in the end.
#[target_feature(enable = "avx512f")]
pub fn breed(
    mutation: &Mutation<'_>,
    couples: &Couples,
    siblings: usize,
    living: &Organisms<'_>,
    draws: &[u32],
    children: Organisms<'_>,
    mutants: &mut [u32],
) {
    let d = mutation.d;
    let row = d.next_multiple_of(4);
    let genes = siblings * d;
    assert!(siblings <= SIBLINGS && mutants.len() >= genes + LANES);
    assert!(draws.len() >= siblings.div_ceil(2) * row);
    assert!(children.places.len() >= genes && children.carried.len() >= genes);
    let every = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let [threshold, middle] = [mutation.threshold, mutation.middle].map(|draw| _mm512_set1_epi32(draw as i32));
    let per_draw = _mm512_set1_ps(mutation.tokens_per_draw);
    let mut count = 0;
    for child in 0..siblings {
        let [a, b] = couples.0.map(|parents| parents[child] as usize);
        assert!(a.max(b) + d <= living.places.len().min(living.carried.len()));
        let turn = _mm512_set1_epi32(turn_of(child) as i32);
        for g in (0..d).step_by(LANES) {
            let lanes = if d - g >= LANES { u16::MAX } else { (1 << (d - g)) - 1 };
            let out = child * d + g;
            // SAFETY: by the assertions, what the masks let through lies in the slices: `g` is below `d`, and at most
            // `genes` mutants stand in the list before the last 16 that are written.
            unsafe {
                let word = _mm512_maskz_loadu_epi32(lanes, draws.as_ptr().add(child / 2 * row + g).cast());
                let draw = _mm512_rolv_epi32(word, turn);
                let of_a = _mm512_cmplt_epu32_mask(draw, middle);
                let inherit = |at: usize| _mm512_maskz_loadu_epi32(lanes, living.places.as_ptr().add(at + g).cast());
                let places = _mm512_mask_blend_epi32(of_a, inherit(b), inherit(a));
                let inherit = |at: usize| _mm512_maskz_loadu_ps(lanes, living.carried.as_ptr().add(at + g));
                let carried = _mm512_mask_blend_ps(of_a, inherit(b), inherit(a));
                _mm512_mask_storeu_ps(children.carried.as_mut_ptr().add(out), lanes, carried);

                let mutates = _mm512_cmplt_epu32_mask(draw, threshold) & lanes;
                let token = _mm512_mul_ps(_mm512_cvtepu32_ps(draw), per_draw);
                let row = _mm512_mullo_epi32(_mm512_cvttps_epi32(token), _mm512_set1_epi32(d as i32));
                let place = _mm512_add_epi32(row, _mm512_add_epi32(every, _mm512_set1_epi32(g as i32)));
                let places = _mm512_mask_blend_epi32(mutates, places, place);
                _mm512_mask_storeu_epi32(children.places.as_mut_ptr().add(out).cast(), lanes, places);

                let outs = _mm512_add_epi32(every, _mm512_set1_epi32(out as i32));
                let listed = _mm512_maskz_compress_epi32(mutates, outs);
                _mm512_storeu_si512(mutants.as_mut_ptr().add(count).cast(), listed);
                count += mutates.count_ones() as usize;
            }
        }
    }
    for &mutant in &mutants[..count] {
        let mutant = mutant as usize;
        children.carried[mutant] = mutation.expression[children.places[mutant] as usize];
    }
}

/// `out[n] = Σ_g rows[n, g] · x[g]`, summed as `dot` does; `x` is whole registers long.
#[target_feature(enable = "avx512f")]
pub fn dots(rows: &[f32], x: &[f32], out: &mut [f32]) {
    let d = x.len();
    assert!(d.is_multiple_of(LANES) && rows.len() >= out.len() * d);
    for (rows, out) in rows.chunks(LANES * d).zip(out.chunks_mut(LANES)) {
        let lanes_of = |n: usize| -> __m512 {
            let mut sums = _mm512_setzero_ps();
            if n < out.len() {
                for g in (0..d).step_by(LANES) {
                    let row = &rows[n * d + g..][..LANES];
                    // SAFETY: both hold 16 numbers from here on.
                    let (row, x) = unsafe { (_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(g))) };
                    sums = _mm512_add_ps(sums, _mm512_mul_ps(row, x));
                }
            }
            sums
        };
        let by_lane = transposed_registers(std::array::from_fn(|n| _mm512_castps_si512(lanes_of(n))));
        let sums = by_lane.into_iter().fold(_mm512_setzero_ps(), |sum, x| _mm512_add_ps(sum, _mm512_castsi512_ps(x)));
        let mut all = [0.0; LANES];
        // SAFETY: the array is 16 numbers.
        unsafe { _mm512_storeu_ps(all.as_mut_ptr(), sums) };
        out.copy_from_slice(&all[..out.len()]);
    }
}

/// The couples of 16 children from their draws, of which each has four: a mark for each parent and whether they mix.
#[target_feature(enable = "avx512f")]
pub fn pair(draws: &[u32; 4 * SIBLINGS], crossover_rate: f32, d: usize, wheel: &[f32]) -> Couples {
    let blocks = _mm512_set_epi32(60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 0);
    let uniform = |word: usize| {
        // SAFETY: the last block begins at 60, and has four words.
        let bits = unsafe { _mm512_i32gather_epi32::<4>(blocks, draws[word..].as_ptr().cast()) };
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32::<8>(bits)), _mm512_set1_ps(UNIT))
    };
    let turn = _mm512_set1_ps(wheel[wheel.len() - 1]);
    let [a, b] = [0, 1].map(|word| stops(wheel, _mm512_mul_ps(uniform(word), turn)));
    let mixes = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(uniform(2), _mm512_set1_ps(crossover_rate));
    let mut couples = Couples([[0; SIBLINGS]; 2]);
    for (out, parents) in couples.0.iter_mut().zip([a, _mm512_mask_blend_epi32(mixes, a, b)]) {
        let places = _mm512_mullo_epi32(parents, _mm512_set1_epi32(d as i32));
        // SAFETY: a register is as long as 16 places.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), places) };
    }
    couples
}

/// Of each mark how many sums of the wheel are not above it, the last one aside. A wheel of at most 32 stays in registers.
#[target_feature(enable = "avx512f")]
fn stops(wheel: &[f32], marks: __m512) -> __m512i {
    let last = _mm512_set1_epi32(wheel.len() as i32 - 1);
    let [low, high] = [0, LANES].map(|first| {
        let lanes = (1_u32 << wheel.len().saturating_sub(first).min(LANES)) - 1;
        // SAFETY: the mask lets through what lies in the slice.
        unsafe { _mm512_maskz_loadu_ps(lanes as u16, wheel.as_ptr().wrapping_add(first)) }
    });
    let mut stops = _mm512_setzero_si512();
    let mut step = wheel.len().next_power_of_two() / 2;
    while step > 0 {
        let at = _mm512_add_epi32(stops, _mm512_set1_epi32(step as i32 - 1));
        let before = _mm512_cmplt_epi32_mask(at, last);
        let sums = if wheel.len() <= 2 * LANES {
            _mm512_permutex2var_ps(low, at, high)
        } else {
            // SAFETY: the mask lets through what lies before the last.
            unsafe { _mm512_mask_i32gather_ps::<4>(marks, before, at, wheel.as_ptr().cast()) }
        };
        let passed = _mm512_mask_cmp_ps_mask::<_CMP_LE_OQ>(before, sums, marks);
        stops = _mm512_mask_add_epi32(stops, passed, stops, _mm512_set1_epi32(step as i32));
        step /= 2;
    }
    stops
}
