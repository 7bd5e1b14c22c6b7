// What the kernels of evolution share.
#pragma once
#include "random.cuh"

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
