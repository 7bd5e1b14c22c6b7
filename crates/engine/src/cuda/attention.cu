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

// Which probabilities dropout has left: a bit for each query and key, a query's in words of 32 keys, whole tiles.
struct Kept {
    u32* words;

    // Of a sequence and head, whose heads' words are `words_of_head` apart.
    __device__ __forceinline__ Kept(u32* all, const u32* begins, u32 sequence, int head, int words_of_head) {
        words = all + size_t(head) * words_of_head + begins[sequence];
    }

    // The word of a query in which the bits of a tile's first or second 32 keys are.
    __device__ __forceinline__ u32& word(int query, int length, int first_key, int half) const {
        return words[query * ((length + TILE - 1) / TILE * (TILE / 32)) + first_key / 32 + half];
    }
};

__device__ __forceinline__ float bit(u32 word, int place) {
    return word >> place & 1 ? 1.0f : 0.0f;
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
        const float2 pair =
            *reinterpret_cast<const float2*>(fitness + size_t(sequence) * fitness_columns + kv_head * D + gene);
        factor[0] = scale * pair.x, factor[1] = scale * pair.y;
    }
}

template <int D>
__device__ void forward(
    Heads q, Heads k, Heads v, const u32* tiles, const u32* begins, const u32* ids, int group, int causal,
    Dropout dropout, u32* kept_bits, const u32* kept_begins, int kept_words, const float* fitness, int fitness_columns,
    float scale, bf16* out, int out_stride, float* lse) {
    __shared__ Tile<D> queries, keys, values;
    const Work work(tiles, begins, ids);
    const int head = blockIdx.y, kv_head = head / group, lane = lane_of();
    const int first = work.first + warp_of() * 16, row = first + lane / 4;
    const int blocks = (work.length + 3) / 4;
    const Stream stream = stream_of(dropout.site, work.id, head, 0);
    const Kept kept(kept_bits, kept_begins, work.sequence, head, kept_words);
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
        // 32 keys at a time, as many as a word has bits.
        for (int half = 0; half < 2 && key + 32 * half < end; half++) {
            const int begin = key + 32 * half;
            float scores[2][2][4], most[2] = {-1e30f, -1e30f};
#pragma unroll
            for (int piece = 0; piece < 2; piece++) {
                scores_of<D>(query, keys, 32 * half + 16 * piece, scores[piece]);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const int column = begin + 16 * piece + i / 4 * 8 + lane % 4 * 2 + i % 2;
                    const bool seen = column < work.length && !(causal && column > row + i / 2 % 2 * 8);
                    float& score = scores[piece][i / 4][i % 4];
                    score = seen ? score * scale_log2<D>() : -1e30f;
                    most[i / 2 % 2] = fmaxf(most[i / 2 % 2], score);
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
            // This lane's bits of both its rows.
            u32 bits[2] = {};
#pragma unroll
            for (int piece = 0; piece < 2; piece++) {
#pragma unroll
                for (int eight = 0; eight < 2; eight++) {
                    float (&p)[4] = scores[piece][eight];
                    float keep[4] = {1, 1, 1, 1};
                    const int place = 16 * piece + 8 * eight;
                    if (dropout.threshold) keep_by_rows(stream, dropout.threshold, row, begin + place, blocks, keep);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        p[i] = p[i] > -1e29f ? exp2_fast(p[i] - largest[i / 2]) : 0.0f;
                        total[i / 2] += p[i];
                        p[i] *= keep[i];
                        bits[i / 2] |= u32(keep[i] > 0) << (place + lane % 4 * 2 + i % 2);
                    }
                }
                add_weighted<D>(sums, scores[piece], values, 32 * half + 16 * piece);
            }
            if (dropout.threshold)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    bits[i] |= __shfl_xor_sync(ALL_LANES, bits[i], 1);
                    bits[i] |= __shfl_xor_sync(ALL_LANES, bits[i], 2);
                    if (lane % 4 == 0 && row + 8 * i < work.length)
                        kept.word(row + 8 * i, work.length, key, half) = bits[i];
                }
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
template <int D>
__device__ void along_output(
    const bf16* out, const bf16* dout, const u32* begins, int group, Fitness fitness, float* along, float* dfitness,
    int columns) {
    constexpr int PAIRS = D / 2;
    // Of 32 genes half a warp takes a row.
    constexpr int ROWS = WARP / PAIRS;
    __shared__ float sums[WARPS * ROWS][D];
    const u32 begin = begins[blockIdx.x], end = begins[blockIdx.x + 1];
    const int heads = gridDim.y * group, pair = lane_of() % PAIRS, part = warp_of() * ROWS + lane_of() / PAIRS;
    float genes[2] = {};
    for (u32 first = begin; first < end; first += WARPS * ROWS) {
        const u32 token = first + part;
        for (int head = blockIdx.y * group; head < int(blockIdx.y + 1) * group; head++) {
            float sum = 0;
            if (token < end) {
                const size_t at = size_t(token) * columns + head * D + 2 * pair;
                const u32 x = *reinterpret_cast<const u32*>(out + at), d = *reinterpret_cast<const u32*>(dout + at);
                const float low = __uint_as_float(x << 16) * __uint_as_float(d << 16);
                const float high = __uint_as_float(x & 0xFFFF0000) * __uint_as_float(d & 0xFFFF0000);
                genes[0] += low, genes[1] += high;
                sum = low + high;
            }
            for (int step = PAIRS / 2; step > 0; step /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
            if (pair == 0 && token < end) along[size_t(token) * heads + head] = sum;
        }
    }
    if (!fitness.gamma) return;
    sums[part][2 * pair] = genes[0], sums[part][2 * pair + 1] = genes[1];
    __syncthreads();
    // A thread takes a gene; threads beyond have none, and nothing to add.
    const int g = threadIdx.x;
    const size_t at = size_t(blockIdx.x) * fitness.columns + blockIdx.y * D + g;
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

// What the backward passes read beside the operands.
struct Saved {
    const float *lse, *along;
    u32* kept;
    const u32* kept_begins;
    int kept_words;
};

template <int D>
__device__ void gradient_in_queries(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const u32* tiles, const u32* begins, const u32* ids, int group,
    int causal, float kept_scale, const float* fitness, int fitness_columns, float scale, bf16* dq, int dq_stride) {
    __shared__ Tile<D> queries, gradients, keys, values;
    const Work work(tiles, begins, ids);
    const int head = blockIdx.y, kv_head = head / group, lane = lane_of();
    const int first = work.first + warp_of() * 16, row = first + lane / 4;
    const Kept kept(saved.kept, saved.kept_begins, work.sequence, head, saved.kept_words);
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
        // The bits of both this lane's rows, in the words of either half of the tile.
        u32 bits[2][2] = {{ALL_LANES, ALL_LANES}, {ALL_LANES, ALL_LANES}};
        if (saved.kept)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (row + i / 2 * 8 < work.length)
                    bits[i / 2][i % 2] = kept.word(row + i / 2 * 8, work.length, key, i % 2);
#pragma unroll
        for (int piece = 0; piece < TILE / 16; piece++) {
            if (key + 16 * piece >= end) continue;
            float scores[2][4], of_values[2][4];
            scores_of<D>(query, keys, 16 * piece, scores);
            scores_of<D>(gradient, values, 16 * piece, of_values);
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int within = 8 * half + lane % 4 * 2 + i % 2, column = key + 16 * piece + within;
                    const bool seen = column < work.length && !(causal && column > row + i / 2 * 8);
                    const float p = seen ? exp2_fast(scores[half][i] * scale_log2<D>() - lse[i / 2]) : 0.0f;
                    const float keep = bit(bits[i / 2][piece / 2], 16 * (piece % 2) + within) * kept_scale;
                    scores[half][i] = p * (of_values[half][i] * keep - along[i / 2]);
                }
            }
            add_weighted<D>(sums, scores, keys, 16 * piece);
        }
    }
    if (first >= work.length) return;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] *= rsqrtf(float(D));
    __syncwarp();
    store_rows<D>(sums, queries, work, first, dq, dq_stride, head);
}

template <int D, typename A>
__device__ void gradient_in_keys(
    Heads q, Heads k, Heads v, Heads dout, Saved saved, const u32* tiles, const u32* begins, const u32* ids, int group,
    int causal, float kept_scale, Fitness fitness, const A* ancestry, bf16* dk, int dk_stride, bf16* dv, int dv_stride) {
    __shared__ Tile<D> queries, gradients, mine;
    __shared__ float lse[TILE], along[TILE];
    __shared__ u32 bits[TILE][2];
    const Work work(tiles, begins, ids);
    const int kv_head = blockIdx.y, heads = gridDim.y * group, lane = lane_of();
    const int first = work.first + warp_of() * 16, key = first + lane / 4;
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
    if (fitness.gamma)
#pragma unroll
        for (int part = 0; part < D / 16; part++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float factor[2];
                const int gene = 16 * part + i / 2 * 8 + lane % 4 * 2;
                modulation_of<D>(fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head, gene, factor);
                u32& pair = values[part][i];
                pair = pack_bf16(
                    __uint_as_float(pair << 16) * factor[0], __uint_as_float(pair & 0xFFFF0000) * factor[1]);
            }
    float key_sums[D / 8][4] = {}, value_sums[D / 8][4] = {};
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const Kept kept(saved.kept, saved.kept_begins, work.sequence, head, saved.kept_words);
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
                for (int half = 0; half < 2; half++)
                    bits[i][half] =
                        valid && saved.kept ? kept.word(query + i, work.length, work.first, half) : ALL_LANES;
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
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int column = 16 * piece + 8 * half + lane % 4 * 2 + i % 2;
                        const bool seen = key + i / 2 * 8 < work.length && !(causal && key + i / 2 * 8 > query + column);
                        const float p =
                            seen ? exp2_fast(scores[half][i] * scale_log2<D>() - lse[column]) : 0.0f;
                        const float keep =
                            bit(bits[column][warp_of() / 2], warp_of() % 2 * 16 + lane / 4 + i / 2 * 8) * kept_scale;
                        scores[half][i] = p * (of_values[half][i] * keep - along[column]);
                        of_values[half][i] = p * keep;
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
        const int gene = 8 * n + lane % 4 * 2;
        float factor[2];
        modulation_of<D>(fitness.gamma, fitness.columns, fitness.scale, work.sequence, kv_head, gene, factor);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            key_sums[n][i] *= rsqrtf(float(D));
            value_sums[n][i] *= factor[i % 2];
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
    store_rows<D>(key_sums, mine, work, first, dk, dk_stride, kv_head);
    __syncwarp();
    store_rows<D>(value_sums, mine, work, first, dv, dv_stride, kv_head);
}

#define ATTENTION(D)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) attention_##D(                                           \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const u32* tiles,      \
        const u32* begins, const u32* ids, int group, int causal, u32 seed_low, u32 seed_high, u32 step, u32 name,    \
        u32 threshold, float kept_scale, u32* kept, const u32* kept_begins, int kept_words, const float* fitness,     \
        int fitness_columns, float scale, bf16* out, int out_stride, float* lse) {                                    \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept_scale};                           \
        forward<D>(                                                                                                   \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, tiles, begins, ids, group, causal, dropout, kept,            \
            kept_begins, kept_words, fitness, fitness_columns, scale, out, out_stride, lse);                          \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) along_output_##D(                                           \
        const bf16* out, const bf16* dout, const u32* begins, int group, const float* fitness, int fitness_columns,   \
        const float* inverse, float* dmeans, float* along, float* dfitness, int columns) {                            \
        const Fitness gamma = {fitness, fitness_columns, 1, inverse, dmeans};                                         \
        along_output<D>(out, dout, begins, group, gamma, along, dfitness, columns);                                   \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_gradient_in_queries_##D(                          \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,      \
        int dout_stride, const float* lse, const float* along, u32* kept, const u32* kept_begins, int kept_words,     \
        const u32* tiles, const u32* begins, const u32* ids, int group, int causal, float kept_scale,                 \
        const float* fitness, int fitness_columns, float scale, bf16* dq, int dq_stride) {                            \
        gradient_in_queries<D>(                                                                                       \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride},                                         \
            {lse, along, kept, kept_begins, kept_words}, tiles, begins, ids, group, causal, kept_scale, fitness,      \
            fitness_columns, scale, dq, dq_stride);                                                                   \
    }                                                                                                                 \
    GRADIENT_IN_KEYS(D, f32, float)                                                                                   \
    GRADIENT_IN_KEYS(D, bf16, bf16)

// By what an ancestry is kept as.
#define GRADIENT_IN_KEYS(D, kind, A)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) attention_gradient_in_keys_##D##_##kind(                    \
        const bf16* q, int q_stride, const bf16* k, int k_stride, const bf16* v, int v_stride, const bf16* dout,      \
        int dout_stride, const float* lse, const float* along, u32* kept, const u32* kept_begins, int kept_words,     \
        const u32* tiles, const u32* begins, const u32* ids, int group, int causal, float kept_scale,                 \
        const float* fitness, int fitness_columns, float scale, float* dmeans, const A* ancestry, bf16* dk,           \
        int dk_stride, bf16* dv, int dv_stride) {                                                                     \
        gradient_in_keys<D, A>(                                                                                       \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride},                                         \
            {lse, along, kept, kept_begins, kept_words}, tiles, begins, ids, group, causal, kept_scale,               \
            {fitness, fitness_columns, scale, nullptr, dmeans}, ancestry, dk, dk_stride, dv, dv_stride);              \
    }

ATTENTION(32)
ATTENTION(64)
