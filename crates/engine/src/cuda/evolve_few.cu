// The sampled population (docs/genetic-attention.md, section 3a) of the default size, 32 organisms of HEAD_DIM (32 or 64)
// genes. A thread has the same four genes of some organisms in its registers; shared memory has all, for children that
// ask for their parents'. The wheel is one warp's, an organism a lane.
#include "evolve.cuh"

constexpr int D = HEAD_DIM;
constexpr int THREADS = D;
constexpr int ORGANISMS = 32;
constexpr int WARPS = THREADS / WARP;
// Populations on a multiprocessor: as many as leave 72 registers to a thread, which hold its genes.
constexpr int AT_ONCE = 28 / WARPS;
// Threads that have an organism's genes, and the organisms of each of them, which follow one another.
constexpr int FOURS = D / 4;
constexpr int OF_THREAD = ORGANISMS * FOURS / THREADS;

// A gene is a float from 1 to 2, whose fraction has what the gene carries in its first 14 bits and the token that it
// descends from in the last 9. So genes are added up as they are: the token comes to no more than the rounding.
constexpr u32 TOKEN = 0x1FF;
constexpr float MOST_CARRIED = 1.0f - 1.0f / 16384;

__device__ __forceinline__ u32 gene_of(u32 token, float carried) {
    const float rounded = carried * MOST_CARRIED + (1.0f + 0.5f / 16384);
    return (__float_as_uint(rounded) & ~TOKEN) | token;
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
__device__ __forceinline__ float fold(float x, int from, int to) {
    for (int step = from; step < to; step *= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// Of a number for each of a thread's organisms, over the threads that have them: the sum of the one that the lane's number
// names, modulo OF_THREAD. A lane gives away what it does not go on with.
__device__ __forceinline__ float fold_each(float (&x)[OF_THREAD]) {
#pragma unroll
    for (int step = 1; step < OF_THREAD; step *= 2) {
        const bool keeps_odd = lane_of() & step;
#pragma unroll
        for (int i = 0; i < OF_THREAD / 2 / step; i++) {
            const float even = x[2 * i], odd = x[2 * i + 1];
            x[i] = (keeps_odd ? odd : even) + __shfl_xor_sync(ALL_LANES, keeps_odd ? even : odd, step);
        }
    }
    return fold(x[0], OF_THREAD, FOURS);
}

// What the threads of a population share beside its genes.
struct __align__(16) Selection {
    // Of each gene, over a warp's organisms.
    float sums[WARPS][D];
    // Of each organism: its fitness, up to a factor, and where its parents' genes are.
    float phi[ORGANISMS];
    uint2 parents[ORGANISMS];

    // Of the bits of the genes that the mask has.
    __device__ __forceinline__ void add_up_genes(const Genes& genes, u32 mask) {
        float sum[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum[j] = __uint_as_float(genes.of[0][j] & mask);
#pragma unroll
            for (int k = 1; k < OF_THREAD; k++) sum[j] += __uint_as_float(genes.of[k][j] & mask);
            sum[j] = fold(sum[j], FOURS, WARP);
        }
        if (lane_of() < FOURS) store4(&sums[warp_of()][4 * lane_of()], sum);
    }

    // u = 1 / (M + 1/2) of the means M of the thread's genes, and the sum of all of the organism's: of equal numbers
    // exactly, since they are folded onto each other.
    __device__ __forceinline__ float inverse_means(float (&inverse)[4]) const {
        const int first = threadIdx.x % FOURS * 4;
        float sum[4];
        load4(&sums[0][first], sum);
#pragma unroll
        for (int warp = 1; warp < WARPS; warp++) {
            float more[4];
            load4(&sums[warp][first], more);
#pragma unroll
            for (int j = 0; j < 4; j++) sum[j] += more[j];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) inverse[j] = reciprocal_fast(sum[j] * (1.0f / MOST_CARRIED / ORGANISMS) + (0.5f - 1.0f / MOST_CARRIED));
        return fold((inverse[0] + inverse[1]) + (inverse[2] + inverse[3]), 1, FOURS);
    }

    // What each organism's genes add up to, weighed by u.
    __device__ __forceinline__ void weigh_organisms(const Genes& genes) {
        float inverse[4], along[OF_THREAD] = {};
        const float of_ones = inverse_means(inverse);
#pragma unroll
        for (int k = 0; k < OF_THREAD; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) along[k] += __uint_as_float(genes.of[k][j]) * inverse[j];
        const float of_organism = fmaxf(fold_each(along) - of_ones, 0.0f);
        const int place = threadIdx.x % FOURS;
        if (place < OF_THREAD) phi[threadIdx.x / FOURS * OF_THREAD + place] = of_organism;
    }

    // One warp's: an organism a lane. A child that does not mix is a clone of its first parent.
    __device__ __forceinline__ void turn_wheel(Rates rates, Stream draws) {
        const float along = phi[lane_of()], largest = warp_max(along);
        const float cumulative = sum_up_to_lane(pressed(rates.pressure, along, largest));
        const float turn = __shfl_sync(ALL_LANES, cumulative, WARP - 1);
        const uint4 draw = block_of(draws, lane_of());
        const u32 a = stop_of_wheel(cumulative, unit(draw.x) * turn);
        const u32 b = stop_of_wheel(cumulative, unit(draw.y) * turn);
        parents[lane_of()] = make_uint2(a * D, (unit(draw.z) < rates.crossover ? b : a) * D);
    }
};

// The values of a sequence and head.
template <typename T>
struct Values {
    const T* rows;
    u32 stride, tokens;

    __device__ __forceinline__ Values from(u32 gene) const {
        return {rows + gene, stride, tokens};
    }

    __device__ __forceinline__ u32 gene(u32 token, u32 g) const {
        return gene_of(token, sigmoid(to_float(rows[token * stride + g])));
    }
};

__device__ __forceinline__ void read_genes(u32 (&four)[4], const u32* from) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    four[0] = v.x, four[1] = v.y, four[2] = v.z, four[3] = v.w;
}

__device__ __forceinline__ void write_genes(u32* to, const u32 (&four)[4]) {
    *reinterpret_cast<uint4*>(to) = make_uint4(four[0], four[1], four[2], four[3]);
}

// The thread's genes of the next generation, which take the place of the population's. Mutants' draws wait in the places
// of their genes, since few genes mutate.
template <typename T>
__device__ __forceinline__ void breed(
    Genes& genes, const uint2* parents, u32* population, const Values<T>& values, const Mutation& mutation, Stream draws) {
    const u32 place = threadIdx.x % FOURS, pair = threadIdx.x / FOURS * (OF_THREAD / 2);
    const u32* const of_place = population + 4 * place;
    u32 mutants = 0;
#pragma unroll
    for (int i = 0; i < OF_THREAD / 2; i++) {
        const uint4 block = block_of(draws, (pair + i) * FOURS + place);
        const u32 words[4] = {block.x, block.y, block.z, block.w};
#pragma unroll
        for (int k = 2 * i; k < 2 * i + 2; k++) {
            const uint2 parent = parents[2 * pair + k];
            u32 of_a[4], of_b[4];
            read_genes(of_a, of_place + parent.x);
            read_genes(of_b, of_place + parent.y);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u32 draw = Mutation::draw(words[j], k);
                u32& child = genes.of[k][j];
                child = draw < mutation.middle ? of_a[j] : of_b[j];
                if (draw < mutation.threshold) child = draw, mutants |= 1u << (4 * k + j);
            }
        }
    }
    __syncthreads();
    u32* const own = population + (2 * pair * D + 4 * place);
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++) write_genes(own + k * D, genes.of[k]);
    const Values<T> of_first = values.from(4 * place);
    // Two at once, whose values are on their way together.
    while (mutants) {
        u32 *gene[2], mutant[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const u32 last = 31 - __clz(mutants), j = last % 4;
            gene[i] = own + last / 4 * D + j;
            mutant[i] = of_first.gene(mutation.token(*gene[i]), j);
            // An odd one is changed twice, to the same.
            if (i == 1 || mutants != 1u << last) mutants ^= 1u << last;
        }
        *gene[0] = mutant[0], *gene[1] = mutant[1];
    }
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++) read_genes(genes.of[k], own + k * D);
}

// The shares of the tokens of a sequence among the ancestors of each gene. They are counted in bytes, in shared memory.
template <typename A>
__device__ __forceinline__ void write_shares(const Genes& genes, u32* counts, int tokens, A* ancestry, int stride) {
    constexpr int SIXTEENS = FOURS / 4;
    uint4* const of_sixteen = reinterpret_cast<uint4*>(counts);
    for (int i = threadIdx.x; i < tokens * SIXTEENS; i += THREADS) of_sixteen[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            atomicAdd(&counts[(genes.of[k][j] & TOKEN) * FOURS + threadIdx.x % FOURS], 1u << 8 * j);
    __syncthreads();
    // A float whose last bit is an organism's share.
    constexpr float SHARES = WHOLE / ORGANISMS;
    for (int i = threadIdx.x; i < tokens * SIXTEENS; i += THREADS) {
        const uint4 sixteen = of_sixteen[i];
        const u32 words[4] = {sixteen.x, sixteen.y, sixteen.z, sixteen.w};
        A* out = ancestry + size_t(i / SIXTEENS) * stride + i % SIXTEENS * 16;
#pragma unroll
        for (int word = 0; word < 4; word++) {
            float shares[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                shares[j] = __uint_as_float(__byte_perm(words[word], __float_as_uint(SHARES), 0x7640 | j)) - SHARES;
            store4(out + 4 * word, shares);
        }
    }
}

// A block takes a sequence and a head.
template <typename T, typename A>
__device__ void sampled_of_few(
    const T* values_of_all, int stride, const u32* begins, const u32* ids, int heads, Site site, int generations,
    Rates rates, A* ancestry, float* fitness, float* inverse) {
    DYNAMIC_SHARED(u32, population);
    __shared__ Selection selection;
    let_next_begin();
    const auto [sequence, head] = RowAndHead(heads);
    const u32 begin = begins[sequence], id = ids[sequence];
    const int first = threadIdx.x % FOURS * 4, organism = threadIdx.x / FOURS * OF_THREAD;
    const Values<T> values = {values_of_all + size_t(begin) * stride + head * D, u32(stride), begins[sequence + 1] - begin};
    // In 24 bits, as `unit` has it.
    const u32 offset = block_of(stream_for(site, FOUNDERS, id, head, 0), 0).x >> 8;
    Genes genes;
#pragma unroll
    for (int k = 0; k < OF_THREAD; k++) {
        const u32 token = u32(u64((organism + k) << 24 | offset) * values.tokens / (ORGANISMS << 24));
        float v[4];
        load4(values.rows + token * values.stride + first, v);
#pragma unroll
        for (int j = 0; j < 4; j++) genes.of[k][j] = gene_of(token, sigmoid(v[j]));
        write_genes(population + (organism + k) * D + first, genes.of[k]);
    }
    const Mutation mutation(rates.mutation, values.tokens);
    for (int generation = 0; generation < generations; generation++) {
        selection.add_up_genes(genes, ~0u);
        __syncthreads();
        selection.weigh_organisms(genes);
        __syncthreads();
        if (warp_of() == 0) selection.turn_wheel(rates, stream_for(site, PARENTS, id, head, generation));
        __syncthreads();
        breed(genes, selection.parents, population, values, mutation, stream_for(site, GENES, id, head, generation));
    }
    if (fitness) selection.add_up_genes(genes, ~TOKEN);
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
    write_shares(genes, population, values.tokens, ancestry + size_t(begin) * heads * D + head * D, heads * D);
}

#define SAMPLED_OF_FEW(kind, T, A)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, AT_ONCE) evolve_few_##kind(                                  \
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
