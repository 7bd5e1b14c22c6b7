// Gradients of attention within packed sequences on tensor cores. Probabilities are computed again from the saved
// log-sum-exp (Dao et al. 2022, arXiv 2205.14135).
#include "attention.cuh"

// That are to share a multiprocessor.
constexpr int BLOCKS_IN_QUERIES = D == 32 ? 5 : 4;
constexpr int BLOCKS_IN_KEYS = D == 32 ? 4 : 3;

// Two ones of 16 bits.
constexpr u32 ONES = 0x3F803F80;

// A fitness that modulates, [S, v d].
struct Fitness {
    const float* gamma;
    int columns;
    float scale;
};

// Sums by gene of out dout, whose rows are those of 16 rows of a sequence: where its rows are.
__device__ __forceinline__ size_t row_of_sums(u32 sequence, int first_row, int position) {
    return size_t(first_row / 16 + sequence + position / 16);
}

// Rows of sums over the rows of tiles, one for each; `width` apart.
struct Sums {
    float* rows;
    int width;

    __device__ __forceinline__ float* of(int tile, int head) const {
        return rows + size_t(tile) * width + head * D;
    }
};

// Of a modulated output: the sums of out dout by gene, of a warp's rows, which give the gradient in the fitness.
__device__ __forceinline__ void sum_by_gene(
    const u32 (&out)[D / 16][4], const u32 (&dout)[D / 16][4], float* sums) {
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float low = 0, high = 0;
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                low += low_half(out[k][i]) * low_half(dout[k][i]);
                high += high_half(out[k][i]) * high_half(dout[k][i]);
            }
#pragma unroll
            for (int step = 4; step < WARP; step *= 2) {
                low += __shfl_xor_sync(ALL_LANES, low, step);
                high += __shfl_xor_sync(ALL_LANES, high, step);
            }
            if (lane_of() < 4)
                *reinterpret_cast<float2*>(sums + 16 * k + 8 * half + 2 * lane_of()) = make_float2(low, high);
        }
}

// A warp takes a sequence and a kv head: the gradient in its fitness; or through it in the gene means where it is made from
// the values, with u: dM = u (gamma sum gamma dgamma - gamma dgamma).
__device__ void gradient_of_fitness(
    const float* sums, const float* gamma, const float* inverse, const u32* begins, int sequences, int kv_heads, int group,
    float* gradient) {
    let_next_begin();
    const int warp = blockIdx.x * WARPS + warp_of(), sequence = warp / kv_heads, kv_head = warp % kv_heads;
    if (sequence >= sequences) return;
    const int begin = begins[sequence], parts = (begins[sequence + 1] - begin + 15) / 16, width = kv_heads * group * D;
    const float* from = sums + row_of_sums(sequence, begin, 0) * width + kv_head * group * D + lane_of();
    float sum[D / WARP] = {}, total = 0;
    for (int head = 0; head < group; head++)
#pragma unroll 8
        for (int part = 0; part < parts; part++)
#pragma unroll
            for (int n = 0; n < D / WARP; n++) sum[n] += from[size_t(part) * width + head * D + n * WARP];
#pragma unroll
    for (int n = 0; n < D / WARP; n++) total += sum[n];
    total = warp_sum(total);
#pragma unroll
    for (int n = 0; n < D / WARP; n++) {
        const size_t at = (size_t(sequence) * kv_heads + kv_head) * D + n * WARP + lane_of();
        gradient[at] = inverse ? inverse[at] * (gamma[at] * total - sum[n]) : sum[n] / gamma[at];
    }
}

// What the backward passes read beside the operands: of each row and head the logarithm to base 2 of the sum of the
// powers that its scores are of e, and `along`, the sum over the head of dout out, which is the mean of the scores' gradients,
// divided by `kept`. Without dropout nothing is masked, and `kept` is 1.
struct Saved {
    const float* lse;
    float* along;
    Masks masks;
    float kept;
};

// With P the probabilities, m the mask and k what it multiplies by, dS = P (k m dP - along) = k P (m dP - along / k): k is
// left to the end.
// Makes `along` on the way.
__device__ void gradient_in_queries(
    Heads q, Heads k, Heads v, Heads out, Heads dout, Saved saved, const uint4* tiles, int heads, int group, bool causal,
    Fitness fitness, float* sums_of_genes, bf16* dq, int dq_stride, Sums sums_of_rows) {
    __shared__ Tile keys[2], values[2];
    __shared__ __align__(16) u32 masks[2][Masks::OF_TILE];
    Tile &queries = keys[1], &gradients = values[1];
    const auto [tile, head] = RowAndHead(heads);
    const Work work(tile, tiles);
    const int kv_head = head / group, lane = lane_of();
    const int first = work.first, row = first + lane / 4;
    const auto fetch = [&](int stage, int head, int key) {
        saved.masks.fetch(masks[stage], work, head, work.tile, key);
        fetch_both(keys[stage], k, values[stage], v, work, kv_head, key);
    };
    fetch_both(queries, q, gradients, dout, work, head, work.tile);
    fetch(0, head, 0);
    float lse[2], along[2] = {}, sums[D / 8][4] = {};
    u32 query[D / 16][4], gradient[D / 16][4], output[D / 16][4];
    left_from_memory(output, work, out, head);
    float factors[D / 8][2];
    modulation_of(fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head, factors);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bool valid = row + 8 * i < work.length;
        lse[i] = valid ? saved.lse[size_t(work.first_row + row + 8 * i) * heads + head] : 1e30f;
    }
    arrive();
    queries.left(warp_of() * 16, query);
    gradients.left(warp_of() * 16, gradient);
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int k = 0; k < D / 16; k++)
#pragma unroll
            for (int j = i; j < 4; j += 2)
                along[i] += low_half(output[k][j]) * low_half(gradient[k][j]) +
                    high_half(output[k][j]) * high_half(gradient[k][j]);
        along[i] += __shfl_xor_sync(ALL_LANES, along[i], 1);
        along[i] += __shfl_xor_sync(ALL_LANES, along[i], 2);
        along[i] /= saved.kept;
        if (lane % 4 == 0 && row + 8 * i < work.length)
            saved.along[size_t(work.first_row + row + 8 * i) * heads + head] = along[i];
    }
    if (fitness.gamma) {
        if (!work.idle())
            sum_by_gene(
                output, gradient, sums_of_genes + (row_of_sums(work.sequence, work.first_row, first) * heads + head) * D);
        modulate(gradient, factors);
    }
    const int end = work.end(causal), own_end = min(work.length, causal ? first + 16 : work.length);
    int stage = 0;
    for (int key = 0; key < end; key += TILE, stage ^= 1) {
        arrive();
        if (key + TILE < end) fetch(stage ^ 1, head, key + TILE);
        if (work.idle()) continue;
#pragma unroll
        for (int part = 0; part < TILE; part += 16) {
            const int begin = key + part, at = work.part + part;
            if (begin >= own_end) break;
            float scores[2][4], of_values[2][4];
            scores_of(query, keys[stage], at, scores);
            scores_of(gradient, values[stage], at, of_values);
            if (causal || begin + 16 > work.length) hide(scores, first, begin, work.length, causal);
#pragma unroll
            for (int eight = 0; eight < 2; eight++) {
                if (saved.masks.words)
                    Mask(masks[stage] + Masks::place(16 * warp_of(), at + 8 * eight)).apply(of_values[eight]);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float p = exp2_fast(scores[eight][i] * SCALE_LOG2 - lse[i / 2]);
                    scores[eight][i] = p * (of_values[eight][i] - along[i / 2]);
                }
            }
            add_weighted(sums, scores, keys[stage], at);
        }
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] *= SCALE * saved.kept;
    if (!work.idle()) store_rows(sums, keys[stage], work, dq, dq_stride, head);
    sum_rows(keys[stage], work, reinterpret_cast<float(&)[WARPS][D]>(values[stage]), sums_of_rows.of(tile, head));
}

// What the gradients in keys read of a tile's queries: the saved numbers of each, and the masks.
struct __align__(16) Rows {
    float lse[TILE], along[TILE];
    u32 masks[Masks::OF_TILE];

    // Begins to copy them, each warp those of 16 queries. Zeros are as good as any behind the sequence's end.
    __device__ __forceinline__ void fetch(const Saved& saved, const Work& work, int head, int heads, int query) {
        const int lane = lane_of(), own = 16 * warp_of(), row = query + own - work.part + lane % 16;
        const bool valid = row < work.length;
        const size_t at = size_t(work.first_row + (valid ? row : 0)) * heads + head;
        cp_async_4(&(lane < 16 ? lse : along)[own + lane % 16], (lane < 16 ? saved.lse : saved.along) + at, valid);
        saved.masks.fetch(masks, work, head, query, work.tile);
    }
};

__device__ void gradient_in_keys(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const uint4* tiles, int heads, int group, bool causal,
    Fitness fitness, const float* dmeans, const bf16* ancestry, bf16* dk, int dk_stride, Sums dk_sums, bf16* dv, int dv_stride,
    Sums dv_sums) {
    __shared__ Tile queries[2], gradients[2], mine;
    __shared__ Rows rows[2];
    const auto [tile, kv_head] = RowAndHead(heads / group);
    const Work work(tile, tiles);
    const int lane = lane_of();
    const int first = work.first, key = first + lane / 4;
    const auto fetch = [&](int stage, int head, int query) {
        rows[stage].fetch(saved, work, head, heads, query);
        fetch_both(queries[stage], q, gradients[stage], dout, work, head, query);
    };
    if (!saved.masks.words) rows[0].masks[threadIdx.x] = rows[1].masks[threadIdx.x] = ALL_LANES;
    // All queries of all heads of the group, in one line.
    int head = kv_head * group, query = causal ? work.tile : 0;
    const auto advance = [&] {
        query += TILE;
        if (work.alone || query >= work.length) query = causal ? work.tile : 0, head++;
    };
    fetch_both(queries[1], k, mine, v, work, kv_head, work.tile);
    fetch(0, head, query);
    float factors[D / 8][2];
    modulation_of(fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head, factors);
    arrive();
    u32 keys[D / 16][4], values[D / 16][4];
    queries[1].left(warp_of() * 16, keys);
    mine.left(warp_of() * 16, values);
    if (fitness.gamma) modulate(values, factors);
    float key_sums[D / 8][4] = {}, value_sums[D / 8][4] = {};
    int stage = 0;
    for (int end = (kv_head + 1) * group; head < end; stage ^= 1) {
        const int now = query;
        advance();
        arrive();
        if (head < end) {
            fetch(stage ^ 1, head, query);
        } else if (ancestry) {
            queries[stage ^ 1].fetch(work, {ancestry, fitness.columns}, kv_head, work.tile);
            cp_async_commit();
        }
        if (work.idle()) continue;
        const Rows& row = rows[stage];
#pragma unroll 1
        for (int part = 0; part < TILE; part += 16) {
            if (now + part >= work.length) break;
            const int at = work.part + part;
            float scores[2][4], of_values[2][4];
            scores_of(keys, queries[stage], at, scores);
            scores_of(values, gradients[stage], at, of_values);
            // This lane's keys' bits of the queries from 2 (l % 4) on: the next one's are 4 places further, those of the
            // ones 8 behind 1 place.
            const u32* masks = row.masks + Masks::place(at, 16 * warp_of()) + lane / 4 % 4;
            const int place = lane % 4 * 8 + lane / 16 * 2;
            const u32 bits[2] = {masks[0] >> place, masks[4] >> place};
#pragma unroll
            for (int eight = 0; eight < 2; eight++) {
                const int column = 8 * eight + lane % 4 * 2;
                const float2 lse = *reinterpret_cast<const float2*>(row.lse + at + column);
                const float2 along = *reinterpret_cast<const float2*>(row.along + at + column);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float p = exp2_fast(scores[eight][i] * SCALE_LOG2 - (i % 2 ? lse.y : lse.x));
                    if (causal && key + i / 2 * 8 > now + part + column + i % 2) p = 0;
                    const bool kept = bits[i / 2] >> (eight + i % 2 * 4) & 1;
                    scores[eight][i] = p * ((kept ? of_values[eight][i] : 0.0f) - (i % 2 ? along.y : along.x));
                    of_values[eight][i] = kept ? p : 0.0f;
                }
            }
            add_weighted(value_sums, of_values, gradients[stage], at);
            add_weighted(key_sums, scores, queries[stage], at);
        }
    }
    // Asked for again rather than held in registers; with what else comes from memory, before the wait.
    modulation_of(fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head, factors);
    float means[D / 8][2];
    wait_for_kernel_before();
    modulation_of(dmeans, fitness.columns, ancestry ? 1.0f : 1.0f / work.length, work.sequence, kv_head, means);
    arrive();
    if (!work.idle()) {
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int gene = 8 * n + lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // Behind the sequence's end there is nothing to sum, and it may not be a number.
                const bool valid = key + i / 2 * 8 < work.length;
                key_sums[n][i] = valid ? key_sums[n][i] * SCALE * saved.kept : 0.0f;
                value_sums[n][i] = valid ? value_sums[n][i] * factors[n][i % 2] * saved.kept : 0.0f;
            }
            if (dmeans) {
                // Through the fitness: dV = share dM P (1 - P), with P from the values that are still in their tile.
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int row = warp_of() * 16 + lane / 4 + half * 8;
                    const u32 pair = *reinterpret_cast<const u32*>(&mine.rows[row][gene]);
                    const u32 shares = ancestry ? *reinterpret_cast<const u32*>(&queries[stage].rows[row][gene]) : ONES;
                    value_sums[n][2 * half] += low_half(shares) * means[n][0] * sigmoid_slope(low_half(pair));
                    value_sums[n][2 * half + 1] += high_half(shares) * means[n][1] * sigmoid_slope(high_half(pair));
                }
            }
        }
    }
    if (!work.idle()) store_rows(key_sums, queries[stage ^ 1], work, dk, dk_stride, kv_head);
    sum_rows(queries[stage ^ 1], work, reinterpret_cast<float(&)[WARPS][D]>(gradients[0]), dk_sums.of(tile, kv_head));
    if (!work.idle()) store_rows(value_sums, mine, work, dv, dv_stride, kv_head);
    sum_rows(mine, work, reinterpret_cast<float(&)[WARPS][D]>(gradients[1]), dv_sums.of(tile, kv_head));
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_IN_QUERIES) attention_gradient_in_queries(
    const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* out, int out_stride,
    const bf16* dout, int dout_stride, const float* lse, float* along, u32* masks, int masks_of_head, const uint4* tiles,
    int heads, int group, int causal, float kept, const float* fitness, int fitness_columns, float scale,
    float* sums_of_genes, bf16* dq, int dq_stride, float* dq_sums, int sums_width) {
    gradient_in_queries(
        {q, q_stride}, {k, k_stride}, {v, v_stride}, {out, out_stride}, {dout, dout_stride},
        {lse, along, {masks, masks_of_head}, kept}, tiles, heads, group, causal, {fitness, fitness_columns, scale},
        sums_of_genes, dq, dq_stride, {dq_sums, sums_width});
}

extern "C" __global__ void __launch_bounds__(THREADS) gradient_in_fitness(
    const float* sums_of_genes, const float* fitness, const float* inverse, const u32* begins, int sequences, int kv_heads,
    int group, float* gradient) {
    gradient_of_fitness(sums_of_genes, fitness, inverse, begins, sequences, kv_heads, group, gradient);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_IN_KEYS) attention_gradient_in_keys(
    const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,
    int dout_stride, const float* lse, float* along, u32* masks, int masks_of_head, const uint4* tiles, int heads, int group,
    int causal, float kept, const float* fitness, int fitness_columns, float scale, const float* dmeans,
    const bf16* ancestry, bf16* dk, int dk_stride, float* dk_sums, bf16* dv, int dv_stride, float* dv_sums,
    int sums_width) {
    gradient_in_keys(
        {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride}, {lse, along, {masks, masks_of_head}, kept},
        tiles, heads, group, causal, {fitness, fitness_columns, scale}, dmeans, ancestry, dk, dk_stride,
        {dk_sums, sums_width}, dv, dv_stride, {dv_sums, sums_width});
}
