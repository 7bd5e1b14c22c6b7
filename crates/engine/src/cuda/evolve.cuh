// What the kernels of evolution share.
#pragma once
#include "random.cuh"

struct Rates {
    float mutation, crossover, pressure;
};

// (x / largest)^pressure, at most 1; where not even the largest is above 0 all are alike.
__device__ __forceinline__ float pressed(float pressure, float x, float largest) {
    const float relative = largest > 0 ? fminf(x * reciprocal_fast(largest), 1.0f) : 1.0f;
    return pressure == 1.0f ? relative : powf(relative, pressure);
}

// A float whose last bit is 1: what is added to it stands in its last bits as a whole number.
constexpr float WHOLE = 8388608.0f;

// What a draw's share of the tokens is multiplied by, so that no rounding makes it all of them.
constexpr float BELOW_ONE = 1.0f - 1.0f / 4194304;

// A gene's draw is one of 2^32: below the threshold it mutates, and the draw names the token that it is replaced by; of
// the others the lower half inherit from the first parent.
struct Mutation {
    u32 threshold, middle;
    float tokens_per_draw;

    __device__ __forceinline__ Mutation(float rate, int tokens)
        : threshold(u32(fmin(double(rate) * 4294967296.0, 4294967295.0))),
          middle(threshold + (0xFFFFFFFF - threshold) / 2),
          tokens_per_draw(BELOW_ONE * float(tokens) / max(threshold, 1u)) {}

    // Two siblings share a word of random bits for each gene, which one reads from its beginning and the other from its
    // middle.
    __device__ __forceinline__ static u32 draw(u32 word, int child) {
        return child % 2 ? __funnelshift_l(word, word, 16) : word;
    }

    __device__ __forceinline__ u32 token(u32 draw) const {
        return __float_as_uint(__fadd_rz(float(draw) * tokens_per_draw, WHOLE)) & 0xFFFF;
    }
};

// Purposes of draws, as random.rs numbers them.
constexpr u32 FOUNDERS = 5, PARENTS = 6, GENES = 7;

__device__ __forceinline__ Stream stream_for(Site site, u32 purpose, u32 sequence, u32 head, u32 generation) {
    site.name |= purpose << 28;
    return stream_of(site, sequence, head, generation);
}
