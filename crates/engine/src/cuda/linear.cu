// What surrounds the products of a linear map.
#include "common.cuh"

constexpr int THREADS = 256;
// Of the gradient through GELU, which takes the columns of rows.
constexpr int GRADIENT_THREADS = 128;

// Four elements a thread where they are `wide`, on a boundary of four; the rest one by one.
template <typename F4, typename F1>
__device__ __forceinline__ void each_four(size_t count, F4 four, F1 one, bool wide = true) {
    const size_t fours = wide ? count / 4 : 0, begin = size_t(blockIdx.x) * THREADS + threadIdx.x;
    for (size_t i = begin; i < fours; i += size_t(gridDim.x) * THREADS) four(4 * i);
    for (size_t i = 4 * fours + begin; i < count; i += size_t(gridDim.x) * THREADS) one(i);
}

#define GELU(T, kind)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) gelu_##kind(const T* x, T* out, size_t count) { \
        each_four(                                                                                        \
            count,                                                                                        \
            [=](size_t i) {                                                                               \
                float v[4];                                                                               \
                load4(x + i, v);                                                                          \
                for (int j = 0; j < 4; j++) v[j] = gelu(v[j]);                                            \
                store4(out + i, v);                                                                       \
            },                                                                                            \
            [=](size_t i) { out[i] = from_float<T>(gelu(to_float(x[i]))); });                             \
    }
GELU(float, f32)
GELU(bf16, bf16)

// From x and the gradient in gelu(x): that in x, in its place, and gelu(x) again; and the sums of the former over each
// block's rows. A thread takes four columns of some rows.
template <typename T>
__device__ void gelu_gradient(const T* x, T* gradient, T* out, float* partial, int rows, int columns, int rows_of_block) {
    const int column = (blockIdx.x * GRADIENT_THREADS + threadIdx.x) * 4;
    const int begin = blockIdx.y * rows_of_block, end = min(begin + rows_of_block, rows);
    if (column >= columns) return;
    const bool wide = columns % 4 == 0;
    const int count = min(4, columns - column);
    float sums[4] = {};
#pragma unroll 2
    for (int row = begin; row < end; row++) {
        const size_t at = size_t(row) * columns + column;
        float v[4], d[4];
        if (wide) {
            load4(x + at, v), load4(gradient + at, d);
        } else {
            for (int j = 0; j < 4; j++)
                v[j] = j < count ? to_float(x[at + j]) : 0.0f, d[j] = j < count ? to_float(gradient[at + j]) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float distribution = normal_distribution(v[j]);
            d[j] *= distribution + v[j] * __expf(-0.5f * v[j] * v[j]) * 0.3989423f;
            v[j] *= distribution;
            sums[j] += d[j];
        }
        if (wide) {
            store4(gradient + at, d), store4(out + at, v);
        } else {
            for (int j = 0; j < count; j++) gradient[at + j] = from_float<T>(d[j]), out[at + j] = from_float<T>(v[j]);
        }
    }
    for (int j = 0; j < count; j++) partial[size_t(blockIdx.y) * columns + column + j] = sums[j];
}

#define GELU_GRADIENT(T, kind)                                                                                     \
    extern "C" __global__ void __launch_bounds__(GRADIENT_THREADS) gelu_gradient_##kind(                           \
        const T* x, T* gradient, T* out, float* partial, int rows, int columns, int rows_of_block) {               \
        gelu_gradient(x, gradient, out, partial, rows, columns, rows_of_block);                                    \
    }
GELU_GRADIENT(float, f32)
GELU_GRADIENT(bf16, bf16)

extern "C" __global__ void __launch_bounds__(THREADS) copy_weights(const float* from, float* to, size_t count) {
    for (size_t i = size_t(blockIdx.x) * THREADS + threadIdx.x; i < count; i += size_t(gridDim.x) * THREADS)
        to[i] = from[i];
}

extern "C" __global__ void __launch_bounds__(THREADS) round_weights(const float* from, bf16* to, size_t count) {
    each_four(
        count,
        [=](size_t i) {
            float v[4];
            load4(from + i, v);
            store4(to + i, v);
        },
        [=](size_t i) { to[i] = to_bf16(from[i]); }, reinterpret_cast<size_t>(to) % 8 == 0);
}
