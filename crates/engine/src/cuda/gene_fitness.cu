// Gene fitness (docs/genetic-attention.md, sections 1, 4 and 5). A block takes a sequence and a head.
#include "common.cuh"

constexpr int THREADS = 128;
// Groups of threads of a block, at most.
constexpr int ROOMS = 16;

// Values [N, heads d] whose rows begin `stride` apart, in sequences; ancestry [N, heads d] or none.
template <typename T, typename A>
struct Population {
    const T* values;
    int stride;
    const A* ancestry;
    const u32* begins;
    int head_dim, heads, sequence, head;

    __device__ __forceinline__ Population(
        const T* v, int v_stride, const A* a, const u32* b, int d, int all_heads)
        : values(v), stride(v_stride), ancestry(a), begins(b), head_dim(d), heads(all_heads) {
        const RowAndHead place(all_heads);
        sequence = place.row, head = place.head;
    }

    // Of gene g of the block's head.
    __device__ __forceinline__ float value(u32 token, int g) const {
        return to_float(values[size_t(token) * stride + head * head_dim + g]);
    }

    __device__ __forceinline__ float expression(u32 token, int g) const {
        return sigmoid(value(token, g));
    }

    __device__ __forceinline__ size_t place(u32 row, int g) const {
        return (size_t(row) * heads + head) * head_dim + g;
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

// The same by one warp or several for a sequence and a head of D (32 or 64) genes: a lane takes eight genes of every so
// many-th token, and the warps' sums are added in their order.
template <int D, typename T, typename A>
__device__ void fitness_of_warps(
    const T* values, int stride, const A* ancestry, const u32* begins, int sequences, int heads, int warps, float* fitness,
    float* inverse) {
    constexpr int LANES = D / 8, AT_ONCE = WARP / LANES;
    __shared__ __align__(16) float partial[THREADS / WARP][D];
    let_next_begin();
    const int place = (blockIdx.x * (THREADS / WARP) + warp_of()) / warps, warp = warp_of() % warps;
    const int sequence = place / heads, head = place % heads, eight = lane_of() % LANES * 8;
    const u32 begin = sequence < sequences ? begins[sequence] : 0, end = sequence < sequences ? begins[sequence + 1] : 0;
    values += head * D + eight, ancestry += ancestry ? head * D + eight : 0;
    float sums[8] = {};
#pragma unroll 4
    for (u32 token = begin + warp * AT_ONCE + lane_of() / LANES; token < end; token += AT_ONCE * warps) {
        float v[8], shares[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        load8(values + size_t(token) * stride, v);
        if (ancestry) load8(ancestry + size_t(token) * heads * D, shares);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] += shares[i] * sigmoid(v[i]);
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        for (int step = LANES; step < WARP; step *= 2) sums[i] += __shfl_xor_sync(ALL_LANES, sums[i], step);
    if (lane_of() < LANES)
#pragma unroll
        for (int i = 0; i < 8; i++) partial[warp_of()][eight + i] = sums[i];
    __syncthreads();
    if (warp > 0 || sequence >= sequences) return;
    // From here on a lane has a gene, or two.
    const float even = ancestry ? 1.0f : 1.0f / (end - begin);
    float u[D / WARP], total = 0;
#pragma unroll
    for (int n = 0; n < D / WARP; n++) {
        float sum = 0;
        for (int other = 0; other < warps; other++) sum += partial[warp_of() + other][n * WARP + lane_of()];
        u[n] = 1.0f / (sum * even + 0.5f);
        total += u[n];
    }
    total = warp_sum(total);
#pragma unroll
    for (int n = 0; n < D / WARP; n++) {
        const size_t at = size_t(place) * D + n * WARP + lane_of();
        inverse[at] = u[n];
        fitness[at] = u[n] / total;
    }
}

// The sum of shares and expression of gene g over every `groups`-th token from `group` on.
template <typename P>
__device__ __forceinline__ float sum_of_gene(P population, u32 begin, u32 end, int group, int groups, int g) {
    float sum = 0;
    for (u32 token = begin + group; token < end; token += groups)
        sum += population.share(token, g, 1) * population.expression(token, g);
    return sum;
}

template <typename T, typename A>
__device__ void fitness_of(Population<T, A> population, bool causal, float* fitness, float* inverse) {
    DYNAMIC_SHARED(float, room);
    const int d = population.head_dim;
    const u32 begin = population.begins[population.sequence], end = population.begins[population.sequence + 1];
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
    // Groups of threads take every so many-th token, a thread a gene; the groups' sums are added in their order.
    const int groups = min(ROOMS, max(1, THREADS / d)), group = threadIdx.x / d;
    float* partial = room + 2 * d;
    const float even = 1.0f / (end - begin);
    if (group < groups)
        for (int g = threadIdx.x - group * d; g < d; g += THREADS)
            partial[group * d + g] = sum_of_gene(population, begin, end, group, groups, g);
    __syncthreads();
    const auto mean = [&](int g) {
        float sum = 0;
        for (int i = 0; i < groups; i++) sum += partial[i * d + g];
        return population.ancestry ? sum : sum * even;
    };
    for (int g = threadIdx.x; g < d; g += THREADS) means[g] = mean(g);
    fitness_of_means(population, means, folded, population.sequence, fitness, inverse);
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
    const u32 begin = population.begins[population.sequence], end = population.begins[population.sequence + 1];
    for (int g = threadIdx.x; g < d; g += THREADS) dmeans[g] = 0;
    const auto write = [&](u32 token, int g, float share) {
        const float gradient = dmeans[g] * sigmoid_slope(population.value(token, g)) * share;
        T& out = dvalues[size_t(token) * dstride + population.head * d + g];
        out = from_float<T>(add ? to_float(out) + gradient : gradient);
    };
    if (causal) {
        for (u32 token = end; token-- > begin;) {
            means_gradient(population, token, fitness, inverse, dfitness, 1.0f / (token - begin + 1), dmeans);
            for (int g = threadIdx.x; g < d; g += THREADS) write(token, g, 1);
        }
        return;
    }
    means_gradient(population, population.sequence, fitness, inverse, dfitness, 1, dmeans);
    __syncthreads();
    const float even = 1.0f / (end - begin);
    const int groups = max(1, THREADS / d), group = threadIdx.x / d;
    if (group < groups)
        for (int g = threadIdx.x - group * d; g < d; g += THREADS)
            for (u32 token = begin + group; token < end; token += groups) write(token, g, population.share(token, g, even));
}

#define GENE_FITNESS(kind, T, A)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) gene_fitness_of_warps_##kind(                              \
        const T* values, int stride, const A* ancestry, const u32* begins, int sequences, int head_dim, int heads,   \
        int warps, float* fitness, float* inverse) {                                                                 \
        if (head_dim == 32)                                                                                          \
            fitness_of_warps<32>(values, stride, ancestry, begins, sequences, heads, warps, fitness, inverse);       \
        else                                                                                                         \
            fitness_of_warps<64>(values, stride, ancestry, begins, sequences, heads, warps, fitness, inverse);       \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) gene_fitness_##kind(                                       \
        const T* values, int stride, const A* ancestry, const u32* begins, int head_dim, int heads, int causal,      \
        float* fitness, float* inverse) {                                                                            \
        fitness_of(Population<T, A>(values, stride, ancestry, begins, head_dim, heads), causal, fitness, inverse);   \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) gene_fitness_gradient_##kind(                              \
        const T* values, int stride, const A* ancestry, const u32* begins, int head_dim, int heads, int causal,      \
        const float* fitness, const float* inverse, const float* dfitness, T* dvalues, int dstride, int add) {       \
        const Population<T, A> population(values, stride, ancestry, begins, head_dim, heads);                        \
        gradient_of(population, causal, fitness, inverse, dfitness, dvalues, dstride, add);                          \
    }
GENE_FITNESS(f32_f32, float, float)
GENE_FITNESS(bf16_f32, bf16, float)
GENE_FITNESS(bf16_bf16, bf16, bf16)
