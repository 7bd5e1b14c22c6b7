//! What the compiler does not turn into vector instructions by itself: choices, lists and sums across registers.

use std::arch::x86_64::{
    __m512, _CMP_LE_OQ, _mm512_add_epi32, _mm512_add_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cmplt_epu32_mask, _mm512_cvtepu32_ps, _mm512_cvttps_epi32, _mm512_loadu_ps, _mm512_mask_add_epi32,
    _mm512_mask_blend_epi32, _mm512_mask_blend_ps, _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps,
    _mm512_maskz_compress_epi32, _mm512_maskz_loadu_epi32, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_mullo_epi32,
    _mm512_rolv_epi32, _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::sampled::{Couple, Mutation, Organisms, SIBLINGS, turn_of};
use crate::cpu::math::LANES;
use crate::cpu::matmul::transposed_registers;

/// [`Mutation::breed`]: inherited genes bring their expression along, mutants are listed and look theirs up in the end.
#[target_feature(enable = "avx512f")]
pub fn breed(
    mutation: &Mutation<'_>,
    couples: &[Couple],
    living: &Organisms<'_>,
    draws: &[u32],
    children: Organisms<'_>,
    mutants: &mut [u32],
) {
    let d = mutation.d;
    let row = d.next_multiple_of(4);
    let genes = couples.len() * d;
    assert!(couples.len() <= SIBLINGS && mutants.len() >= genes + LANES);
    assert!(draws.len() >= couples.len().div_ceil(2) * row);
    assert!(children.places.len() >= genes && children.carried.len() >= genes);
    let every = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let [threshold, middle] = [mutation.threshold, mutation.middle].map(|draw| _mm512_set1_epi32(draw as i32));
    let per_draw = _mm512_set1_ps(mutation.tokens_per_draw);
    let mut count = 0;
    for (child, couple) in couples.iter().enumerate() {
        assert!([couple.a, couple.b].into_iter().all(|at| at + d <= living.places.len().min(living.carried.len())));
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
                let places = _mm512_mask_blend_epi32(of_a, inherit(couple.b), inherit(couple.a));
                let inherit = |at: usize| _mm512_maskz_loadu_ps(lanes, living.carried.as_ptr().add(at + g));
                let carried = _mm512_mask_blend_ps(of_a, inherit(couple.b), inherit(couple.a));
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

/// Of each mark how many sums of the wheel are not above it.
#[target_feature(enable = "avx512f")]
pub fn stops(wheel: &[f32], marks: &[[f32; SIBLINGS]; 2]) -> [[u32; SIBLINGS]; 2] {
    // SAFETY: a register is as long as 16 marks.
    let marks = marks.each_ref().map(|marks| unsafe { _mm512_loadu_ps(marks.as_ptr()) });
    let (mut before, one) = ([_mm512_setzero_si512(); 2], _mm512_set1_epi32(1));
    for &sum in wheel {
        let sum = _mm512_set1_ps(sum);
        for (before, &mark) in before.iter_mut().zip(&marks) {
            let passed = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(sum, mark);
            *before = _mm512_mask_add_epi32(*before, passed, *before, one);
        }
    }
    before.map(|before| {
        let mut out = [0; SIBLINGS];
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), before) };
        out
    })
}
