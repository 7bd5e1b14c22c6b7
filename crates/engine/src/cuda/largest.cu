// The largest entries of rows. A block takes a row: it finds the least of the `count` largest from its highest byte to its
// lowest, counting how often each byte stands behind what is known, and then collects what is not below it. What is below
// the row's floor does not count.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int BYTES = 256;

// Ordered as numbers are; what is not a number is less than any, and both zeros are one.
__device__ __forceinline__ u32 key_of(float x) {
    const u32 bits = __float_as_uint(x == 0 ? 0.0f : x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0;
    return bits >> 31 ? ~bits : bits | 0x80000000;
}

extern "C" __global__ void __launch_bounds__(THREADS) largest(
    const float* x, const float* floors, int columns, u32 count, u32 room, u32* found, u32* places, float* values) {
    __shared__ u32 often[BYTES], least, wanted, total;
    const float floor = floors[blockIdx.x];
    x += size_t(blockIdx.x) * columns;
    places += size_t(blockIdx.x) * room, values += size_t(blockIdx.x) * room;
    if (threadIdx.x == 0) least = 0, wanted = count, total = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        often[threadIdx.x] = 0;
        __syncthreads();
        const u32 known = shift == 24 ? 0 : ~0u << (shift + 8);
        for (int column = threadIdx.x; column < columns; column += THREADS) {
            const u32 key = key_of(x[column]);
            if ((key & known) == (least & known) && !(x[column] < floor)) atomicAdd(&often[key >> shift & 0xFF], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int byte = BYTES - 1;
            for (; byte > 0 && often[byte] < wanted; byte--) wanted -= often[byte];
            least |= u32(byte) << shift;
        }
        __syncthreads();
    }
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        if (key_of(x[column]) < least || x[column] < floor) continue;
        const u32 place = atomicAdd(&total, 1u);
        if (place < room) places[place] = column, values[place] = x[column];
    }
    __syncthreads();
    if (threadIdx.x == 0) found[blockIdx.x] = total;
}
