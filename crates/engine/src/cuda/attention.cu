// Softmax attention within packed sequences on tensor cores, for head dimensions 32 and 64 and bf16.
//
// Forward and the gradient in queries: a block takes 64 queries of a sequence and head, each of its four warps 16, and
// goes through the keys 64 at a time with the running maximum and sum of online softmax (Milakov and Gimelshein 2018,
// arXiv 1805.02867). The gradients in keys and values: a block takes 64 keys, each warp 16, and goes through the
// queries. Probabilities are computed again from the saved log-sum-exp (Dao et al. 2022, arXiv 2205.14135). Nothing is
// added to memory that another block adds to, so that the sums have an order.
#include "random.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int TILE = 64;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// Rows of heads in memory: a matrix whose rows begin `stride` elements apart.
struct Heads {
    const bf16* data;
    int stride;
};

// The block's work: a tile of a sequence.
struct Work {
    u32 sequence, id;
    int first_row, length, first;

    __device__ __forceinline__ Work(const u32* tiles, const u32* begins, const u32* ids) {
        sequence = tiles[2 * blockIdx.x];
        first = tiles[2 * blockIdx.x + 1];
        id = ids[sequence];
        first_row = begins[sequence];
        length = begins[sequence + 1] - first_row;
    }
};

// A tile of a head in shared memory; rows are padded so that the eight rows of a matrix lie in different banks.
template <int D>
struct Tile {
    bf16 rows[TILE][D + 8];

    // Begins to copy the rows from `first` on; those behind the sequence's end are zeros.
    __device__ __forceinline__ void fetch(const Work& work, Heads heads, int head, int first) {
        constexpr int PARTS = D / 8;
        for (int i = threadIdx.x; i < TILE * PARTS; i += THREADS) {
            const int row = i / PARTS, part = i % PARTS * 8;
            const bool valid = first + row < work.length;
            const size_t from = size_t(work.first_row + (valid ? first + row : 0)) * heads.stride + head * D + part;
            cp_async_16(&rows[row][part], heads.data + from, valid);
        }
    }

    // Rows first..first + 16 as the left operand of a product over the columns.
    __device__ __forceinline__ void left(int first, u32 (&a)[D / 16][4]) const {
        const int lane = lane_of();
#pragma unroll
        for (int k = 0; k < D / 16; k++) ldmatrix_x4(a[k], &rows[first + lane % 16][16 * k + lane / 16 * 8]);
    }

    // Rows first..first + 16 as two right operands, 8 rows each, of a product over the columns 16 k..16 k + 16.
    __device__ __forceinline__ void right_by_rows(int first, int k, u32 (&b)[4]) const {
        const int lane = lane_of();
        ldmatrix_x4(b, &rows[first + lane % 8 + lane / 16 * 8][16 * k + lane / 8 % 2 * 8]);
    }

    // Columns first..first + 16 as two right operands of a product over the rows row..row + 16.
    __device__ __forceinline__ void right_by_columns(int row, int first, u32 (&b)[4]) const {
        const int lane = lane_of();
        ldmatrix_x4_trans(b, &rows[row + lane % 16][first + lane / 16 * 8]);
    }
};

__device__ __forceinline__ void multiply_two(float (&c0)[4], float (&c1)[4], const u32 (&a)[4], const u32 (&b)[4]) {
    const u32 b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    mma_bf16(c0, a, b0);
    mma_bf16(c1, a, b1);
}

// out[2 pieces of 8 columns] = left rows . right rows, over the D columns of both.
template <int D>
__device__ __forceinline__ void scores_of(const u32 (&left)[D / 16][4], const Tile<D>& right, int first, float (&out)[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) out[0][i] = out[1][i] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        u32 b[4];
        right.right_by_rows(first, k, b);
        multiply_two(out[0], out[1], left[k], b);
    }
}

// sums[D columns] += weights[16 rows, 16] . rows row..row + 16 of the tile.
template <int D>
__device__ __forceinline__ void add_weighted(
    float (&sums)[D / 8][4], const float (&weights)[2][4], const Tile<D>& tile, int row) {
    const u32 a[4] = {
        pack_bf16(weights[0][0], weights[0][1]), pack_bf16(weights[0][2], weights[0][3]),
        pack_bf16(weights[1][0], weights[1][1]), pack_bf16(weights[1][2], weights[1][3])};
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        u32 b[4];
        tile.right_by_columns(row, 16 * n, b);
        multiply_two(sums[2 * n], sums[2 * n + 1], a, b);
    }
}

// What the scores of a query's row are multiplied by before the maximum, in powers of two.
template <int D>
__device__ __forceinline__ float scale_log2() {
    return LOG2_E / sqrtf(float(D));
}

// Whether the draws drop the four scores of this lane in a piece of 16 queries by 8 keys: its rows are `row` and
// row + 8 of the sequence, its columns two of the piece's. Each lane draws for one of the two rows, and neighbours
// exchange halves.
__device__ __forceinline__ void keep_by_rows(
    const Stream& stream, u32 threshold, int row, int first_key, int blocks, float (&keep)[4]) {
    const int lane = lane_of();
    const bool odd = lane % 2;
    const u32 index = u32(row + (odd ? 8 : 0)) * blocks + (first_key + lane % 4 / 2 * 4) / 4;
    const uint4 draw = block_of(stream, index);
    const u32 mine[2] = {odd ? draw.z : draw.x, odd ? draw.w : draw.y};
    const u32 theirs[2] = {
        __shfl_xor_sync(ALL_LANES, odd ? draw.x : draw.z, 1), __shfl_xor_sync(ALL_LANES, odd ? draw.y : draw.w, 1)};
    keep[0] = (odd ? theirs[0] : mine[0]) < threshold ? 0.0f : 1.0f;
    keep[1] = (odd ? theirs[1] : mine[1]) < threshold ? 0.0f : 1.0f;
    keep[2] = (odd ? mine[0] : theirs[0]) < threshold ? 0.0f : 1.0f;
    keep[3] = (odd ? mine[1] : theirs[1]) < threshold ? 0.0f : 1.0f;
}

// The same for a piece of 16 keys by 8 queries: this lane's keys are `key` and key + 8, its queries two of the piece's.
// Of the lanes whose keys share a block of draws each draws for one of the four blocks; they are transposed.
__device__ __forceinline__ void keep_by_columns(
    const Stream& stream, u32 threshold, int key, int query, int blocks, float (&keep)[4]) {
    const int lane = lane_of(), i = lane / 4 % 4;
    const bool odd = i % 2, upper = i / 2;
    const u32 index = u32(query + i % 2) * blocks + (key - i + (upper ? 8 : 0)) / 4;
    const uint4 draw = block_of(stream, index);
    const u32 low = __shfl_xor_sync(ALL_LANES, odd ? draw.x : draw.y, 4);
    const u32 high = __shfl_xor_sync(ALL_LANES, odd ? draw.z : draw.w, 4);
    // Of the pair of blocks that this lane and its neighbour have drawn: words 0 or 1, and words 2 or 3.
    const u32 low_first = odd ? low : draw.x, low_second = odd ? draw.y : low;
    const u32 high_first = odd ? high : draw.z, high_second = odd ? draw.w : high;
    const u32 other_first = __shfl_xor_sync(ALL_LANES, upper ? low_first : high_first, 8);
    const u32 other_second = __shfl_xor_sync(ALL_LANES, upper ? low_second : high_second, 8);
    keep[0] = (upper ? other_first : low_first) < threshold ? 0.0f : 1.0f;
    keep[1] = (upper ? other_second : low_second) < threshold ? 0.0f : 1.0f;
    keep[2] = (upper ? high_first : other_first) < threshold ? 0.0f : 1.0f;
    keep[3] = (upper ? high_second : other_second) < threshold ? 0.0f : 1.0f;
}

// Stores 16 rows of a head from the registers of a warp, through the warp's own rows of a tile.
template <int D>
__device__ __forceinline__ void store_rows(
    const float (&values)[D / 8][4], Tile<D>& through, const Work& work, int first, bf16* out, int stride, int head) {
    const int lane = lane_of(), own = warp_of() * 16;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        *reinterpret_cast<u32*>(&through.rows[own + lane / 4][8 * n + lane % 4 * 2]) = pack_bf16(values[n][0], values[n][1]);
        *reinterpret_cast<u32*>(&through.rows[own + lane / 4 + 8][8 * n + lane % 4 * 2]) =
            pack_bf16(values[n][2], values[n][3]);
    }
    __syncwarp();
    constexpr int PARTS = D / 8;
    for (int i = lane; i < 16 * PARTS; i += WARP) {
        const int row = i / PARTS, part = i % PARTS * 8;
        if (first + row < work.length)
            *reinterpret_cast<uint4*>(out + size_t(work.first_row + first + row) * stride + head * D + part) =
                *reinterpret_cast<const uint4*>(&through.rows[own + row][part]);
    }
}

// scale * fitness of two neighbouring genes of a head, or 1.
template <int D>
__device__ __forceinline__ void modulation_of(
    const float* fitness, int fitness_columns, float scale, u32 sequence, int kv_head, int gene, float (&factor)[2]) {
    factor[0] = factor[1] = 1;
    if (fitness) {
        const float* row = fitness + size_t(sequence) * fitness_columns + kv_head * D + gene;
        factor[0] = scale * row[0], factor[1] = scale * row[1];
    }
}

template <int D>
__device__ void forward(
    Heads q, Heads k, Heads v, const u32* tiles, const u32* begins, const u32* ids, int group, int causal,
    Dropout dropout, const float* fitness, int fitness_columns, float scale, bf16* out, int out_stride, float* lse) {
    __shared__ Tile<D> queries, keys, values;
    const Work work(tiles, begins, ids);
    const int head = blockIdx.y, kv_head = head / group, lane = lane_of();
    const int first = work.first + warp_of() * 16, row = first + lane / 4;
    const int blocks = (work.length + 3) / 4;
    const Stream stream = stream_of(dropout.site, work.id, head, 0);
    queries.fetch(work, q, head, work.first);
    u32 query[D / 16][4];
    float sums[D / 8][4] = {}, largest[2] = {-1e30f, -1e30f}, total[2] = {};
    const int end = causal ? min(work.length, work.first + TILE) : work.length;
    for (int key = 0; key < end; key += TILE) {
        __syncthreads();
        keys.fetch(work, k, kv_head, key);
        values.fetch(work, v, kv_head, key);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (key == 0) queries.left(warp_of() * 16, query);
        if (first >= work.length) continue;
        float scores[TILE / 16][2][4], most[2] = {-1e30f, -1e30f};
#pragma unroll
        for (int piece = 0; piece < TILE / 16; piece++) {
            if (key + 16 * piece >= end) continue;
            scores_of<D>(query, keys, 16 * piece, scores[piece]);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int column = key + 16 * piece + 8 * half + lane % 4 * 2 + i % 2;
                    const bool seen = column < work.length && !(causal && column > row + i / 2 * 8);
                    float& score = scores[piece][half][i];
                    score = seen ? score * scale_log2<D>() : -1e30f;
                    most[i / 2] = fmaxf(most[i / 2], score);
                }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 1));
            most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 2));
            most[i] = fmaxf(most[i], largest[i]);
            const float shrink = exp2_fast(largest[i] - most[i]);
            largest[i] = most[i];
            total[i] *= shrink;
#pragma unroll
            for (int n = 0; n < D / 8; n++) sums[n][2 * i] *= shrink, sums[n][2 * i + 1] *= shrink;
        }
#pragma unroll
        for (int piece = 0; piece < TILE / 16; piece++) {
            if (key + 16 * piece >= end) continue;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float (&p)[4] = scores[piece][half];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    p[i] = p[i] > -1e29f ? exp2_fast(p[i] - largest[i / 2]) : 0.0f;
                    total[i / 2] += p[i];
                }
                if (dropout.threshold) {
                    float keep[4];
                    keep_by_rows(stream, dropout.threshold, row, key + 16 * piece + 8 * half, blocks, keep);
#pragma unroll
                    for (int i = 0; i < 4; i++) p[i] *= keep[i];
                }
            }
            add_weighted<D>(sums, scores[piece], values, 16 * piece);
        }
    }
    if (first >= work.length) return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        total[i] += __shfl_xor_sync(ALL_LANES, total[i], 1);
        total[i] += __shfl_xor_sync(ALL_LANES, total[i], 2);
        if (lane % 4 == 0 && row + 8 * i < work.length)
            lse[size_t(work.first_row + row + 8 * i) * gridDim.y + head] = largest[i] * LN_2 + logf(total[i]);
        total[i] = (dropout.threshold ? dropout.kept : 1.0f) / total[i];
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        float factor[2];
        modulation_of<D>(fitness, fitness_columns, scale, work.sequence, kv_head, 8 * n + lane % 4 * 2, factor);
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] *= total[i / 2] * factor[i % 2];
    }
    __syncwarp();
    store_rows<D>(sums, queries, work, first, out, out_stride, head);
}

// Of the gradient in the output: along[n, head] = sum over the head of dout out, which is the mean of the scores'
// gradients; and, of a modulated output, the gradient in the fitness. A block takes a sequence and a kv head.
template <int D>
__device__ void along_output(
    const bf16* out, const bf16* dout, const u32* begins, int group, const float* fitness, int fitness_columns,
    float* along, float* dfitness, int columns) {
    constexpr int PER_LANE = D / WARP;
    __shared__ float sums[WARPS][D];
    const u32 begin = begins[blockIdx.x], end = begins[blockIdx.x + 1];
    const int heads = gridDim.y * group;
    float genes[PER_LANE] = {};
    for (u32 token = begin + warp_of(); token < end; token += WARPS)
        for (int head = blockIdx.y * group; head < int(blockIdx.y + 1) * group; head++) {
            const size_t at = size_t(token) * columns + head * D + lane_of() * PER_LANE;
            float sum = 0;
#pragma unroll
            for (int i = 0; i < PER_LANE; i++) {
                const float product = to_float(out[at + i]) * to_float(dout[at + i]);
                genes[i] += product;
                sum += product;
            }
            sum = warp_sum(sum);
            if (lane_of() == 0) along[size_t(token) * heads + head] = sum;
        }
    if (!fitness) return;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) sums[warp_of()][lane_of() * PER_LANE + i] = genes[i];
    __syncthreads();
    for (int g = threadIdx.x; g < D; g += THREADS) {
        const size_t at = size_t(blockIdx.x) * fitness_columns + blockIdx.y * D + g;
        float sum = 0;
        for (int warp = 0; warp < WARPS; warp++) sum += sums[warp][g];
        dfitness[at] = sum / fitness[at];
    }
}

// What the backward passes read beside the operands.
struct Saved {
    const float *lse, *along;
};

template <int D>
__device__ void gradient_in_queries(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const u32* tiles, const u32* begins, const u32* ids, int group,
    int causal, Dropout dropout, const float* fitness, int fitness_columns, float scale, bf16* dq, int dq_stride) {
    __shared__ Tile<D> queries, gradients, keys, values;
    const Work work(tiles, begins, ids);
    const int head = blockIdx.y, kv_head = head / group, lane = lane_of();
    const int first = work.first + warp_of() * 16, row = first + lane / 4;
    const int blocks = (work.length + 3) / 4;
    const Stream stream = stream_of(dropout.site, work.id, head, 0);
    const float kept = dropout.threshold ? dropout.kept : 1.0f;
    queries.fetch(work, q, head, work.first);
    gradients.fetch(work, dout, head, work.first);
    float lse[2], along[2], sums[D / 8][4] = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bool valid = row + 8 * i < work.length;
        const size_t at = size_t(work.first_row + (valid ? row + 8 * i : 0)) * gridDim.y + head;
        lse[i] = valid ? saved.lse[at] * LOG2_E : 1e30f;
        along[i] = valid ? saved.along[at] : 0.0f;
    }
    u32 query[D / 16][4], gradient[D / 16][4];
    const int end = causal ? min(work.length, work.first + TILE) : work.length;
    for (int key = 0; key < end; key += TILE) {
        __syncthreads();
        keys.fetch(work, k, kv_head, key);
        values.fetch(work, v, kv_head, key);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (key == 0) {
            queries.left(warp_of() * 16, query);
            gradients.left(warp_of() * 16, gradient);
            if (fitness)
#pragma unroll
                for (int part = 0; part < D / 16; part++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float factor[2];
                        const int gene = 16 * part + i / 2 * 8 + lane % 4 * 2;
                        modulation_of<D>(fitness, fitness_columns, scale, work.sequence, kv_head, gene, factor);
                        u32& pair = gradient[part][i];
                        pair = pack_bf16(
                            __uint_as_float(pair << 16) * factor[0], __uint_as_float(pair & 0xFFFF0000) * factor[1]);
                    }
        }
        if (first >= work.length) continue;
#pragma unroll
        for (int piece = 0; piece < TILE / 16; piece++) {
            if (key + 16 * piece >= end) continue;
            float scores[2][4], of_values[2][4];
            scores_of<D>(query, keys, 16 * piece, scores);
            scores_of<D>(gradient, values, 16 * piece, of_values);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float keep[4] = {1, 1, 1, 1};
                const int first_key = key + 16 * piece + 8 * half;
                if (dropout.threshold) keep_by_rows(stream, dropout.threshold, row, first_key, blocks, keep);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int column = first_key + lane % 4 * 2 + i % 2;
                    const bool seen = column < work.length && !(causal && column > row + i / 2 * 8);
                    const float p = seen ? exp2_fast(scores[half][i] * scale_log2<D>() - lse[i / 2]) : 0.0f;
                    scores[half][i] = p * (of_values[half][i] * keep[i] * kept - along[i / 2]);
                }
            }
            add_weighted<D>(sums, scores, keys, 16 * piece);
        }
    }
    if (first >= work.length) return;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] /= sqrtf(float(D));
    __syncwarp();
    store_rows<D>(sums, queries, work, first, dq, dq_stride, head);
}

template <int D>
__device__ void gradient_in_keys(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const u32* tiles, const u32* begins, const u32* ids, int group,
    int causal, Dropout dropout, const float* fitness, int fitness_columns, float scale, bf16* dk, int dk_stride,
    bf16* dv, int dv_stride) {
    __shared__ Tile<D> queries, gradients, mine;
    __shared__ float lse[TILE], along[TILE];
    const Work work(tiles, begins, ids);
    const int kv_head = blockIdx.y, heads = gridDim.y * group, lane = lane_of();
    const int first = work.first + warp_of() * 16, key = first + lane / 4;
    const int blocks = (work.length + 3) / 4;
    const float kept = dropout.threshold ? dropout.kept : 1.0f;
    u32 keys[D / 16][4], values[D / 16][4];
    mine.fetch(work, k, kv_head, work.first);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    mine.left(warp_of() * 16, keys);
    __syncthreads();
    mine.fetch(work, v, kv_head, work.first);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    mine.left(warp_of() * 16, values);
    if (fitness)
#pragma unroll
        for (int part = 0; part < D / 16; part++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float factor[2];
                const int gene = 16 * part + i / 2 * 8 + lane % 4 * 2;
                modulation_of<D>(fitness, fitness_columns, scale, work.sequence, kv_head, gene, factor);
                u32& pair = values[part][i];
                pair = pack_bf16(
                    __uint_as_float(pair << 16) * factor[0], __uint_as_float(pair & 0xFFFF0000) * factor[1]);
            }
    float key_sums[D / 8][4] = {}, value_sums[D / 8][4] = {};
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const Stream stream = stream_of(dropout.site, work.id, head, 0);
        for (int query = causal ? work.first : 0; query < work.length; query += TILE) {
            __syncthreads();
            queries.fetch(work, q, head, query);
            gradients.fetch(work, dout, head, query);
            cp_async_commit();
            for (int i = threadIdx.x; i < TILE; i += THREADS) {
                const bool valid = query + i < work.length;
                const size_t at = size_t(work.first_row + (valid ? query + i : 0)) * heads + head;
                lse[i] = valid ? saved.lse[at] * LOG2_E : 1e30f;
                along[i] = valid ? saved.along[at] : 0.0f;
            }
            cp_async_wait<0>();
            __syncthreads();
            if (first >= work.length) continue;
#pragma unroll
            for (int piece = 0; piece < TILE / 16; piece++) {
                if (query + 16 * piece >= work.length) continue;
                float scores[2][4], of_values[2][4];
                scores_of<D>(keys, queries, 16 * piece, scores);
                scores_of<D>(values, gradients, 16 * piece, of_values);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float keep[4] = {1, 1, 1, 1};
                    const int within = 16 * piece + 8 * half + lane % 4 * 2;
                    if (dropout.threshold) keep_by_columns(stream, dropout.threshold, key, query + within, blocks, keep);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int column = within + i % 2;
                        const bool seen = key + i / 2 * 8 < work.length && !(causal && key + i / 2 * 8 > query + column);
                        const float p =
                            seen ? exp2_fast(scores[half][i] * scale_log2<D>() - lse[column]) : 0.0f;
                        scores[half][i] = p * (of_values[half][i] * keep[i] * kept - along[column]);
                        of_values[half][i] = p * keep[i];
                    }
                }
                add_weighted<D>(value_sums, of_values, gradients, 16 * piece);
                add_weighted<D>(key_sums, scores, queries, 16 * piece);
            }
        }
    }
    if (first >= work.length) return;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        float factor[2];
        modulation_of<D>(fitness, fitness_columns, scale, work.sequence, kv_head, 8 * n + lane % 4 * 2, factor);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            key_sums[n][i] /= sqrtf(float(D));
            value_sums[n][i] *= kept * factor[i % 2];
        }
    }
    store_rows<D>(key_sums, mine, work, first, dk, dk_stride, kv_head);
    __syncwarp();
    store_rows<D>(value_sums, mine, work, first, dv, dv_stride, kv_head);
}

#define ATTENTION(D)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_##D(                                              \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const u32* tiles,      \
        const u32* begins, const u32* ids, int group, int causal, u32 seed_low, u32 seed_high, u32 step, u32 name,    \
        u32 threshold, float kept, const float* fitness, int fitness_columns, float scale, bf16* out, int out_stride, \
        float* lse) {                                                                                                 \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                 \
        forward<D>(                                                                                                   \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, tiles, begins, ids, group, causal, dropout, fitness,         \
            fitness_columns, scale, out, out_stride, lse);                                                            \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) along_output_##D(                                           \
        const bf16* out, const bf16* dout, const u32* begins, int group, const float* fitness, int fitness_columns,   \
        float* along, float* dfitness, int columns) {                                                                 \
        along_output<D>(out, dout, begins, group, fitness, fitness_columns, along, dfitness, columns);                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_gradient_in_queries_##D(                          \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,      \
        int dout_stride, const float* lse, const float* along, const u32* tiles, const u32* begins, const u32* ids,   \
        int group, int causal, u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept,            \
        const float* fitness, int fitness_columns, float scale, bf16* dq, int dq_stride) {                            \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                 \
        gradient_in_queries<D>(                                                                                       \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride}, {lse, along}, tiles, begins, ids,       \
            group, causal, dropout, fitness, fitness_columns, scale, dq, dq_stride);                                  \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_gradient_in_keys_##D(                             \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,      \
        int dout_stride, const float* lse, const float* along, const u32* tiles, const u32* begins, const u32* ids,   \
        int group, int causal, u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept,            \
        const float* fitness, int fitness_columns, float scale, bf16* dk, int dk_stride, bf16* dv, int dv_stride) {   \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                 \
        gradient_in_keys<D>(                                                                                          \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride}, {lse, along}, tiles, begins, ids,       \
            group, causal, dropout, fitness, fitness_columns, scale, dk, dk_stride, dv, dv_stride);                   \
    }
ATTENTION(32)
ATTENTION(64)
