// Sums of rows of up to three tables, and the gradient of a table.
#include "common.cuh"

constexpr int THREADS = 128;

// out[c] = the sum over i in begin..end of rows[at(i)][c], for all columns. A thread takes four columns at once where rows
// allow it, and has four rows under way.
template <typename T, typename F>
__device__ __forceinline__ void sum_rows(const T* rows, u32 begin, u32 end, F at, float* out, int columns) {
    if (columns % 4 == 0) {
        for (int c = 4 * threadIdx.x; c < columns; c += 4 * THREADS) {
            float sums[4][4] = {};
            u32 i = begin;
            for (; i + 3 < end; i += 4)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    float x[4];
                    load4(rows + size_t(at(i + j)) * columns + c, x);
                    for (int k = 0; k < 4; k++) sums[j][k] += x[k];
                }
            for (; i < end; i++) {
                float x[4];
                load4(rows + size_t(at(i)) * columns + c, x);
                for (int k = 0; k < 4; k++) sums[0][k] += x[k];
            }
            for (int k = 0; k < 4; k++) sums[0][k] = (sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]);
            store4(out + c, sums[0]);
        }
    } else {
        for (int c = threadIdx.x; c < columns; c += THREADS) {
            float sum = 0;
            for (u32 i = begin; i < end; i++) sum += to_float(rows[size_t(at(i)) * columns + c]);
            out[c] = sum;
        }
    }
}

#define EMBEDDING(T, kind)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) embedding_sum_##kind(                                   \
        const u32* ids0, const float* table0, const u32* ids1, const float* table1, const u32* ids2,              \
        const float* table2, T* out, int columns) {                                                               \
        const int token = blockIdx.x;                                                                             \
        const float* rows[3] = {                                                                                  \
            table0 + size_t(ids0[token]) * columns, table1 ? table1 + size_t(ids1[token]) * columns : nullptr,    \
            table2 ? table2 + size_t(ids2[token]) * columns : nullptr};                                           \
        out += size_t(token) * columns;                                                                           \
        if (columns % 4 == 0)                                                                                     \
            for (int c = 4 * threadIdx.x; c < columns; c += 4 * THREADS) {                                        \
                float sum[4], x[4];                                                                               \
                load4(rows[0] + c, sum);                                                                          \
                for (int table = 1; table < 3; table++)                                                           \
                    if (rows[table]) {                                                                            \
                        load4(rows[table] + c, x);                                                                \
                        for (int i = 0; i < 4; i++) sum[i] += x[i];                                               \
                    }                                                                                             \
                store4(out + c, sum);                                                                             \
            }                                                                                                     \
        else                                                                                                      \
            for (int c = threadIdx.x; c < columns; c += THREADS) {                                                \
                float sum = rows[0][c];                                                                           \
                for (int table = 1; table < 3; table++)                                                           \
                    if (rows[table]) sum += rows[table][c];                                                       \
                out[c] = from_float<T>(sum);                                                                      \
            }                                                                                                     \
    }                                                                                                             \
    /* Tokens are in the order of their ids, in chunks of one id each: chunk k is order[bounds[k]..bounds[k + 1]], \
       and its sum goes to row targets[k] of the table, or of `partial` where the top bit is set. */              \
    extern "C" __global__ void __launch_bounds__(THREADS) embedding_gradient_##kind(                              \
        const T* dy, const u32* order, const u32* bounds, const u32* targets, float* table, float* partial,       \
        int columns) {                                                                                            \
        const u32 begin = bounds[blockIdx.x], end = bounds[blockIdx.x + 1], target = targets[blockIdx.x];         \
        float* out = target >> 31 ? partial + size_t(target & 0x7FFFFFFF) * columns : table + size_t(target) * columns; \
        sum_rows(dy, begin, end, [=](u32 i) { return order[i]; }, out, columns);                                  \
    }
EMBEDDING(float, f32)
EMBEDDING(bf16, bf16)

// Row rows[k] of the table is the sum of the partial sums bounds[k]..bounds[k + 1].
extern "C" __global__ void __launch_bounds__(THREADS) embedding_gradient_total(
    const float* partial, const u32* rows, const u32* bounds, float* table, int columns) {
    const u32 begin = bounds[blockIdx.x], end = bounds[blockIdx.x + 1];
    sum_rows(partial, begin, end, [](u32 i) { return i; }, table + size_t(rows[blockIdx.x]) * columns, columns);
}
