// One vector per sequence.
#include "common.cuh"

constexpr int THREADS = 128;

// By the numbers that pool.rs gives them.
enum Pooling { MEAN, CLS, LARGEST };

#define POOL(T, kind)                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) pool_##kind(                                      \
        int pooling, const T* x, const u32* begins, float* out, u32* argmax, int columns) {                 \
        const int sequence = blockIdx.y, c = blockIdx.x * THREADS + threadIdx.x;                            \
        if (c >= columns) return;                                                                           \
        const u32 begin = begins[sequence], end = begins[sequence + 1];                                     \
        float value = to_float(x[size_t(begin) * columns + c]);                                             \
        u32 place = begin;                                                                                  \
        if (pooling != CLS)                                                                                 \
            for (u32 token = begin + 1; token < end; token++) {                                             \
                const float v = to_float(x[size_t(token) * columns + c]);                                   \
                if (pooling == MEAN)                                                                        \
                    value += v;                                                                             \
                else if (v > value)                                                                         \
                    value = v, place = token;                                                               \
            }                                                                                               \
        if (pooling == MEAN) value /= end - begin;                                                          \
        out[size_t(sequence) * columns + c] = value;                                                        \
        if (pooling == LARGEST) argmax[size_t(sequence) * columns + c] = place;                             \
    }                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) pool_gradient_##kind(                             \
        int pooling, const float* dout, const u32* begins, const u32* owners, const u32* argmax, T* dx,     \
        int columns) {                                                                                      \
        const u32 token = blockIdx.x, sequence = owners[token];                                             \
        const u32 begin = begins[sequence], end = begins[sequence + 1];                                     \
        const auto gradient = [&](size_t at) {                                                              \
            if (pooling == MEAN) return dout[at] / (end - begin);                                           \
            return (pooling == CLS ? token == begin : argmax[at] == token) ? dout[at] : 0.0f;               \
        };                                                                                                  \
        const size_t from = size_t(sequence) * columns, to = size_t(token) * columns;                       \
        if (columns % 4 == 0)                                                                               \
            for (int c = 4 * threadIdx.x; c < columns; c += 4 * THREADS) {                                  \
                float d[4];                                                                                 \
                for (int i = 0; i < 4; i++) d[i] = gradient(from + c + i);                                  \
                store4(dx + to + c, d);                                                                     \
            }                                                                                               \
        else                                                                                                \
            for (int c = threadIdx.x; c < columns; c += THREADS) dx[to + c] = from_float<T>(gradient(from + c)); \
    }
POOL(float, f32)
POOL(bf16, bf16)
