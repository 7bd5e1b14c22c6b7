// The sampled population (docs/genetic-attention.md, section 3a) of the default size, 32 organisms of HEAD_DIM (32 or 64)
// genes. A gene is a word: the token that it descends from, and what it carries in 65535ths. A thread has the same four
// genes of some organisms in its registers; shared memory has all, for children that ask for their parents'. The wheel is
// one warp's, an organism a lane.
#include "evolve.cuh"

constexpr int D = HEAD_DIM;
constexpr int THREADS = 2 * D;
constexpr int ORGANISMS = 32;
constexpr int WARPS = THREADS / WARP;
// Threads that have an organism's genes, organisms that all threads have at once, and those of a thread.
constexpr int FOURS = D / 4;
constexpr int AT_ONCE = THREADS / FOURS;
constexpr int OF_THREAD = ORGANISMS / AT_ONCE;

// A whole number in the last bits of a float, where it comes to by an addition: conversions are slow.
constexpr float WHOLE = 8388608.0f;
constexpr float PARTS = 65535.0f;

__device__ __forceinline__ u32 gene_of(u32 token, float carried) {
    return __byte_perm(__float_as_uint(carried * PARTS + WHOLE), token, 0x5410);
}

__device__ __forceinline__ float parts_carried_by(u32 gene) {
    return __uint_as_float((gene & 0xFFFF) | __float_as_uint(WHOLE)) - WHOLE;
}

// Each lane's organism's part of the wheel, at most 1, added to those of the lanes before: in whole 2^-26ths, which is
// exact in any order.
__device__ __forceinline__ float sum_up_to_lane(float x) {
    u32 sum = u32(x * 67108864.0f);
    for (int step = 1; step < WARP; step *= 2) {
        const u32 before = __shfl_up_sync(ALL_LANES, sum, step);
        if (lane_of() >= step) sum += before;
    }
    return float(sum);
}

// How many of the lanes' sums are not above the mark, at most 31.
__device__ __forceinline__ int stop_of_wheel(float cumulative, float mark) {
    int place = 0;
    for (int step = WARP / 2; step > 0; step /= 2)
        if (__shfl_sync(ALL_LANES, cumulative, place + step - 1) <= mark) place += step;
    return place;
}

// A thread's genes: four of each of its organisms.
struct Genes {
    u32 of[OF_THREAD][4];
};

// The sum over the threads of a warp that have the same organism, or, in steps from FOURS on, the same genes.
template <typename N>
__device__ __forceinline__ N fold(N x, int from, int to) {
    for (int step = from; step < to; step *= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// Of four numbers each, over FOURS neighbouring lanes: the sum of the one that the lane's number names, modulo 4. A lane
// gives away what it does not go on with.
__device__ __forceinline__ float fold_four(const float (&x)[4]) {
    const bool odd = lane_of() & 1, upper = lane_of() & 2;
    const auto halved = [](float low, float high, bool keeps_high, int step) {
        return (keeps_high ? high : low) + __shfl_xor_sync(ALL_LANES, keeps_high ? low : high, step);
    };
    const float sum = halved(halved(x[0], x[1], odd, 1), halved(x[2], x[3], odd, 1), upper, 2);
    return fold(sum, 4, FOURS);
}

// What the warps of a population share beside its two generations.
struct __align__(16) Selection {
    // Of what each gene carries, over a warp's organisms.
    u32 sums[WARPS][D];
    // Of each organism: its fitness, and its parents.
    float phi[ORGANISMS];
    u32 parents[ORGANISMS];

    __device__ __forceinline__ void add_up_genes(const Genes& genes) {
        u32 sum[4] = {};
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int k = 0; k < OF_THREAD; k++) sum[j] += genes.of[k][j] & 0xFFFF;
            sum[j] = fold(sum[j], FOURS, WARP);
        }
        if (lane_of() < FOURS)
            *reinterpret_cast<uint4*>(&sums[warp_of()][4 * lane_of()]) = make_uint4(sum[0], sum[1], sum[2], sum[3]);
    }

    // u = 1 / (M + 1/2) of the means M of the thread's genes, and the sum of all of the organism's: of equal numbers
    // exactly, since they are folded onto each other.
    __device__ __forceinline__ float inverse_means(float (&inverse)[4]) const {
        const int first = threadIdx.x % FOURS * 4;
        u32 sum[4] = {};
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) {
            const uint4 four = *reinterpret_cast<const uint4*>(&sums[warp][first]);
            sum[0] += four.x, sum[1] += four.y, sum[2] += four.z, sum[3] += four.w;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float mean = float(sum[j]) * (1.0f / (PARTS * ORGANISMS));
            inverse[j] = reciprocal_fast(mean + 0.5f);
        }
        return fold((inverse[0] + inverse[1]) + (inverse[2] + inverse[3]), 1, FOURS);
    }

    // What each organism's genes add up to, weighed by the fitness of their means.
    __device__ __forceinline__ void weigh_organisms(const Genes& genes) {
        float inverse[4];
        // What makes the fitness sum to 1.
        const float total = reciprocal_fast(inverse_means(inverse));
        float along[OF_THREAD] = {};
#pragma unroll
        for (int k = 0; k < OF_THREAD; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) along[k] += parts_carried_by(genes.of[k][j]) * inverse[j];
        const float of_organism = fold_four(along);
        const int place = threadIdx.x % FOURS;
        if (place < OF_THREAD) phi[place * AT_ONCE + threadIdx.x / FOURS] = of_organism * total * (1.0f / PARTS);
    }

    // One warp's: an organism a lane. A child that does not mix is a clone of its first parent.
    __device__ __forceinline__ void turn_wheel(Rates rates, Stream draws) {
        const float along = phi[lane_of()], largest = warp_max(along);
        const float cumulative = sum_up_to_lane(pressed(rates.pressure, along, largest));
        const float turn = __shfl_sync(ALL_LANES, cumulative, WARP - 1);
        const uint4 draw = block_of(draws, lane_of());
        const int a = stop_of_wheel(cumulative, unit(draw.x) * turn);
        const int b = stop_of_wheel(cumulative, unit(draw.y) * turn);
        parents[lane_of()] = a | (unit(draw.z) < rates.crossover ? b : a) << 8;
    }
};

// The values of a sequence and head.
template <typename T>
struct Values {
    const T* rows;
    int stride, tokens;

    __device__ __forceinline__ u32 gene(int token, int g) const {
        return gene_of(token, sigmoid(to_float(rows[size_t(token) * stride + g])));
    }
};

// Mutants: of draws below the threshold, the same gene of a token that the draw names.
struct Mutation {
    u32 threshold;
    float tokens_per_draw;

    __device__ __forceinline__ Mutation(float rate, int tokens)
        : threshold(u32(double(rate) * 2147483648.0)), tokens_per_draw(float(tokens) / max(threshold, 1u)) {}

    __device__ __forceinline__ u32 token(u32 draw, int tokens) const {
        return __float_as_uint(__fadd_rz(fminf(float(int(draw)) * tokens_per_draw, float(tokens - 1)), WHOLE)) & 0xFFFF;
    }
};

// The thread's genes of the next generation, which it also writes there. A word of a draw decides on a gene: its highest
// bit on the parent, the others on a mutation. Mutants' draws wait in the places of their genes, since few genes mutate.
template <typename T>
__device__ __forceinline__ void breed(
    Genes& genes, const u32* parents, const u32* now, u32* next, const Values<T>& values, Mutation mutation, Stream draws) {
    const int first = threadIdx.x % FOURS * 4;
    next += threadIdx.x / FOURS * D + first;
    u32 mutants = 0;
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++) {
        const u32 pair = parents[k * AT_ONCE + threadIdx.x / FOURS];
        const uint4 draw = block_of(draws, k * THREADS + threadIdx.x);
        const uint4 a = *reinterpret_cast<const uint4*>(now + (pair & 0xFF) * D + first);
        const uint4 b = *reinterpret_cast<const uint4*>(now + (pair >> 8) * D + first);
        const u32 bits[4] = {draw.x, draw.y, draw.z, draw.w};
        const u32 of_a[4] = {a.x, a.y, a.z, a.w}, of_b[4] = {b.x, b.y, b.z, b.w};
        u32 child[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u32 mutant = bits[j] & 0x7FFFFFFF;
            child[j] = bits[j] >> 31 ? of_b[j] : of_a[j];
            if (mutant < mutation.threshold) child[j] = mutant, mutants |= 1u << (4 * k + j);
        }
        *reinterpret_cast<uint4*>(next + k * AT_ONCE * D) = make_uint4(child[0], child[1], child[2], child[3]);
    }
    for (; mutants; mutants &= mutants - 1) {
        const int place = __ffs(mutants) - 1, j = place % 4;
        u32& gene = next[place / 4 * AT_ONCE * D + j];
        gene = values.gene(mutation.token(gene, values.tokens), first + j);
    }
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++) {
        const uint4 four = *reinterpret_cast<const uint4*>(next + k * AT_ONCE * D);
        genes.of[k][0] = four.x, genes.of[k][1] = four.y, genes.of[k][2] = four.z, genes.of[k][3] = four.w;
    }
}

// The shares of the tokens of a sequence among the ancestors of each gene. They are counted in bytes, in shared memory.
template <typename A>
__device__ __forceinline__ void write_shares(const Genes& genes, u32* counts, int tokens, A* ancestry, int stride) {
    for (int i = threadIdx.x; i < tokens * FOURS; i += THREADS) counts[i] = 0;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            atomicAdd(&counts[(genes.of[k][j] >> 16) * FOURS + threadIdx.x % FOURS], 1u << 8 * j);
    __syncthreads();
    for (int i = threadIdx.x; i < tokens * FOURS; i += THREADS) {
        const u32 four = counts[i];
        float shares[4];
#pragma unroll
        for (int j = 0; j < 4; j++) shares[j] = float(four >> 8 * j & 0xFF) * (1.0f / ORGANISMS);
        store4(ancestry + size_t(i / FOURS) * stride + i % FOURS * 4, shares);
    }
}

// A block takes a sequence and a head.
template <typename T, typename A>
__device__ void sampled_of_few(
    const T* values_of_all, int stride, const u32* begins, const u32* ids, int heads, Site site, int generations,
    Rates rates, A* ancestry, float* fitness, float* inverse) {
    DYNAMIC_SHARED(u32, now);
    __shared__ Selection selection;
    let_next_begin();
    const auto [sequence, head] = RowAndHead(heads);
    const u32 begin = begins[sequence], id = ids[sequence];
    const int first = threadIdx.x % FOURS * 4;
    const Values<T> values = {values_of_all + size_t(begin) * stride + head * D, stride, int(begins[sequence + 1] - begin)};
    u32* const all = now;
    u32* next = now + ORGANISMS * D;
    const double offset = unit(block_of(stream_for(site, FOUNDERS, id, head, 0), 0).x);
    Genes genes;
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++) {
        const int organism = k * AT_ONCE + threadIdx.x / FOURS;
        const int token = min(int((organism + offset) * values.tokens / ORGANISMS), values.tokens - 1);
        float v[4];
        load4(values.rows + size_t(token) * stride + first, v);
#pragma unroll
        for (int j = 0; j < 4; j++) genes.of[k][j] = gene_of(token, sigmoid(v[j]));
        *reinterpret_cast<uint4*>(now + organism * D + first) =
            make_uint4(genes.of[k][0], genes.of[k][1], genes.of[k][2], genes.of[k][3]);
    }
    const Mutation mutation(rates.mutation, values.tokens);
    for (int generation = 0; generation < generations; generation++) {
        selection.add_up_genes(genes);
        __syncthreads();
        selection.weigh_organisms(genes);
        __syncthreads();
        if (warp_of() == 0) selection.turn_wheel(rates, stream_for(site, PARENTS, id, head, generation));
        __syncthreads();
        breed(genes, selection.parents, now, next, values, mutation, stream_for(site, GENES, id, head, generation));
        u32* before = now;
        now = next, next = before;
    }
    if (fitness) selection.add_up_genes(genes);
    __syncthreads();
    if (fitness && threadIdx.x < WARP) {
        float u[4];
        const float total = selection.inverse_means(u);
        const size_t at = (size_t(sequence) * heads + head) * D + first;
        if (threadIdx.x < FOURS) {
            store4(inverse + at, u);
#pragma unroll
            for (int j = 0; j < 4; j++) u[j] /= total;
            store4(fitness + at, u);
        }
    }
    write_shares(genes, all, values.tokens, ancestry + size_t(begin) * heads * D + head * D, heads * D);
}

#define SAMPLED_OF_FEW(kind, T, A)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 1536 / THREADS) evolve_few_##kind(                           \
        const T* values, int stride, const u32* begins, const u32* ids, int heads, u32 seed_low, u32 seed_high,        \
        u32 step, u32 name, int generations, float mutation, float crossover, float pressure, A* ancestry,             \
        float* fitness, float* inverse) {                                                                              \
        sampled_of_few<T, A>(                                                                                          \
            values, stride, begins, ids, heads, {seed_low, seed_high, step, name}, generations,                        \
            {mutation, crossover, pressure}, ancestry, fitness, inverse);                                              \
    }
SAMPLED_OF_FEW(f32_f32, float, float)
SAMPLED_OF_FEW(bf16_f32, bf16, float)
SAMPLED_OF_FEW(bf16_bf16, bf16, bf16)
