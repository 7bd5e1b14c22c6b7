// The modulation of attention's output by gene fitness (docs/genetic-attention.md, section 2).
#include "common.cuh"

constexpr int THREADS = 256;

// Fitness [S, v d], or [N, v d] where each token has its own: `owners` is then absent. Query heads share the fitness of
// their kv head.
struct Fitness {
    const float* values;
    const u32* owners;
    int head_dim, columns, group;

    __device__ __forceinline__ size_t place(u32 token, int column) const {
        const int kv = column / head_dim / group * head_dim + column % head_dim;
        return size_t(owners ? owners[token] : token) * columns + kv;
    }
};

#define MODULATE(T, kind)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) modulate_##kind(                                         \
        const T* x, const float* fitness, const u32* owners, int head_dim, int fitness_columns, float scale,       \
        T* out, size_t count, int columns) {                                                                       \
        const Fitness gamma = {fitness, owners, head_dim, fitness_columns, columns / fitness_columns};             \
        for (size_t i = size_t(blockIdx.x) * THREADS + threadIdx.x; i < count; i += size_t(gridDim.x) * THREADS)   \
            out[i] = from_float<T>(                                                                                \
                to_float(x[i]) * (scale * gamma.values[gamma.place(i / columns, i % columns)]));                   \
    }                                                                                                              \
    /* From x, or from the modulated output where `of_output`. A block takes a sequence and a kv head; each gene   \
       is one thread's, so that its sum has an order. */                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) modulate_gradient_##kind(                                \
        const T* x, int of_output, const float* fitness, const u32* begins, int per_token, int head_dim,           \
        int fitness_columns, float scale, const T* dout, T* dx, float* dfitness, int columns) {                    \
        const int group = columns / fitness_columns;                                                               \
        const u32 begin = begins[blockIdx.x], end = begins[blockIdx.x + 1];                                        \
        for (int g = threadIdx.x; g < head_dim; g += THREADS) {                                                    \
            const int kv = blockIdx.y * head_dim + g;                                                              \
            float sum = 0;                                                                                         \
            for (u32 token = begin; token < end; token++) {                                                        \
                const size_t row = size_t(per_token ? token : blockIdx.x) * fitness_columns + kv;                  \
                const float gamma = fitness[row];                                                                  \
                for (int head = blockIdx.y * group; head < int(blockIdx.y + 1) * group; head++) {                  \
                    const size_t at = size_t(token) * columns + head * head_dim + g;                               \
                    const float d = to_float(dout[at]);                                                            \
                    sum += d * (of_output ? to_float(x[at]) / gamma : scale * to_float(x[at]));                    \
                    dx[at] = from_float<T>(scale * gamma * d);                                                     \
                }                                                                                                  \
                if (per_token) dfitness[row] = sum, sum = 0;                                                       \
            }                                                                                                      \
            if (!per_token) dfitness[size_t(blockIdx.x) * fitness_columns + kv] = sum;                             \
        }                                                                                                          \
    }
MODULATE(float, f32)
MODULATE(bf16, bf16)
