// Gradients of attention within packed sequences on tensor cores. Probabilities are computed again from the saved
// log-sum-exp (Dao et al. 2022, arXiv 2205.14135).
#include "attention.cuh"

// That are to share a multiprocessor.
constexpr int BLOCKS_IN_QUERIES = D == 32 ? 5 : 3;
constexpr int BLOCKS_IN_KEYS = D == 32 ? 4 : 3;

// A fitness that modulates, [S, v d], and where it is made from the values: u, and room for the gradient in the gene
// means, of the same shape.
struct Fitness {
    const float* gamma;
    int columns;
    float scale;
    const float* inverse;
    float* dmeans;
};

// Of the gradient in the output: along[n, head] = sum over the head of dout out, which is the mean of the scores'
// gradients; and, of a modulated output, the gradient in the fitness, or through it in the gene means: dM = u gamma
// (sum gamma dgamma - dgamma). A block takes a sequence and a kv head.
__device__ void sum_along_output(
    const bf16* out, const bf16* dout, const u32* begins, int kv_heads, int group, Fitness fitness, float* along, float* dfitness,
    int columns) {
    // A lane takes four genes of a row, so a warp several rows.
    constexpr int LANES = D / 4, ROWS = WARP / LANES;
    __shared__ float sums[WARPS * ROWS][D];
    const auto [sequence, kv_head] = RowAndHead(kv_heads);
    const u32 begin = begins[sequence], end = begins[sequence + 1];
    const int heads = kv_heads * group, gene = lane_of() % LANES * 4, part = warp_of() * ROWS + lane_of() / LANES;
    float genes[4] = {};
    for (u32 first = begin; first < end; first += WARPS * ROWS) {
        const u32 token = first + part;
        for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
            float sum = 0;
            if (token < end) {
                const size_t at = size_t(token) * columns + head * D + gene;
                float x[4], d[4];
                load4(out + at, x), load4(dout + at, d);
                for (int i = 0; i < 4; i++) genes[i] += x[i] * d[i], sum += x[i] * d[i];
            }
            for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
            if (gene == 0 && token < end) along[size_t(token) * heads + head] = sum;
        }
    }
    if (!fitness.gamma) return;
    store4(&sums[part][gene], genes);
    __syncthreads();
    // A thread takes a gene; threads beyond have none, and nothing to add.
    const int g = threadIdx.x;
    const size_t at = size_t(sequence) * fitness.columns + kv_head * D + g;
    float gradient = 0, gamma = 0;
    if (g < D) {
        float sum = 0;
        for (int i = 0; i < WARPS * ROWS; i++) sum += sums[i][g];
        gamma = fitness.gamma[at];
        gradient = sum / gamma;
        if (!fitness.dmeans) dfitness[at] = gradient;
    }
    if (fitness.dmeans) {
        const float mean = block_sum(gamma * gradient);
        if (g < D) fitness.dmeans[at] = fitness.inverse[at] * gamma * (mean - gradient);
    }
}

// What the backward passes read beside the operands. Without dropout nothing is masked, and `kept` is 1.
struct Saved {
    const float *lse, *along;
    Masks masks;
    float kept;
};

// With P the probabilities, m the mask and k what it multiplies by, dS = P (k m dP - along) = k P (m dP - along / k): k is
// left to the end.
__device__ void gradient_in_queries(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const u32* tiles, const u32* begins, const u32* ids, int heads,
    int group, bool causal, Fitness fitness, bf16* dq, int dq_stride) {
    __shared__ Tile keys[2], values[2];
    Tile &queries = keys[1], &gradients = values[1];
    const auto [tile, head] = RowAndHead(heads);
    const Work work(tile, tiles, begins, ids);
    const int kv_head = head / group, lane = lane_of();
    const int first = work.first + warp_of() * 16, row = first + lane / 4;
    fetch_both(queries, q, gradients, dout, work, head, work.first);
    fetch_both(keys[0], k, values[0], v, work, kv_head, 0);
    float lse[2], along[2], sums[D / 8][4] = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bool valid = row + 8 * i < work.length;
        const size_t at = size_t(work.first_row + (valid ? row + 8 * i : 0)) * heads + head;
        lse[i] = valid ? saved.lse[at] * LOG2_E : 1e30f;
        along[i] = valid ? saved.along[at] / saved.kept : 0.0f;
    }
    arrive();
    u32 query[D / 16][4], gradient[D / 16][4];
    queries.left(warp_of() * 16, query);
    gradients.left(warp_of() * 16, gradient);
    if (fitness.gamma) modulate(gradient, fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head);
    const int end = causal ? min(work.length, work.first + TILE) : work.length;
    int stage = 0;
    for (int key = 0; key < end; key += TILE, stage ^= 1) {
        arrive();
        if (key + TILE < end) fetch_both(keys[stage ^ 1], k, values[stage ^ 1], v, work, kv_head, key + TILE);
        if (first >= work.length) continue;
#pragma unroll
        for (int part = 0; part < TILE; part += 16) {
            const int begin = key + part;
            if (begin >= end) continue;
            float scores[2][4], of_values[2][4];
            scores_of(query, keys[stage], part, scores);
            scores_of(gradient, values[stage], part, of_values);
            if (causal || begin + 16 > work.length) hide(scores, first, begin, work.length, causal);
#pragma unroll
            for (int eight = 0; eight < 2; eight++) {
                if (saved.masks.words)
                    Mask(saved.masks.piece(work, head, first, begin + 8 * eight)).apply(of_values[eight]);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float p = exp2_fast(scores[eight][i] * SCALE_LOG2 - lse[i / 2]);
                    scores[eight][i] = p * (of_values[eight][i] - along[i / 2]);
                }
            }
            add_weighted(sums, scores, keys[stage], part);
        }
    }
    if (first >= work.length) return;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] *= SCALE * saved.kept;
    store_rows(sums, keys[stage], work, first, dq, dq_stride, head);
}

// What the gradients in keys read of a tile's queries: log-sum-exp and `along` of each, and the masks.
struct __align__(16) Rows {
    float lse[TILE], along[TILE];
    u32 masks[Masks::OF_TILE];
};

// A thread's part of it on its way: one of the numbers, and a word.
struct RowOnItsWay {
    float number;
    u32 word;

    __device__ __forceinline__ void fetch(const Saved& saved, const Work& work, int head, int heads, int first) {
        const int row = first + threadIdx.x % TILE;
        const bool valid = row < work.length;
        const size_t at = size_t(work.first_row + (valid ? row : 0)) * heads + head;
        if (threadIdx.x < TILE)
            number = valid ? saved.lse[at] * LOG2_E : 1e30f;
        else
            number = valid ? saved.along[at] / saved.kept : 0.0f;
        word = saved.masks.words ? saved.masks.tile(work, head, first, work.first)[threadIdx.x] : ALL_LANES;
    }

    __device__ __forceinline__ void store(Rows& rows) const {
        float* numbers = threadIdx.x < TILE ? rows.lse : rows.along;
        numbers[threadIdx.x % TILE] = number;
        rows.masks[threadIdx.x] = word;
    }
};
static_assert(THREADS == 2 * TILE && THREADS == Masks::OF_TILE, "each thread brings a number and a word");

template <typename A>
__device__ void gradient_in_keys(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const u32* tiles, const u32* begins, const u32* ids, int heads,
    int group, bool causal, Fitness fitness, const A* ancestry, bf16* dk, int dk_stride, bf16* dv, int dv_stride) {
    __shared__ Tile queries[2], gradients[2], mine;
    __shared__ Rows rows[2];
    const auto [tile, kv_head] = RowAndHead(heads / group);
    const Work work(tile, tiles, begins, ids);
    const int lane = lane_of();
    const int first = work.first + warp_of() * 16, key = first + lane / 4;
    RowOnItsWay on_its_way;
    const auto fetch = [&](int stage, int head, int query) {
        fetch_both(queries[stage], q, gradients[stage], dout, work, head, query);
        on_its_way.fetch(saved, work, head, heads, query);
    };
    // All queries of all heads of the group, in one line.
    int head = kv_head * group, query = causal ? work.first : 0;
    const auto advance = [&] {
        query += TILE;
        if (query >= work.length) query = causal ? work.first : 0, head++;
    };
    fetch_both(queries[1], k, mine, v, work, kv_head, work.first);
    fetch(0, head, query);
    arrive();
    u32 keys[D / 16][4], values[D / 16][4];
    queries[1].left(warp_of() * 16, keys);
    mine.left(warp_of() * 16, values);
    if (fitness.gamma) modulate(values, fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head);
    float key_sums[D / 8][4] = {}, value_sums[D / 8][4] = {};
    int stage = 0;
    for (int end = (kv_head + 1) * group; head < end; stage ^= 1) {
        const int now = query;
        advance();
        on_its_way.store(rows[stage]);
        arrive();
        if (head < end) fetch(stage ^ 1, head, query);
        if (first >= work.length) continue;
        const Rows& row = rows[stage];
#pragma unroll(D == 32 ? 4 : 1)
        for (int part = 0; part < TILE; part += 16) {
            if (now + part >= work.length) continue;
            float scores[2][4], of_values[2][4];
            scores_of(keys, queries[stage], part, scores);
            scores_of(values, gradients[stage], part, of_values);
            // This lane's keys' bits of the queries from 2 (l % 4) on: the next one's are 4 places further, those of the
            // ones 8 behind 1 place.
            const u32* masks = row.masks + (part / 16 * (TILE / 8) + warp_of() * 2) * 4 + lane / 4 % 4;
            const int place = lane % 4 * 8 + lane / 16 * 2;
            const u32 bits[2] = {masks[0] >> place, masks[4] >> place};
#pragma unroll
            for (int eight = 0; eight < 2; eight++) {
                const int column = part + 8 * eight + lane % 4 * 2;
                const float2 lse = *reinterpret_cast<const float2*>(row.lse + column);
                const float2 along = *reinterpret_cast<const float2*>(row.along + column);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float p = exp2_fast(scores[eight][i] * SCALE_LOG2 - (i % 2 ? lse.y : lse.x));
                    if (causal && key + i / 2 * 8 > now + column + i % 2) p = 0;
                    const bool kept = bits[i / 2] >> (eight + i % 2 * 4) & 1;
                    scores[eight][i] = p * ((kept ? of_values[eight][i] : 0.0f) - (i % 2 ? along.y : along.x));
                    of_values[eight][i] = kept ? p : 0.0f;
                }
            }
            add_weighted(value_sums, of_values, gradients[stage], part);
            add_weighted(key_sums, scores, queries[stage], part);
        }
    }
    if (first >= work.length) return;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        const int gene = 8 * n + lane % 4 * 2;
        float factor[2];
        modulation_of(fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head, gene, factor);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            key_sums[n][i] *= SCALE * saved.kept;
            value_sums[n][i] *= factor[i % 2] * saved.kept;
        }
        if (fitness.dmeans) {
            // Through the fitness: dV = share dM P (1 - P), with P from the values that are still in their tile.
            const float2 dmeans = *reinterpret_cast<const float2*>(
                fitness.dmeans + size_t(work.sequence) * fitness.columns + kv_head * D + gene);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = lane / 4 + i / 2 * 8;
                const float p = sigmoid(to_float(mine.rows[warp_of() * 16 + row][gene + i % 2]));
                const size_t at = size_t(work.first_row + min(first + row, work.length - 1)) * fitness.columns;
                const float share =
                    ancestry ? to_float(ancestry[at + kv_head * D + gene + i % 2]) : 1.0f / work.length;
                value_sums[n][i] += share * (i % 2 ? dmeans.y : dmeans.x) * p * (1 - p);
            }
        }
    }
    store_rows(key_sums, mine, work, first, dk, dk_stride, kv_head);
    __syncwarp();
    store_rows(value_sums, mine, work, first, dv, dv_stride, kv_head);
}

extern "C" __global__ void __launch_bounds__(THREADS, 8) along_output(
    const bf16* out, const bf16* dout, const u32* begins, int kv_heads, int group, const float* fitness, int fitness_columns,
    const float* inverse, float* dmeans, float* along, float* dfitness, int columns) {
    sum_along_output(
        out, dout, begins, kv_heads, group, {fitness, fitness_columns, 1, inverse, dmeans}, along, dfitness, columns);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_IN_QUERIES) attention_gradient_in_queries(
    const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,
    int dout_stride, const float* lse, const float* along, u32* masks, const u32* mask_begins, int masks_of_head,
    const u32* tiles, const u32* begins, const u32* ids, int heads, int group, int causal, float kept,
    const float* fitness, int fitness_columns, float scale, bf16* dq, int dq_stride) {
    gradient_in_queries(
        {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride},
        {lse, along, {masks, mask_begins, masks_of_head}, kept}, tiles, begins, ids, heads, group, causal,
        {fitness, fitness_columns, scale, nullptr, nullptr}, dq, dq_stride);
}

// By what an ancestry is kept as.
#define GRADIENT_IN_KEYS(kind, A)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_IN_KEYS) attention_gradient_in_keys_##kind(          \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,      \
        int dout_stride, const float* lse, const float* along, u32* masks, const u32* mask_begins, int masks_of_head, \
        const u32* tiles, const u32* begins, const u32* ids, int heads, int group, int causal, float kept,            \
        const float* fitness, int fitness_columns, float scale, float* dmeans, const A* ancestry, bf16* dk,           \
        int dk_stride, bf16* dv, int dv_stride) {                                                                     \
        gradient_in_keys<A>(                                                                                          \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride},                                         \
            {lse, along, {masks, mask_begins, masks_of_head}, kept}, tiles, begins, ids, heads, group, causal,               \
            {fitness, fitness_columns, scale, nullptr, dmeans}, ancestry, dk, dk_stride, dv, dv_stride);              \
    }
GRADIENT_IN_KEYS(f32, float)
GRADIENT_IN_KEYS(bf16, bf16)
