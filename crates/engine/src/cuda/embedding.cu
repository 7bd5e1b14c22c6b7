// Sums of rows of up to three tables, and the gradient of a table.
#include "random.cuh"

constexpr int THREADS = 128;

#define EMBEDDING(T, kind)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) embedding_sum_##kind(                                   \
        const u32* ids0, const float* table0, const u32* ids1, const float* table1, const u32* ids2,              \
        const float* table2, T* out, int columns) {                                                               \
        const int token = blockIdx.x;                                                                             \
        for (int c = threadIdx.x; c < columns; c += THREADS) {                                                    \
            float sum = table0[size_t(ids0[token]) * columns + c];                                                \
            if (table1) sum += table1[size_t(ids1[token]) * columns + c];                                         \
            if (table2) sum += table2[size_t(ids2[token]) * columns + c];                                         \
            out[size_t(token) * columns + c] = from_float<T>(sum);                                                \
        }                                                                                                         \
    }                                                                                                             \
    /* Tokens are in the order of their ids, in chunks of one id each: chunk k is order[bounds[k]..bounds[k + 1]], \
       and its sum goes to row targets[k] of the table, or of `partial` where the top bit is set. */              \
    extern "C" __global__ void __launch_bounds__(THREADS) embedding_gradient_##kind(                              \
        const T* dy, const u32* order, const u32* bounds, const u32* targets, float* table, float* partial,       \
        int columns) {                                                                                            \
        const u32 begin = bounds[blockIdx.x], end = bounds[blockIdx.x + 1], target = targets[blockIdx.x];         \
        float* out = target >> 31 ? partial + size_t(target & 0x7FFFFFFF) * columns : table + size_t(target) * columns; \
        for (int c = threadIdx.x; c < columns; c += THREADS) {                                                    \
            float sum = 0;                                                                                        \
            for (u32 i = begin; i < end; i++) sum += to_float(dy[size_t(order[i]) * columns + c]);                \
            out[c] = sum;                                                                                         \
        }                                                                                                         \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) dropout_##kind(                                         \
        const T* x, const u32* owners, const u32* begins, const u32* ids, u32 seed_low, u32 seed_high, u32 step,  \
        u32 name, u32 threshold, float kept, T* out, int columns) {                                               \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                             \
        const u32 row = blockIdx.x, sequence = owners[row];                                                       \
        const Stream stream = stream_of(dropout.site, ids[sequence], 0, 0);                                       \
        const u32 first = (row - begins[sequence]) * ((columns + 3) / 4);                                         \
        for (int c = 4 * threadIdx.x; c < columns; c += 4 * THREADS) {                                            \
            float mask[4];                                                                                        \
            mask4(dropout, stream, first + c / 4, mask);                                                          \
            for (int i = 0; i < 4 && c + i < columns; i++) {                                                      \
                const size_t at = size_t(row) * columns + c + i;                                                  \
                out[at] = from_float<T>(to_float(x[at]) * mask[i]);                                               \
            }                                                                                                     \
        }                                                                                                         \
    }
EMBEDDING(float, f32)
EMBEDDING(bf16, bf16)

// Row rows[k] of the table is the sum of the partial sums bounds[k]..bounds[k + 1].
extern "C" __global__ void __launch_bounds__(THREADS) embedding_gradient_total(
    const float* partial, const u32* rows, const u32* bounds, float* table, int columns) {
    for (int c = threadIdx.x; c < columns; c += THREADS) {
        float sum = 0;
        for (u32 i = bounds[blockIdx.x]; i < bounds[blockIdx.x + 1]; i++) sum += partial[size_t(i) * columns + c];
        table[size_t(rows[blockIdx.x]) * columns + c] = sum;
    }
}
