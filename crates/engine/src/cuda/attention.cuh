// Attention within packed sequences on tensor cores, for heads of HEAD_DIM (32 or 64) columns in bf16: what its kernels
// share. A block takes a tile of 64 rows, each of its four warps 16 of them: rows of one sequence, or, where four
// sequences have no more than 16 each, a sequence for each warp. It goes through the rows on the other side of the
// scores in tiles of 64. It does so in two stages: while one is worked on, the other's tiles are on their way. What
// stays with the block begins in the second stage's place, and goes to registers; results are stored through the stage
// that nobody reads any more. Nothing is added to memory that another block adds to, so that the sums have an order.
#pragma once
#include "random.cuh"

constexpr int D = HEAD_DIM;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int TILE = 64;
// What scores are multiplied by, and the same for powers of two.
constexpr float SCALE = D == 64 ? 0.125f : 0.17677669529663687f;
constexpr float SCALE_LOG2 = SCALE * LOG2_E;

// Rows of heads in memory: a matrix whose rows begin `stride` elements apart.
struct Heads {
    const bf16* data;
    int stride;
};

// A warp's work: 16 rows of a sequence, in a tile that it shares with the block's other warps, each of which takes the
// next 16, or whose other rows are other sequences'.
struct Work {
    u32 sequence, id;
    int first_row, length;
    // Where its masks begin.
    u32 masks;
    // Positions in the sequence: of the tile, and of the warp's own rows.
    int tile, first;
    // Where the rows of the sequence begin in its tiles.
    int part;
    bool alone;

    // From the words of sequences.rs for each warp of each tile; where there is no sequence its length is 0.
    __device__ __forceinline__ Work(int row, const uint4* tiles) {
        const uint4 of_sequence = tiles[2 * (WARPS * row + warp_of())], of_tile = tiles[2 * (WARPS * row + warp_of()) + 1];
        sequence = of_sequence.x, id = of_sequence.y, first_row = of_sequence.z, length = of_sequence.w;
        tile = of_tile.x, alone = of_tile.y, masks = of_tile.z;
        part = alone ? 16 * warp_of() : 0;
        first = alone ? 0 : tile + 16 * warp_of();
    }

    __device__ __forceinline__ bool idle() const {
        return first >= length;
    }

    // How far the block's warps go through a sequence; those that are alone need one tile.
    __device__ __forceinline__ int end(bool causal) const {
        return alone ? 1 : causal ? min(length, tile + TILE) : length;
    }
};

// A tile of a head in shared memory; rows are padded so that the eight rows of a matrix lie in different banks.
struct __align__(16) Tile {
    bf16 rows[TILE][D + 8];

    // Begins to copy the rows from `position` on; those behind a sequence's end are zeros.
    __device__ __forceinline__ void fetch(const Work& work, Heads heads, int head, int position) {
        // A warp brings its own 16 rows, a lane 16 bytes of one, and of every so many-th after it.
        constexpr int PARTS = D / 8, AT_ONCE = WARP / PARTS;
        const int row = lane_of() / PARTS, part = lane_of() % PARTS * 8;
        const int from_row = position + 16 * warp_of() - work.part + row;
        const bf16* from = heads.data + size_t(work.first_row + from_row) * heads.stride + head * D + part;
#pragma unroll
        for (int n = 0; n < 16; n += AT_ONCE) {
            const bool valid = from_row + n < work.length;
            cp_async_16(
                &rows[16 * warp_of() + row + n][part], valid ? from + size_t(n) * heads.stride : heads.data, valid);
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
__device__ __forceinline__ void scores_of(const u32 (&left)[D / 16][4], const Tile& right, int first, float (&out)[2][4]) {
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
__device__ __forceinline__ void add_weighted(
    float (&sums)[D / 8][4], const float (&weights)[2][4], const Tile& tile, int row) {
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

// Which of 16 queries' probabilities of 8 keys dropout has left: a word for each of four neighbouring keys. Bit l of a
// word is drawn by lane l, for query l / 4, or the one 8 behind if l is odd, and the first four keys, or the second four
// if l / 2 is odd.
struct Mask {
    u32 words[4];

    // Of queries from `query` on and keys from `key` on; a query's draws are in `blocks` of four keys.
    __device__ __forceinline__ Mask(const Stream& stream, u32 threshold, int query, int key, int blocks) {
        const int lane = lane_of();
        const uint4 draw = block_of(stream, u32(query + lane / 4 + lane % 2 * 8) * blocks + key / 4 + lane / 2 % 2);
        words[0] = __ballot_sync(ALL_LANES, draw.x >= threshold);
        words[1] = __ballot_sync(ALL_LANES, draw.y >= threshold);
        words[2] = __ballot_sync(ALL_LANES, draw.z >= threshold);
        words[3] = __ballot_sync(ALL_LANES, draw.w >= threshold);
    }

    __device__ __forceinline__ explicit Mask(const u32* from) {
        const uint4 four = *reinterpret_cast<const uint4*>(from);
        words[0] = four.x, words[1] = four.y, words[2] = four.z, words[3] = four.w;
    }

    __device__ __forceinline__ void store(u32* to) const {
        if (lane_of() == 0) *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    }

    // What is left of this lane's four scores, queries l / 4 and 8 behind, keys 2 (l % 4) and the next.
    __device__ __forceinline__ void apply(float (&x)[4]) const {
        const int lane = lane_of(), place = lane & ~1;
        const u32 even = (lane % 2 ? words[2] : words[0]) >> place, odd = (lane % 2 ? words[3] : words[1]) >> place;
        x[0] = even & 1 ? x[0] : 0.0f;
        x[1] = odd & 1 ? x[1] : 0.0f;
        x[2] = even & 2 ? x[2] : 0.0f;
        x[3] = odd & 2 ? x[3] : 0.0f;
    }
};

// The masks of all heads, none without dropout. A sequence's lie together: those of its first 16 queries with each 8 of its
// keys, then those of the next; there are as many keys as queries, to the end of the last 16.
struct Masks {
    // What a tile of queries and one of keys have in shared memory: of 4 times 16 queries, each of 8 times 8 keys.
    static constexpr int OF_TILE = TILE / 16 * (TILE / 8) * 4;
    u32* words;
    int of_head;

    // Of the piece of 16 queries by 8 keys.
    __device__ __forceinline__ u32* piece(const Work& work, int head, int query, int key) const {
        return words + size_t(head) * of_head + work.masks + 4 * (query / 16 * pieces(work) + key / 8);
    }

    // That 16 queries have.
    __device__ __forceinline__ static int pieces(const Work& work) {
        return (work.length + 15) / 16 * 2;
    }

    // The place of a piece within a tile.
    __device__ __forceinline__ static int place(int query, int key) {
        return (query / 16 * (TILE / 8) + key / 8) * 4;
    }

    // Begins to copy those of a tile, each warp the ones of 16 queries; of a sequence alone, those of its 16 keys.
    __device__ __forceinline__ void fetch(u32 (&to)[OF_TILE], const Work& work, int head, int query, int key) const {
        const int own = 16 * warp_of(), first = query + own - work.part, at = key / 8 + lane_of();
        if (words && first < work.length && lane_of() < TILE / 8 && at < pieces(work))
            cp_async_16(&to[place(own, work.part + 8 * lane_of())], piece(work, head, first, 8 * at), true);
    }
};

// Hides the scores of 16 queries and 16 keys that are not to be seen: keys behind the sequence's end, or behind the query.
__device__ __forceinline__ void hide(float (&scores)[2][4], int query, int key, int length, bool causal) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int row = query + lane_of() / 4 + i / 2 % 2 * 8, column = key + i / 4 * 8 + lane_of() % 4 * 2 + i % 2;
        if (column >= length || (causal && column > row)) scores[i / 4][i % 4] = -1e30f;
    }
}

// Stores 16 rows of a head from the registers of a warp, through the warp's own rows of a tile.
__device__ __forceinline__ void store_rows(
    const float (&values)[D / 8][4], Tile& through, const Work& work, bf16* out, int stride, int head) {
    const int lane = lane_of(), own = warp_of() * 16;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        *reinterpret_cast<u32*>(&through.rows[own + lane / 4][8 * n + lane % 4 * 2]) = pack_bf16(values[n][0], values[n][1]);
        *reinterpret_cast<u32*>(&through.rows[own + lane / 4 + 8][8 * n + lane % 4 * 2]) =
            pack_bf16(values[n][2], values[n][3]);
    }
    __syncwarp();
    constexpr int PARTS = D / 8, AT_ONCE = WARP / PARTS;
    const int row = lane / PARTS, part = lane % PARTS * 8;
    bf16* to = out + size_t(work.first_row + work.first + row) * stride + head * D + part;
#pragma unroll
    for (int n = 0; n < 16; n += AT_ONCE)
        if (work.first + row + n < work.length)
            *reinterpret_cast<uint4*>(to + size_t(n) * stride) =
                *reinterpret_cast<const uint4*>(&through.rows[own + row + n][part]);
}

// The sums of a tile's rows, which the warps have stored through it, by column: each warp's by a product with ones for its
// rows before the sequence's end, then the warps' in their order.
__device__ __forceinline__ void sum_rows(const Tile& through, const Work& work, float (&of_warps)[WARPS][D], float* out) {
    const int lane = lane_of(), own = warp_of() * 16, count = work.length - work.first;
    u32 ones[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = lane % 4 * 2 + i / 2 * 8;
        ones[i] = (row < count ? 0x3F80 : 0) | (row + 1 < count ? 0x3F800000 : 0);
    }
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        float sums[2][4] = {};
        u32 columns[4];
        through.right_by_columns(own, 16 * n, columns);
        multiply_two(sums[0], sums[1], ones, columns);
        if (lane < 4)
#pragma unroll
            for (int eight = 0; eight < 2; eight++)
                *reinterpret_cast<float2*>(&of_warps[warp_of()][16 * n + 8 * eight + 2 * lane]) =
                    make_float2(sums[eight][0], sums[eight][1]);
    }
    __syncthreads();
    if (const int column = threadIdx.x; column < D) {
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += of_warps[warp][column];
        out[column] = sum;
    }
}

// scale * fitness of a lane's genes of a head, of every eight the two from 2 (l % 4) on; or 1.
__device__ __forceinline__ void modulation_of(
    const float* fitness, int fitness_columns, float scale, u32 sequence, int kv_head, float (&factors)[D / 8][2]) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        factors[n][0] = factors[n][1] = 1;
        if (fitness) {
            const float2 pair = *reinterpret_cast<const float2*>(
                fitness + size_t(sequence) * fitness_columns + kv_head * D + 8 * n + lane_of() % 4 * 2);
            factors[n][0] = scale * pair.x, factors[n][1] = scale * pair.y;
        }
    }
}

// Begins to copy two tiles of the same rows.
__device__ __forceinline__ void fetch_both(
    Tile& one, Heads of_one, Tile& other, Heads of_other, const Work& work, int head, int first) {
    one.fetch(work, of_one, head, first);
    other.fetch(work, of_other, head, first);
    cp_async_commit();
}

// Waits for what was fetched, and until all warps have done with what may be fetched over.
__device__ __forceinline__ void arrive() {
    cp_async_wait<0>();
    __syncthreads();
}

// The warp's own rows of a head as the left operand of a product over the columns, zeros behind the sequence's end.
__device__ __forceinline__ void left_from_memory(u32 (&left)[D / 16][4], const Work& work, Heads heads, int head) {
    const int row = work.first + lane_of() / 4;
    const bf16* from = heads.data + size_t(work.first_row + row) * heads.stride + head * D + lane_of() % 4 * 2;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            left[k][i] = row + i % 2 * 8 < work.length
                ? *reinterpret_cast<const u32*>(from + size_t(i % 2 * 8) * heads.stride + 16 * k + i / 2 * 8)
                : 0;
}

// Multiplies a left operand's columns, a head's genes, by what modulates them.
__device__ __forceinline__ void modulate(u32 (&left)[D / 16][4], const float (&factors)[D / 8][2]) {
#pragma unroll
    for (int part = 0; part < D / 16; part++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float(&factor)[2] = factors[2 * part + i / 2];
            u32& pair = left[part][i];
            pair = pack_bf16(low_half(pair) * factor[0], high_half(pair) * factor[1]);
        }
}
