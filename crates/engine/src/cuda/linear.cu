// What surrounds the products of a linear map.
#include "common.cuh"

constexpr int THREADS = 256;

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
    }                                                                                                     \
    /* From x and the gradient in gelu(x): that in x, in its place, and gelu(x) again. */                 \
    extern "C" __global__ void __launch_bounds__(THREADS) gelu_gradient_##kind(                           \
        const T* x, T* gradient, T* out, size_t count) {                                                  \
        each_four(                                                                                        \
            count,                                                                                        \
            [=](size_t i) {                                                                               \
                float v[4], d[4];                                                                         \
                load4(x + i, v);                                                                          \
                load4(gradient + i, d);                                                                   \
                for (int j = 0; j < 4; j++) {                                                             \
                    const float distribution = normal_distribution(v[j]);                                 \
                    d[j] *= distribution + v[j] * __expf(-0.5f * v[j] * v[j]) * 0.3989423f;               \
                    v[j] *= distribution;                                                                 \
                }                                                                                         \
                store4(gradient + i, d);                                                                  \
                store4(out + i, v);                                                                       \
            },                                                                                            \
            [=](size_t i) {                                                                               \
                const float v = to_float(x[i]);                                                           \
                gradient[i] = from_float<T>(to_float(gradient[i]) * gelu_slope(v));                       \
                out[i] = from_float<T>(gelu(v));                                                          \
            });                                                                                           \
    }
GELU(float, f32)
GELU(bf16, bf16)

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
