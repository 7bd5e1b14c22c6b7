// The sampled population (docs/genetic-attention.md, section 3a) of the default size, 32 organisms of HEAD_DIM (32 or 64)
// genes: the wheel is one warp's, an organism a lane. A gene is a word: the token that it descends from, and 16 bits of
// what it carries.
#include "evolve.cuh"

constexpr int D = HEAD_DIM;
constexpr int THREADS = 128;
constexpr int ORGANISMS = 32;
constexpr int WARPS = THREADS / WARP;

__device__ __forceinline__ u32 gene_of(int token, float carried) {
    return u32(token) << 16 | min(u32(carried * 65536.0f), 65535u);
}

// What it carries, times 65536 and half of one too little, by way of the float 2^23 + x: conversions are slow.
__device__ __forceinline__ float carried_by(u32 gene) {
    return __uint_as_float((gene & 0xFFFF) | 0x4B000000) - 8388608.0f;
}

// Each lane's organism's part of the wheel added to those of the lanes before: exact in double precision.
__device__ __forceinline__ float sum_up_to_lane(float x) {
    double sum = x;
    for (int step = 1; step < WARP; step *= 2) {
        const double before = __shfl_up_sync(ALL_LANES, sum, step);
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

// What the warps of a small population share beside its two generations.
struct Selection {
    static constexpr int PARTS = THREADS / D;
    // Of each gene, over a part of the organisms.
    u32 sums[PARTS][D];
    // Of each organism: its fitness, and its parents.
    float phi[ORGANISMS];
    u32 parents[ORGANISMS];

    __device__ __forceinline__ void add_up_genes(const u32* genes) {
        constexpr int PART = ORGANISMS / PARTS;
        const int g = threadIdx.x % D, part = threadIdx.x / D;
        u32 sum = 0;
#pragma unroll
        for (int n = 0; n < PART; n++) sum += genes[(part * PART + n) * D + g] & 0xFFFF;
        sums[part][g] = sum;
    }

    // What each organism's genes add up to, weighed by the fitness of their means; a warp takes eight organisms.
    __device__ __forceinline__ void weigh_organisms(const u32* genes) {
        constexpr int OF_WARP = ORGANISMS / WARPS;
        const int lane = lane_of(), first = warp_of() * OF_WARP;
        float fitness[D / WARP], total = 0;
#pragma unroll
        for (int j = 0; j < D / WARP; j++) {
            u32 sum = 0;
#pragma unroll
            for (int part = 0; part < PARTS; part++) sum += sums[part][j * WARP + lane];
            const float mean = (float(sum) + 0.5f * ORGANISMS) * (1.0f / (65536 * ORGANISMS));
            fitness[j] = __fdividef(1.0f, mean + 0.5f);
            total += fitness[j];
        }
        total = __fdividef(1.0f, warp_sum(total));
        float along[OF_WARP];
#pragma unroll
        for (int n = 0; n < OF_WARP; n++) {
            along[n] = 0;
#pragma unroll
            for (int j = 0; j < D / WARP; j++)
                along[n] += carried_by(genes[(first + n) * D + j * WARP + lane]) * fitness[j];
        }
        // Folds halves of the organisms onto halves of the lanes, until each lane has a part of one organism's sum.
#pragma unroll
        for (int half = OF_WARP / 2; half > 0; half /= 2) {
            const bool upper = lane & half;
#pragma unroll
            for (int n = 0; n < half; n++) {
                const float sent = upper ? along[n] : along[n + half];
                along[n] = (upper ? along[n + half] : along[n]) + __shfl_xor_sync(ALL_LANES, sent, half);
            }
        }
        float sum = along[0];
        for (int step = OF_WARP; step < WARP; step *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
        // The fitness sums to 1 when it is multiplied by `total`.
        if (lane < OF_WARP) phi[first + lane] = (sum * total + 0.5f) * (1.0f / 65536.0f);
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

// A block takes a sequence and a head.
template <typename T, typename A>
__device__ void sampled_of_few(
    const T* values, int stride, const u32* begins, const u32* ids, int heads, Site site, int generations, Rates rates,
    A* ancestry) {
    DYNAMIC_SHARED(u32, now);
    __shared__ Selection selection;
    constexpr int FOURS = D / 4;
    const auto [sequence, head] = RowAndHead(heads);
    const int columns = heads * D;
    const u32 begin = begins[sequence], id = ids[sequence];
    const int tokens = begins[sequence + 1] - begin;
    u32 *last = now, *next = now + ORGANISMS * D;
    values += size_t(begin) * stride + head * D;
    const double offset = unit(block_of(stream_for(site, FOUNDERS, id, head, 0), 0).x);
    for (int i = threadIdx.x; i < ORGANISMS * FOURS; i += THREADS) {
        const int token = min(int((i / FOURS + offset) * tokens / ORGANISMS), tokens - 1);
        float v[4];
        load4(values + size_t(token) * stride + i % FOURS * 4, v);
        *reinterpret_cast<uint4*>(now + 4 * i) = make_uint4(
            gene_of(token, sigmoid(v[0])), gene_of(token, sigmoid(v[1])), gene_of(token, sigmoid(v[2])),
            gene_of(token, sigmoid(v[3])));
    }
    __syncthreads();
    const u32 threshold = u32(double(rates.mutation) * 2147483648.0);
    const float tokens_per_draw = float(tokens) / max(threshold, 1u);
    for (int generation = 0; generation < generations; generation++) {
        selection.add_up_genes(now);
        __syncthreads();
        selection.weigh_organisms(now);
        __syncthreads();
        if (warp_of() == 0) selection.turn_wheel(rates, stream_for(site, PARENTS, id, head, generation));
        __syncthreads();
        const Stream draws = stream_for(site, GENES, id, head, generation);
#pragma unroll 2
        for (int i = threadIdx.x; i < ORGANISMS * FOURS; i += THREADS) {
            const int child = i / FOURS, first = i % FOURS * 4;
            const u32 pair = selection.parents[child];
            const uint4 bits4 = block_of(draws, i);
            const uint4 of_a = *reinterpret_cast<const uint4*>(now + (pair & 0xFF) * D + first);
            const uint4 of_b = *reinterpret_cast<const uint4*>(now + (pair >> 8) * D + first);
            const u32 bits[4] = {bits4.x, bits4.y, bits4.z, bits4.w};
            u32 genes[4] = {
                bits4.x >> 31 ? of_b.x : of_a.x, bits4.y >> 31 ? of_b.y : of_a.y, bits4.z >> 31 ? of_b.z : of_a.z,
                bits4.w >> 31 ? of_b.w : of_a.w};
            // All mutants' values are asked for before the first is needed.
            float mutants[4];
            int sources[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u32 mutant = bits[j] & 0x7FFFFFFF;
                sources[j] = -1;
                mutants[j] = 0;
                if (mutant < threshold) {
                    sources[j] = int(fminf(float(int(mutant)) * tokens_per_draw, float(tokens - 1)));
                    mutants[j] = to_float(values[size_t(sources[j]) * stride + first + j]);
                }
            }
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (sources[j] >= 0) genes[j] = gene_of(sources[j], sigmoid(mutants[j]));
            *reinterpret_cast<uint4*>(next + child * D + first) = make_uint4(genes[0], genes[1], genes[2], genes[3]);
        }
        __syncthreads();
        u32* before = now;
        now = next, next = before;
    }
    // The tokens' counts, in bytes, behind the last generation, which is brought to the front; each gene's column is one
    // thread's.
    if (now != last)
        for (int i = threadIdx.x; i < ORGANISMS * D; i += THREADS) last[i] = now[i];
    __syncthreads();
    u32* counted = last + ORGANISMS * D;
    unsigned char* counts = reinterpret_cast<unsigned char*>(counted);
    for (int i = threadIdx.x; i < tokens * FOURS; i += THREADS) counted[i] = 0;
    __syncthreads();
    if (const int g = threadIdx.x; g < D)
        for (int n = 0; n < ORGANISMS; n++) counts[(last[n * D + g] >> 16) * D + g]++;
    __syncthreads();
    for (int i = threadIdx.x; i < tokens * FOURS; i += THREADS) {
        const u32 four = counted[i];
        float shares[4];
#pragma unroll
        for (int j = 0; j < 4; j++) shares[j] = float(four >> 8 * j & 0xFF) * (1.0f / ORGANISMS);
        store4(ancestry + size_t(begin + i / FOURS) * columns + head * D + i % FOURS * 4, shares);
    }
}

#define SAMPLED_OF_FEW(kind, T, A)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 12) evolve_few_##kind(                                          \
        const T* values, int stride, const u32* begins, const u32* ids, int heads, u32 seed_low, u32 seed_high,        \
        u32 step, u32 name, int generations, float mutation, float crossover, float pressure, A* ancestry) {                     \
        sampled_of_few<T, A>(                                                                                          \
            values, stride, begins, ids, heads, {seed_low, seed_high, step, name}, generations,                               \
            {mutation, crossover, pressure}, ancestry);                                                                \
    }
SAMPLED_OF_FEW(f32_f32, float, float)
SAMPLED_OF_FEW(bf16_f32, bf16, float)
SAMPLED_OF_FEW(bf16_bf16, bf16, bf16)
