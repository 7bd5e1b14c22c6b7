// Evolution of each sequence and head: the ancestry that is left (docs/genetic-attention.md, section 3). A block takes
// a sequence and a head.
#include "random.cuh"

constexpr int THREADS = 128;

struct Rates {
    float mutation, crossover, pressure;
};

// (x / largest)^pressure, at most 1; where not even the largest is above 0 all are alike.
__device__ __forceinline__ float pressed(float pressure, float x, float largest) {
    const float relative = largest > 0 ? fminf(x / largest, 1.0f) : 1.0f;
    return pressure == 1.0f ? relative : powf(relative, pressure);
}

// Purposes of draws, as random.rs numbers them.
constexpr u32 FOUNDERS = 5, PARENTS = 6, GENES = 7;

__device__ __forceinline__ Stream stream_for(Site site, u32 purpose, u32 sequence, u32 head, u32 generation) {
    site.name |= purpose << 28;
    return stream_of(site, sequence, head, generation);
}

// A population [size, d]: for each gene of each organism the token that it descends from and what it carries of it.
struct Organisms {
    float* carried;
    u16* ancestor;
};

// What the founders, the wheel and the children of one sequence and head share.
template <typename T>
struct Evolution {
    const T* values;  // of the sequence's first token and the head's first gene
    int stride, tokens, d, size;
    Rates rates;

    __device__ __forceinline__ float expression(int token, int g) const {
        return sigmoid(to_float(values[size_t(token) * stride + g]));
    }

    __device__ void found(float offset, Organisms founders) const {
        for (int i = threadIdx.x; i < size * d; i += THREADS) {
            const int token = min(int((i / d + double(offset)) * tokens / size), tokens - 1);
            founders.ancestor[i] = u16(token);
            founders.carried[i] = expression(token, i % d);
        }
    }

    // The roulette wheel: cumulative[n] = sum over m <= n of phi[m]^pressure. `means`, `fitness` of d, `phi` of size.
    __device__ void select(const float* carried, float* means, float* fitness, float* phi, float* cumulative) const {
        for (int g = threadIdx.x; g < d; g += THREADS) {
            float sum = 0;
            for (int n = 0; n < size; n++) sum += carried[n * d + g];
            means[g] = 1.0f / (sum / size + 0.5f);
        }
        __syncthreads();
        float sum = 0;
        for (int g = lane_of(); g < d; g += WARP) sum += means[g];
        sum = warp_sum(sum);
        for (int g = threadIdx.x; g < d; g += THREADS) fitness[g] = means[g] / sum;
        __syncthreads();
        for (int n = warp_of(); n < size; n += THREADS / WARP) {
            float along = 0;
            for (int g = lane_of(); g < d; g += WARP) along += carried[n * d + g] * fitness[g];
            along = warp_sum(along);
            if (lane_of() == 0) phi[n] = along;
        }
        __syncthreads();
        float largest = phi[0];
        for (int n = lane_of(); n < size; n += WARP) largest = fmaxf(largest, phi[n]);
        largest = warp_max(largest);
        __syncthreads();
        for (int n = threadIdx.x; n < size; n += THREADS) phi[n] = pressed(rates.pressure, phi[n], largest);
        __syncthreads();
        for (int n = threadIdx.x; n < size; n += THREADS) {
            double total = 0;
            for (int m = 0; m <= n; m++) total += phi[m];
            cumulative[n] = float(total);
        }
        __syncthreads();
    }

    // Where the wheel stops: how many sums are not above the mark.
    __device__ int pick(const float* cumulative, u32 draw) const {
        const float mark = unit(draw) * cumulative[size - 1];
        int low = 0, high = size;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (cumulative[middle] <= mark)
                low = middle + 1;
            else
                high = middle;
        }
        return min(low, size - 1);
    }

    __device__ void choose_parents(const float* cumulative, Stream draws, int2* parents) const {
        for (int n = threadIdx.x; n < size; n += THREADS) {
            const uint4 draw = block_of(draws, n);
            const int a = pick(cumulative, draw.x), b = pick(cumulative, draw.y);
            // A child that does not mix is a clone of its first parent.
            parents[n] = make_int2(a, unit(draw.z) < rates.crossover ? b : a);
        }
        __syncthreads();
    }

    // Of a gene's 32 random bits the top one is the coin between the parents, the others decide the mutation; given that
    // a gene mutates they are uniform below the threshold, and so name the token that replaces it.
    __device__ void reproduce(Organisms from, const int2* parents, Stream draws, Organisms to) const {
        const u32 threshold = u32(double(rates.mutation) * 2147483648.0);
        const float tokens_per_draw = float(tokens) / max(threshold, 1u);
        const int blocks = (d + 3) / 4;
        for (int i = threadIdx.x; i < size * blocks; i += THREADS) {
            const int n = i / blocks, first = i % blocks * 4;
            const uint4 draw = block_of(draws, i);
            const u32 bits[4] = {draw.x, draw.y, draw.z, draw.w};
            const int2 pair = parents[n];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int g = first + j;
                if (g >= d) break;
                const int parent = (bits[j] >> 31 ? pair.y : pair.x) * d + g;
                const u32 mutant = bits[j] & 0x7FFFFFFF;
                int token = from.ancestor[parent];
                float carried = from.carried[parent];
                if (mutant < threshold) {
                    token = int(fminf(float(int(mutant)) * tokens_per_draw, float(tokens - 1)));
                    carried = expression(token, g);
                }
                to.ancestor[n * d + g] = u16(token);
                to.carried[n * d + g] = carried;
            }
        }
        __syncthreads();
    }
};

// The sampled population (3a). `room` is where wheel and population live if shared memory has no room for them;
// `counted` says whether shared memory has room for the tokens' counts.
template <typename T, typename A>
__device__ void sampled(
    const T* values, int stride, const u32* begins, const u32* ids, Site site, int head_dim, int size, int generations,
    Rates rates, float* room, int counted, A* ancestry) {
    DYNAMIC_SHARED(float, shared);
    const int head = blockIdx.y, d = head_dim, columns = gridDim.y * d;
    const u32 begin = begins[blockIdx.x], id = ids[blockIdx.x];
    const int tokens = begins[blockIdx.x + 1] - begin;
    const int genes = size * d;
    float *means = shared, *fitness = shared + d, *after = shared + 2 * d;
    float* storage = room ? room + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * (4 * size + 3 * genes) : after;
    float *phi = storage, *cumulative = storage + size;
    int2* parents = reinterpret_cast<int2*>(storage + 2 * size);
    u16* ancestors = reinterpret_cast<u16*>(storage + 4 * size);
    float* carried = storage + 4 * size + genes;
    Organisms now = {carried, ancestors}, next = {carried + genes, ancestors + genes};
    const Evolution<T> evolution = {values + size_t(begin) * stride + head * d, stride, tokens, d, size, rates};
    evolution.found(unit(block_of(stream_for(site, FOUNDERS, id, head, 0), 0).x), now);
    __syncthreads();
    for (int generation = 0; generation < generations; generation++) {
        evolution.select(now.carried, means, fitness, phi, cumulative);
        evolution.choose_parents(cumulative, stream_for(site, PARENTS, id, head, generation), parents);
        evolution.reproduce(now, parents, stream_for(site, GENES, id, head, generation), next);
        const Organisms before = now;
        now = next, next = before;
    }
    // Each gene's column of counts is one thread's.
    A* out = ancestry + size_t(begin) * columns + head * d;
    const float share = 1.0f / size;
    if (counted) {
        // In the place of what the organisms carry, which nobody needs any more.
        u16* counts = reinterpret_cast<u16*>(room ? after : carried);
        for (int i = threadIdx.x; i < tokens * d; i += THREADS) counts[i] = 0;
        __syncthreads();
        for (int g = threadIdx.x; g < d; g += THREADS)
            for (int n = 0; n < size; n++) counts[now.ancestor[n * d + g] * d + g]++;
        __syncthreads();
        for (int i = threadIdx.x; i < tokens * d; i += THREADS)
            out[size_t(i / d) * columns + i % d] = from_float<A>(counts[i] * share);
        return;
    }
    for (int g = threadIdx.x; g < d; g += THREADS) {
        for (int token = 0; token < tokens; token++) out[size_t(token) * columns + g] = from_float<A>(0);
        for (int n = 0; n < size; n++) {
            A& count = out[size_t(now.ancestor[n * d + g]) * columns + g];
            count = from_float<A>(to_float(count) + 1);
        }
        for (int token = 0; token < tokens; token++) {
            A& count = out[size_t(token) * columns + g];
            count = from_float<A>(to_float(count) * share);
        }
    }
}

#define SAMPLED(kind, T, A)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) evolve_sampled_##kind(                                       \
        const T* values, int stride, const u32* begins, const u32* ids, u32 seed_low, u32 seed_high, u32 step,         \
        u32 name, int head_dim, int size, int generations, float mutation, float crossover, float pressure,            \
        float* room, int counted, A* ancestry) {                                                                       \
        sampled<T, A>(                                                                                                 \
            values, stride, begins, ids, {seed_low, seed_high, step, name}, head_dim, size, generations,               \
            {mutation, crossover, pressure}, room, counted, ancestry);                                                 \
    }
SAMPLED(f32_f32, float, float)
SAMPLED(bf16_f32, bf16, float)
SAMPLED(bf16_bf16, bf16, bf16)

// The default population, 32 organisms of 32 or 64 genes, is one warp's: nobody waits for others. A gene is a word: the
// token that it descends from, and 16 bits of what it carries.
constexpr int ORGANISMS = 32;
constexpr int POPULATIONS = 2;

__device__ __forceinline__ u32 gene_of(int token, float carried) {
    return u32(token) << 16 | min(u32(carried * 65536.0f), 65535u);
}

__device__ __forceinline__ float carried_by(u32 gene) {
    return (float(gene & 0xFFFF) + 0.5f) * (1.0f / 65536.0f);
}

// Folds the first 2 HALF numbers of each lane onto HALF: those that the lane's half of the warp is to have, and what the
// other half has of them.
template <int HALF>
__device__ __forceinline__ void fold_lanes(float (&x)[ORGANISMS]) {
    const bool upper = lane_of() & HALF;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        const float sent = upper ? x[i] : x[i + HALF];
        x[i] = (upper ? x[i + HALF] : x[i]) + __shfl_xor_sync(ALL_LANES, sent, HALF);
    }
    if constexpr (HALF > 1) fold_lanes<HALF / 2>(x);
}

// Of 32 numbers in each lane, their sums over the warp: lane n has the sum of the n-th.
__device__ __forceinline__ float sums_over_lanes(float (&x)[ORGANISMS]) {
    fold_lanes<ORGANISMS / 2>(x);
    return x[0];
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

template <typename T, typename A, int D>
__device__ void sampled_by_warp(
    const T* values, int stride, const u32* begins, const u32* ids, int sequences, int heads, Site site, int generations,
    Rates rates, int words, A* ancestry) {
    DYNAMIC_SHARED(u32, shared);
    const int task = blockIdx.x * POPULATIONS + warp_of(), lane = lane_of();
    if (task >= sequences * heads) return;
    const int sequence = task / heads, head = task % heads, columns = heads * D;
    const u32 begin = begins[sequence], id = ids[sequence];
    const int tokens = begins[sequence + 1] - begin;
    u32 *now = shared + warp_of() * words, *next = now + ORGANISMS * D;
    values += size_t(begin) * stride + head * D;
    const float offset = unit(block_of(stream_for(site, FOUNDERS, id, head, 0), 0).x);
    const int founder = min(int((lane + double(offset)) * tokens / ORGANISMS), tokens - 1);
#pragma unroll 8
    for (int n = 0; n < ORGANISMS; n++) {
        const int token = __shfl_sync(ALL_LANES, founder, n);
        for (int g = lane; g < D; g += WARP)
            now[n * D + g] = gene_of(token, sigmoid(to_float(values[size_t(token) * stride + g])));
    }
    __syncwarp();
    const u32 threshold = u32(double(rates.mutation) * 2147483648.0);
    const float tokens_per_draw = float(tokens) / max(threshold, 1u);
    for (int generation = 0; generation < generations; generation++) {
        // Gene means and their fitness; then what each organism's genes add up to.
        float inverse[D / WARP], total = 0, parts[ORGANISMS];
#pragma unroll
        for (int j = 0; j < D / WARP; j++) {
            float sum = 0;
#pragma unroll
            for (int n = 0; n < ORGANISMS; n++) sum += carried_by(now[n * D + j * WARP + lane]);
            inverse[j] = __fdividef(1.0f, sum / ORGANISMS + 0.5f);
            total += inverse[j];
        }
        total = warp_sum(total);
#pragma unroll
        for (int n = 0; n < ORGANISMS; n++) {
            parts[n] = 0;
#pragma unroll
            for (int j = 0; j < D / WARP; j++)
                parts[n] += carried_by(now[n * D + j * WARP + lane]) * __fdividef(inverse[j], total);
        }
        const float phi = sums_over_lanes(parts), largest = warp_max(phi);
        const float cumulative = sum_up_to_lane(pressed(rates.pressure, phi, largest));
        const float turn = __shfl_sync(ALL_LANES, cumulative, WARP - 1);
        const uint4 draw = block_of(stream_for(site, PARENTS, id, head, generation), lane);
        const int a = stop_of_wheel(cumulative, unit(draw.x) * turn);
        const int b = stop_of_wheel(cumulative, unit(draw.y) * turn);
        const int parents = a | (unit(draw.z) < rates.crossover ? b : a) << 8;
        const Stream draws = stream_for(site, GENES, id, head, generation);
        constexpr int BLOCKS = D / 4;
#pragma unroll 2
        for (int i = lane; i < ORGANISMS * BLOCKS; i += WARP) {
            const int child = i / BLOCKS, first = i % BLOCKS * 4;
            const int pair = __shfl_sync(ALL_LANES, parents, child);
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
        __syncwarp();
        u32* before = now;
        now = next, next = before;
    }
    // The tokens' counts, in bytes, behind the last generation, which is brought to the front; each gene's column is one
    // lane's.
    u32 *last = shared + warp_of() * words, *counted = last + ORGANISMS * D;
    if (now != last)
        for (int i = lane; i < ORGANISMS * D; i += WARP) last[i] = now[i];
    __syncwarp();
    unsigned char* counts = reinterpret_cast<unsigned char*>(counted);
    for (int i = lane; i < tokens * D / 4; i += WARP) counted[i] = 0;
    __syncwarp();
    for (int n = 0; n < ORGANISMS; n++)
        for (int g = lane; g < D; g += WARP) counts[(last[n * D + g] >> 16) * D + g]++;
    __syncwarp();
    for (int i = lane; i < tokens * (D / 4); i += WARP) {
        const u32 four = counted[i];
        float shares[4];
#pragma unroll
        for (int j = 0; j < 4; j++) shares[j] = float(four >> 8 * j & 0xFF) * (1.0f / ORGANISMS);
        store4(ancestry + size_t(begin + i / (D / 4)) * columns + head * D + i % (D / 4) * 4, shares);
    }
}

#define SAMPLED_BY_WARP(D, kind, T, A)                                                                                 \
    extern "C" __global__ void __launch_bounds__(POPULATIONS * WARP) evolve_by_warp_##D##_##kind(                      \
        const T* values, int stride, const u32* begins, const u32* ids, int sequences, int heads, u32 seed_low,        \
        u32 seed_high, u32 step, u32 name, int generations, float mutation, float crossover, float pressure,           \
        int words, A* ancestry) {                                                                                      \
        sampled_by_warp<T, A, D>(                                                                                      \
            values, stride, begins, ids, sequences, heads, {seed_low, seed_high, step, name}, generations,             \
            {mutation, crossover, pressure}, words, ancestry);                                                         \
    }
SAMPLED_BY_WARP(32, f32_f32, float, float)
SAMPLED_BY_WARP(32, bf16_f32, bf16, float)
SAMPLED_BY_WARP(32, bf16_bf16, bf16, bf16)
SAMPLED_BY_WARP(64, f32_f32, float, float)
SAMPLED_BY_WARP(64, bf16_f32, bf16, float)
SAMPLED_BY_WARP(64, bf16_bf16, bf16, bf16)

// The infinite population (3b). Shares live in `ancestry`; `phi` in shared memory has one number a token.
template <typename T>
__device__ void mean_field(
    const T* values, int stride, const u32* begins, int d, int generations, Rates rates, float* ancestry) {
    DYNAMIC_SHARED(float, shared);
    const u32 begin = begins[blockIdx.x];
    const int tokens = begins[blockIdx.x + 1] - begin, columns = gridDim.y * d;
    const float even = 1.0f / tokens, keep = (1 - rates.crossover / 2) * (1 - rates.mutation);
    float *means = shared, *fitness = shared + d, *phi = shared + 2 * d;
    values += size_t(begin) * stride + blockIdx.y * d;
    ancestry += size_t(begin) * columns + blockIdx.y * d;
    const auto expression = [&](int token, int g) { return sigmoid(to_float(values[size_t(token) * stride + g])); };
    for (int i = threadIdx.x; i < tokens * d; i += THREADS) ancestry[size_t(i / d) * columns + i % d] = even;
    float linkage = 1;
    for (int generation = 0; generation < generations; generation++) {
        __syncthreads();
        for (int g = threadIdx.x; g < d; g += THREADS) {
            float sum = 0;
            for (int token = 0; token < tokens; token++) sum += ancestry[size_t(token) * columns + g] * expression(token, g);
            means[g] = sum;
        }
        __syncthreads();
        float sum = 0, average = 0;
        for (int g = lane_of(); g < d; g += WARP) sum += 1.0f / (means[g] + 0.5f);
        sum = warp_sum(sum);
        for (int g = lane_of(); g < d; g += WARP) average += means[g] / ((means[g] + 0.5f) * sum);
        average = warp_sum(average);
        for (int g = threadIdx.x; g < d; g += THREADS) fitness[g] = 1.0f / ((means[g] + 0.5f) * sum);
        __syncthreads();
        for (int token = warp_of(); token < tokens; token += THREADS / WARP) {
            float along = 0;
            for (int g = lane_of(); g < d; g += WARP) along += expression(token, g) * fitness[g];
            along = warp_sum(along);
            if (lane_of() == 0) phi[token] = along;
        }
        __syncthreads();
        for (int g = threadIdx.x; g < d; g += THREADS) {
            const auto selected = [&](int token) {
                const float unlinked = expression(token, g) * fitness[g] + average - means[g] * fitness[g];
                return linkage * phi[token] + (1 - linkage) * unlinked;
            };
            // The largest among the living: one whose share has become 0 must not make the others' powers 0 too.
            float largest = 0, total = 0;
            for (int token = 0; token < tokens; token++)
                if (ancestry[size_t(token) * columns + g] > 0) largest = fmaxf(largest, selected(token));
            for (int token = 0; token < tokens; token++) {
                float& share = ancestry[size_t(token) * columns + g];
                share *= pressed(rates.pressure, selected(token), largest);
                total += share;
            }
            for (int token = 0; token < tokens; token++) {
                float& share = ancestry[size_t(token) * columns + g];
                share = (1 - rates.mutation) * share / total + rates.mutation * even;
            }
        }
        linkage *= keep;
    }
}

#define MEAN_FIELD(T, kind)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) evolve_mean_field_##kind(                                 \
        const T* values, int stride, const u32* begins, int head_dim, int generations, float mutation,              \
        float crossover, float pressure, float* ancestry) {                                                         \
        mean_field<T>(values, stride, begins, head_dim, generations, {mutation, crossover, pressure}, ancestry);    \
    }
MEAN_FIELD(float, f32)
MEAN_FIELD(bf16, bf16)
