// Gene fitness (docs/genetic-attention.md, sections 1, 4 and 5). A block takes a sequence and a head.
#include "common.cuh"

constexpr int THREADS = 256;

// Values [N, heads d] whose rows begin `stride` apart, in sequences; ancestry [N, heads d] or none.
template <typename T, typename A>
struct Population {
    const T* values;
    int stride;
    const A* ancestry;
    const u32* begins;
    int head_dim;

    // Of gene g of the block's head.
    __device__ __forceinline__ float expression(u32 token, int g) const {
        return sigmoid(to_float(values[size_t(token) * stride + blockIdx.y * head_dim + g]));
    }

    __device__ __forceinline__ size_t place(u32 row, int g) const {
        return (size_t(row) * gridDim.y + blockIdx.y) * head_dim + g;
    }

    __device__ __forceinline__ float share(u32 token, int g, float even) const {
        return ancestry ? to_float(ancestry[place(token, g)]) : even;
    }
};

// u = 1 / (M + 1/2) and fitness u / sum u from means M in `u`: written to row `row`. The sum folds halves onto each
// other, so that 2^k equal numbers sum exactly, and equal means give 1 / d exactly. `folded` is of d numbers.
template <typename P>
__device__ void fitness_of_means(P population, float* u, float* folded, u32 row, float* fitness, float* inverse) {
    const int d = population.head_dim;
    for (int g = threadIdx.x; g < d; g += blockDim.x) folded[g] = u[g] = 1.0f / (u[g] + 0.5f);
    for (int len = d; len > 1; len = (len + 1) / 2) {
        __syncthreads();
        for (int g = threadIdx.x; g + (len + 1) / 2 < len; g += blockDim.x) folded[g] += folded[g + (len + 1) / 2];
    }
    __syncthreads();
    for (int g = threadIdx.x; g < d; g += blockDim.x) {
        fitness[population.place(row, g)] = u[g] / folded[0];
        inverse[population.place(row, g)] = u[g];
    }
    __syncthreads();
}

// Sums of shares and expression over every `groups`-th token from `group` on, for one gene. Four tokens are under way at
// once.
template <typename P>
__device__ __forceinline__ float sum_of_gene(P population, u32 begin, u32 end, int group, int groups, int g) {
    float sums[4] = {};
    u32 token = begin + group;
    for (; token + 3 * groups < end; token += 4 * groups)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[i] += population.share(token + i * groups, g, 1) * population.expression(token + i * groups, g);
    for (; token < end; token += groups) sums[0] += population.share(token, g, 1) * population.expression(token, g);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename T, typename A>
__device__ void fitness_of(Population<T, A> population, bool causal, float* fitness, float* inverse) {
    DYNAMIC_SHARED(float, room);
    const int d = population.head_dim;
    const u32 begin = population.begins[blockIdx.x], end = population.begins[blockIdx.x + 1];
    float *means = room, *folded = room + d;
    if (causal) {
        float* sums = room + 2 * d;
        for (int g = threadIdx.x; g < d; g += THREADS) sums[g] = 0;
        for (u32 token = begin; token < end; token++) {
            for (int g = threadIdx.x; g < d; g += THREADS) {
                sums[g] += population.expression(token, g);
                means[g] = sums[g] * (1.0f / (token - begin + 1));
            }
            fitness_of_means(population, means, folded, token, fitness, inverse);
        }
        return;
    }
    // Groups of d threads take every so many-th token; the groups' sums are added in their order.
    const int groups = max(1, THREADS / d), group = threadIdx.x / d;
    float* partial = room + 2 * d;
    const float even = 1.0f / (end - begin);
    if (group < groups)
        for (int g = threadIdx.x - group * d; g < d; g += THREADS)
            partial[group * d + g] = sum_of_gene(population, begin, end, group, groups, g);
    __syncthreads();
    for (int g = threadIdx.x; g < d; g += THREADS) {
        float sum = 0;
        for (int i = 0; i < groups; i++) sum += partial[i * d + g];
        means[g] = population.ancestry ? sum : sum * even;
    }
    fitness_of_means(population, means, folded, blockIdx.x, fitness, inverse);
}

// dM = u fitness (sum fitness dfitness - dfitness) of row `row`, added times `factor` to `dmeans`.
template <typename P>
__device__ void means_gradient(
    P population, u32 row, const float* fitness, const float* inverse, const float* dfitness, float factor, float* dmeans) {
    const int d = population.head_dim;
    float along = 0;
    for (int g = threadIdx.x; g < d; g += THREADS)
        along += fitness[population.place(row, g)] * dfitness[population.place(row, g)];
    along = block_sum(along);
    for (int g = threadIdx.x; g < d; g += THREADS) {
        const size_t at = population.place(row, g);
        dmeans[g] += factor * inverse[at] * fitness[at] * (along - dfitness[at]);
    }
}

template <typename T, typename A>
__device__ void gradient_of(
    Population<T, A> population, bool causal, const float* fitness, const float* inverse, const float* dfitness,
    T* dvalues, int dstride, bool add) {
    DYNAMIC_SHARED(float, dmeans);
    const int d = population.head_dim;
    const u32 begin = population.begins[blockIdx.x], end = population.begins[blockIdx.x + 1];
    for (int g = threadIdx.x; g < d; g += THREADS) dmeans[g] = 0;
    const auto write = [&](u32 token, int g, float share) {
        const float p = population.expression(token, g), gradient = dmeans[g] * p * (1 - p) * share;
        T& out = dvalues[size_t(token) * dstride + blockIdx.y * d + g];
        out = from_float<T>(add ? to_float(out) + gradient : gradient);
    };
    if (causal) {
        for (u32 token = end; token-- > begin;) {
            means_gradient(population, token, fitness, inverse, dfitness, 1.0f / (token - begin + 1), dmeans);
            for (int g = threadIdx.x; g < d; g += THREADS) write(token, g, 1);
        }
        return;
    }
    means_gradient(population, blockIdx.x, fitness, inverse, dfitness, 1, dmeans);
    __syncthreads();
    const float even = 1.0f / (end - begin);
    const int groups = max(1, THREADS / d), group = threadIdx.x / d;
    if (group < groups)
        for (int g = threadIdx.x - group * d; g < d; g += THREADS)
            for (u32 token = begin + group; token < end; token += groups) write(token, g, population.share(token, g, even));
}

#define GENE_FITNESS(kind, T, A)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) gene_fitness_##kind(                                       \
        const T* values, int stride, const A* ancestry, const u32* begins, int head_dim, int causal, float* fitness, \
        float* inverse) {                                                                                            \
        fitness_of(Population<T, A>{values, stride, ancestry, begins, head_dim}, causal, fitness, inverse);          \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) gene_fitness_gradient_##kind(                              \
        const T* values, int stride, const A* ancestry, const u32* begins, int head_dim, int causal,                 \
        const float* fitness, const float* inverse, const float* dfitness, T* dvalues, int dstride, int add) {       \
        const Population<T, A> population = {values, stride, ancestry, begins, head_dim};                            \
        gradient_of(population, causal, fitness, inverse, dfitness, dvalues, dstride, add);                          \
    }
GENE_FITNESS(f32_f32, float, float)
GENE_FITNESS(bf16_f32, bf16, float)
GENE_FITNESS(bf16_bf16, bf16, bf16)
