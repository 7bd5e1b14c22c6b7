// Attention within packed sequences on tensor cores: forward, with the running maximum and sum of online softmax (Milakov
// and Gimelshein 2018, arXiv 1805.02867).
#include "attention.cuh"

// That are to share a multiprocessor.
constexpr int BLOCKS = D == 32 ? 5 : 4;

struct Modulation {
    const float* fitness;
    int columns;
    float scale;
};

// The fitness may be what the kernel before makes, beside which this one begins.
__device__ void forward(
    Heads q, Heads k, Heads v, const uint4* tiles, int heads, int group, bool causal, Dropout dropout, Masks masks,
    Modulation modulation, bf16* out, int out_stride, float* lse) {
    __shared__ Tile keys[2], values[2];
    Tile& queries = keys[1];
    const auto [tile, head] = RowAndHead(heads);
    const Work work(tile, tiles);
    const int kv_head = head / group, lane = lane_of();
    const int first = work.first, row = first + lane / 4;
    const int blocks = (work.length + 3) / 4;
    const Stream stream = stream_of(dropout.site, work.id, head, 0);
    u32* const bits = masks.piece(work, head, first, 0);
    u32 query[D / 16][4];
    // The largest score of each of two rows, and the sum of what it makes of the others.
    float sums[D / 8][4] = {}, largest[2] = {-1e30f, -1e30f}, total[2] = {};
    const int end = work.end(causal), own_end = min(work.length, causal ? first + 16 : work.length);
    queries.fetch(work, q, head, work.tile);
    fetch_both(keys[0], k, values[0], v, work, kv_head, 0);
    arrive();
    queries.left(warp_of() * 16, query);
    int stage = 0;
    for (int key = 0; key < end; key += TILE, stage ^= 1) {
        arrive();
        if (key + TILE < end) fetch_both(keys[stage ^ 1], k, values[stage ^ 1], v, work, kv_head, key + TILE);
        if (work.idle()) continue;
        for (int part = 0; part < TILE && key + part < own_end; part += 32) {
            const int begin = key + part, pieces = begin + 16 < own_end ? 2 : 1;
            float scores[2][2][4], most[2] = {largest[0], largest[1]};
#pragma unroll
            for (int piece = 0; piece < 2; piece++) {
                if (piece == pieces) break;
                scores_of(query, keys[stage], work.part + part + 16 * piece, scores[piece]);
                if (causal || begin + 16 * piece + 16 > work.length)
                    hide(scores[piece], first, begin + 16 * piece, work.length, causal);
#pragma unroll
                for (int i = 0; i < 8; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], scores[piece][i / 4][i % 4]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 1));
                most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 2));
                const float shrink = exp2_fast((largest[i] - most[i]) * SCALE_LOG2);
                largest[i] = most[i];
                total[i] *= shrink;
#pragma unroll
                for (int n = 0; n < D / 8; n++) sums[n][2 * i] *= shrink, sums[n][2 * i + 1] *= shrink;
            }
            const float top[2] = {largest[0] * SCALE_LOG2, largest[1] * SCALE_LOG2};
#pragma unroll
            for (int piece = 0; piece < 2; piece++) {
                if (piece == pieces) break;
#pragma unroll
                for (int eight = 0; eight < 2; eight++) {
                    float(&p)[4] = scores[piece][eight];
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        p[i] = exp2_fast(p[i] * SCALE_LOG2 - top[i / 2]);
                        total[i / 2] += p[i];
                    }
                    if (dropout.threshold) {
                        const int at = begin + 16 * piece + 8 * eight;
                        const Mask mask(stream, dropout.threshold, first, at, blocks);
                        mask.store(bits + at / 8 * 4);
                        mask.apply(p);
                    }
                }
                add_weighted(sums, scores[piece], values[stage], work.part + part + 16 * piece);
            }
        }
    }
    wait_for_kernel_before();
    if (work.idle()) return;
    float factors[D / 8][2];
    modulation_of(modulation.fitness, modulation.columns, modulation.scale, work.sequence, kv_head, factors);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        total[i] += __shfl_xor_sync(ALL_LANES, total[i], 1);
        total[i] += __shfl_xor_sync(ALL_LANES, total[i], 2);
        if (lane % 4 == 0 && row + 8 * i < work.length)
            lse[size_t(work.first_row + row + 8 * i) * heads + head] = largest[i] * SCALE_LOG2 + log2f(total[i]);
        total[i] = (dropout.threshold ? dropout.kept : 1.0f) / total[i];
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] *= total[i / 2] * factors[n][i % 2];
    store_rows(sums, keys[stage], work, out, out_stride, head);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention(
    const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const uint4* tiles, int heads,
    int group, int causal, u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept, u32* masks,
    int masks_of_head, const float* fitness, int fitness_columns, float scale, bf16* out, int out_stride, float* lse) {
    forward(
        {q, q_stride}, {k, k_stride}, {v, v_stride}, tiles, heads, group, causal,
        {{seed_low, seed_high, step, name}, threshold, kept}, {masks, masks_of_head},
        {fitness, fitness_columns, scale}, out, out_stride, lse);
}
