// Softmax over rows; a block takes a row.
#include "common.cuh"

constexpr int THREADS = 128;

#define SOFTMAX(T, kind)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) softmax_##kind(const T* x, T* out, int columns) {   \
        x += size_t(blockIdx.x) * columns, out += size_t(blockIdx.x) * columns;                               \
        float largest = __uint_as_float(0xFF800000);                                                          \
        for (int c = threadIdx.x; c < columns; c += THREADS) largest = fmaxf(largest, to_float(x[c]));        \
        largest = block_max(largest);                                                                         \
        float sum = 0;                                                                                        \
        for (int c = threadIdx.x; c < columns; c += THREADS) sum += expf(to_float(x[c]) - largest);           \
        sum = block_sum(sum);                                                                                 \
        for (int c = threadIdx.x; c < columns; c += THREADS)                                                  \
            out[c] = from_float<T>(expf(to_float(x[c]) - largest) / sum);                                     \
    }                                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) softmax_gradient_##kind(                            \
        const T* y, const T* dy, T* dx, int columns) {                                                        \
        const size_t begin = size_t(blockIdx.x) * columns;                                                    \
        y += begin, dy += begin, dx += begin;                                                                 \
        float along = 0;                                                                                      \
        for (int c = threadIdx.x; c < columns; c += THREADS) along += to_float(y[c]) * to_float(dy[c]);       \
        along = block_sum(along);                                                                             \
        for (int c = threadIdx.x; c < columns; c += THREADS)                                                  \
            dx[c] = from_float<T>(to_float(y[c]) * (to_float(dy[c]) - along));                                \
    }
SOFTMAX(float, f32)
SOFTMAX(bf16, bf16)
