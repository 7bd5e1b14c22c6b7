// Philox4x32-10 by name, as random.rs draws it.
#pragma once
#include "common.cuh"

// A place in the network where numbers are drawn in one step; `name` holds purpose and layer where Site::stream puts them.
struct Site {
    u32 seed_low, seed_high, step, name;
};

// A sequence of blocks of four numbers, addressed by index.
struct Stream {
    u32 key_low, key_high, name, sequence, step;
};

__device__ __forceinline__ Stream stream_of(Site site, u32 sequence, u32 head, u32 generation) {
    return {site.seed_low, site.seed_high, site.name | (head & 0xFF) << 12 | (generation & 0xFFF), sequence, site.step};
}

__device__ __forceinline__ uint4 block_of(const Stream& stream, u32 index) {
    u32 x0 = index, x1 = stream.name, x2 = stream.sequence, x3 = stream.step;
    u32 key0 = stream.key_low, key1 = stream.key_high;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 p0 = u64(x0) * 0xD2511F53u, p1 = u64(x2) * 0xCD9E8D57u;
        x0 = u32(p1 >> 32) ^ x1 ^ key0;
        x1 = u32(p1);
        x2 = u32(p0 >> 32) ^ x3 ^ key1;
        x3 = u32(p0);
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return make_uint4(x0, x1, x2, x3);
}

// A number in [0, 1) with 24 bits.
__device__ __forceinline__ float unit(u32 bits) {
    return float(bits >> 8) * (1.0f / 16777216.0f);
}

// Dropout: a draw below `threshold` drops, what is left is multiplied by `kept`. No threshold, no dropout.
struct Dropout {
    Site site;
    u32 threshold;
    float kept;
};

// What four elements side by side in a row are multiplied by; `index` is their block's in the row's sequence.
__device__ __forceinline__ void mask4(const Dropout& dropout, const Stream& stream, u32 index, float (&mask)[4]) {
    const uint4 draws = block_of(stream, index);
    mask[0] = draws.x < dropout.threshold ? 0.0f : dropout.kept;
    mask[1] = draws.y < dropout.threshold ? 0.0f : dropout.kept;
    mask[2] = draws.z < dropout.threshold ? 0.0f : dropout.kept;
    mask[3] = draws.w < dropout.threshold ? 0.0f : dropout.kept;
}
