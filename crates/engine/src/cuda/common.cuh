// What all kernels share: numbers of either kind, sums over warps and blocks.
#pragma once
#include "platform.cuh"

constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xFFFFFFFF;

__device__ __forceinline__ float to_float(float x) {
    return x;
}

template <typename T>
__device__ __forceinline__ T from_float(float x);

template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}

template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return to_bf16(x);
}

// Two of 16 bits in a word.
__device__ __forceinline__ float low_half(u32 pair) {
    return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float high_half(u32 pair) {
    return __uint_as_float(pair & 0xFFFF0000);
}

// Four numbers side by side, on a boundary of four.
__device__ __forceinline__ void load4(const float* from, float (&x)[4]) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}

__device__ __forceinline__ void load4(const bf16* from, float (&x)[4]) {
    const uint2 v = *reinterpret_cast<const uint2*>(from);
    x[0] = low_half(v.x), x[1] = high_half(v.x), x[2] = low_half(v.y), x[3] = high_half(v.y);
}

// Eight, on a boundary of eight.
__device__ __forceinline__ void load8(const float* from, float (&x)[8]) {
    const float4 v = *reinterpret_cast<const float4*>(from), w = *reinterpret_cast<const float4*>(from + 4);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w, x[4] = w.x, x[5] = w.y, x[6] = w.z, x[7] = w.w;
}

__device__ __forceinline__ void load8(const bf16* from, float (&x)[8]) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    x[0] = low_half(v.x), x[1] = high_half(v.x), x[2] = low_half(v.y), x[3] = high_half(v.y);
    x[4] = low_half(v.z), x[5] = high_half(v.z), x[6] = low_half(v.w), x[7] = high_half(v.w);
}

__device__ __forceinline__ void store4(float* to, const float (&x)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
}

__device__ __forceinline__ void store4(bf16* to, const float (&x)[4]) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
}

__device__ __forceinline__ int lane_of() {
    return threadIdx.x % WARP;
}

__device__ __forceinline__ int warp_of() {
    return threadIdx.x / WARP;
}

// What a block of a line of blocks takes: a row (a sequence, or a tile of one) and a head. Heads come first, so that
// neighbouring blocks read neighbouring columns of the same rows.
struct RowAndHead {
    int row, head;

    __device__ __forceinline__ explicit RowAndHead(int heads) : row(blockIdx.x / heads), head(blockIdx.x % heads) {}
};

// Sums over a warp, in a fixed order; every lane has the result.
__device__ __forceinline__ float warp_sum(float x) {
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

__device__ __forceinline__ double warp_sum(double x) {
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

// Over a block of whole warps; every thread has the result.
template <typename F>
__device__ __forceinline__ F block_sum(F x) {
    __shared__ F sums[WARP];
    x = warp_sum(x);
    __syncthreads();
    if (lane_of() == 0) sums[warp_of()] = x;
    __syncthreads();
    F total = 0;
    for (int warp = 0; warp < int(blockDim.x) / WARP; warp++) total += sums[warp];
    return total;
}

__device__ __forceinline__ float block_max(float x) {
    __shared__ float largest[WARP];
    x = warp_max(x);
    __syncthreads();
    if (lane_of() == 0) largest[warp_of()] = x;
    __syncthreads();
    float total = largest[0];
    for (int warp = 1; warp < int(blockDim.x) / WARP; warp++) total = fmaxf(total, largest[warp]);
    return total;
}

// The normal distribution function to 2e-7, and GELU's slope: the polynomial of cpu/math.rs.
__device__ __forceinline__ float normal_distribution(float x) {
    constexpr float END = 5.5f;
    constexpr float COEFFICIENTS[15] = {6.2671665e-04f, -1.4251382e-03f, 7.429544e-04f, -1.0611821e-03f, 4.582319e-03f,
        -7.866469e-03f, 1.0260161e-02f, -1.4567367e-02f, 2.0351376e-02f, -2.6139572e-02f, 3.2072764e-02f,
        -3.8784284e-02f, 4.7737453e-02f, -6.4172566e-02f, 1.2855193e-01f};
    x = fminf(fmaxf(x, -END), END);
    const float u = x * x * (2.0f / (END * END)) - 1.0f;
    float poly = 0;
#pragma unroll
    for (int i = 0; i < 15; i++) poly = poly * u + COEFFICIENTS[i];
    return 0.5f + x * poly;
}

__device__ __forceinline__ float gelu(float x) {
    return x * normal_distribution(x);
}

__device__ __forceinline__ float gelu_slope(float x) {
    return normal_distribution(x) + x * __expf(-0.5f * x * x) * 0.3989423f;
}

constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ float sigmoid(float x) {
    return reciprocal_fast(1.0f + exp2_fast(-LOG2_E * x));
}

// sigmoid(x) (1 - sigmoid(x)), which is even.
__device__ __forceinline__ float sigmoid_slope(float x) {
    const float power = exp2_fast(-LOG2_E * fabsf(x)), inverse = reciprocal_fast(1.0f + power);
    return power * inverse * inverse;
}

__device__ __forceinline__ bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7F800000) != 0x7F800000;
}
