// Evolution of each sequence and head: the ancestry that is left (docs/genetic-attention.md, section 3). A block takes
// a sequence and a head.
#include "evolve.cuh"

constexpr int THREADS = 128;

// A population [size, d]: for each gene of each organism the token that it descends from and what it carries of its
// expression, in 15 bits. All that is summed of it is whole numbers, as on the CPU (cpu/evolve/selection.rs).
struct Organisms {
    u32* carried;
    u16* ancestor;
};

constexpr u32 MOST_CARRIED = 0x7FFF;
// What stands for u = 1; of the greatest, 2, it has 15 bits.
constexpr double ONE = 16383.5;
// Organisms whose genes are added up in 32 bits.
constexpr int SUMMED = 1 << 16;

// To a whole number of 15 bits, as x is one but for rounding. Of what is no number it makes any.
__device__ __forceinline__ u32 rounded(float x) {
    return __float_as_uint(x + WHOLE) & MOST_CARRIED;
}

// How many bits a number has.
__device__ __forceinline__ int bits_of(u32 x) {
    return 32 - __clz(int(x));
}

__device__ __forceinline__ u32 warp_total(u32 x) {
    for (int step = 1; step < WARP; step *= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// What the founders, the wheel and the children of one sequence and head share.
template <typename T>
struct Evolution {
    const T* values;  // of the sequence's first token and the head's first gene
    int stride, tokens, d, size;
    Rates rates;

    __device__ __forceinline__ u32 expression(int token, int g) const {
        return rounded(sigmoid(to_float(values[size_t(token) * stride + g])) * float(MOST_CARRIED));
    }

    __device__ void found(float offset, Organisms founders) const {
        for (int i = threadIdx.x; i < size * d; i += THREADS) {
            const int token = min(int((i / d + double(offset)) * tokens / size), tokens - 1);
            founders.ancestor[i] = u16(token);
            founders.carried[i] = expression(token, i % d);
        }
    }

    // u = 1 / (M + 1/2) of the gene means M, in 15 bits.
    __device__ u32 weight(const u32* carried, int g) const {
        const double all = double(size) * MOST_CARRIED;
        float total = float(all / 2);
        for (int first = 0; first < size; first += SUMMED) {
            u32 sum = 0;
            for (int n = first; n < min(first + SUMMED, size); n++) sum += carried[size_t(n) * d + g];
            total += float(sum);
        }
        return rounded(float(all * ONE) / total);
    }

    // The roulette wheel: cumulative[n] = sum over m <= n of phi[m]^pressure, at most 2^31. `weights` of d, `phi` of size.
    __device__ void select(const u32* carried, u32* weights, u32* phi, u32* cumulative) const {
        for (int g = threadIdx.x; g < d; g += THREADS) weights[g] = weight(carried, g);
        __syncthreads();
        // Products have 30 bits.
        const int shift = max(bits_of(d - 1) - 1, 0), down = bits_of(size - 1);
        for (int n = warp_of(); n < size; n += THREADS / WARP) {
            u32 along = 0;
            for (int g = lane_of(); g < d; g += WARP) along += (carried[size_t(n) * d + g] * weights[g]) >> shift;
            along = warp_total(along);
            if (lane_of() == 0) phi[n] = along;
        }
        __syncthreads();
        u32 largest = 0;
        for (int n = 0; n < size; n++) largest = max(largest, phi[n]);
        __syncthreads();
        int up = max(31 - bits_of(largest), 0);
        if (rates.pressure != 1.0f) {
            up = 0;
            for (int n = threadIdx.x; n < size; n += THREADS)
                phi[n] = u32(pressed(rates.pressure, float(phi[n]), float(largest)) * 2147483648.0f);
            __syncthreads();
        }
        for (int n = threadIdx.x; n < size; n += THREADS) {
            u32 total = 0;
            for (int m = 0; m <= n; m++) total += phi[m] << up >> down;
            cumulative[n] = total;
        }
        __syncthreads();
        const bool alike = cumulative[size - 1] == 0;
        __syncthreads();
        for (int n = threadIdx.x; alike && n < size; n += THREADS) cumulative[n] = n + 1;
        __syncthreads();
    }

    // Where the wheel stops: how many sums are not above the mark.
    __device__ int pick(const u32* cumulative, u32 draw) const {
        const u32 mark = __umulhi(draw, cumulative[size - 1]);
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

    __device__ void choose_parents(const u32* cumulative, Stream draws, int2* parents) const {
        for (int n = threadIdx.x; n < size; n += THREADS) {
            const uint4 draw = block_of(draws, n);
            const int a = pick(cumulative, draw.x), b = pick(cumulative, draw.y);
            // A child that does not mix is a clone of its first parent.
            parents[n] = make_int2(a, unit(draw.z) < rates.crossover ? b : a);
        }
        __syncthreads();
    }

    __device__ void reproduce(Organisms from, const int2* parents, Stream draws, Organisms to) const {
        const Mutation mutation(rates.mutation, tokens);
        const int blocks = (d + 3) / 4;
        for (int i = threadIdx.x; i < (size + 1) / 2 * blocks; i += THREADS) {
            const int first = i % blocks * 4;
            const uint4 block = block_of(draws, i);
            const u32 words[4] = {block.x, block.y, block.z, block.w};
            for (int n = i / blocks * 2; n < min(i / blocks * 2 + 2, size); n++) {
                const int2 pair = parents[n];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const int g = first + j;
                    if (g >= d) break;
                    const u32 draw = Mutation::draw(words[j], n);
                    const int parent = (draw < mutation.middle ? pair.x : pair.y) * d + g;
                    int token = from.ancestor[parent];
                    u32 carried = from.carried[parent];
                    if (draw < mutation.threshold) {
                        token = mutation.token(draw);
                        carried = expression(token, g);
                    }
                    to.ancestor[n * d + g] = u16(token);
                    to.carried[n * d + g] = carried;
                }
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
    float* after = shared + d;
    u32* weights = reinterpret_cast<u32*>(shared);
    float* storage = room ? room + (size_t(blockIdx.x) * gridDim.y + blockIdx.y) * (4 * size + 3 * genes) : after;
    u32 *phi = reinterpret_cast<u32*>(storage), *cumulative = phi + size;
    int2* parents = reinterpret_cast<int2*>(storage + 2 * size);
    u16* ancestors = reinterpret_cast<u16*>(storage + 4 * size);
    u32* carried = reinterpret_cast<u32*>(storage + 4 * size + genes);
    Organisms now = {carried, ancestors}, next = {carried + genes, ancestors + genes};
    const Evolution<T> evolution = {values + size_t(begin) * stride + head * d, stride, tokens, d, size, rates};
    evolution.found(unit(block_of(stream_for(site, FOUNDERS, id, head, 0), 0).x), now);
    __syncthreads();
    for (int generation = 0; generation < generations; generation++) {
        evolution.select(now.carried, weights, phi, cumulative);
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
        u16* counts = room ? reinterpret_cast<u16*>(after) : reinterpret_cast<u16*>(carried);
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
