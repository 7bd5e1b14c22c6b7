// Sums over rows: partial[part of the rows, column], each by a block.
#include "common.cuh"

// Of a block, at most.
constexpr int THREADS = 1024;

// 32 columns by as many groups of rows as there are warps; the groups' sums are added in their order. Four loads are
// under way at once.
template <typename T>
__device__ void sum_part_of_rows(const T* x, float* partial, int rows, int columns, int stride) {
    __shared__ float sums[THREADS / WARP][WARP];
    const int groups = blockDim.x / WARP;
    const int column = blockIdx.x * WARP + lane_of();
    const int part = (rows + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * part, end = min(rows, begin + part);
    float sum[4] = {};
    if (column < columns) {
        int row = begin + warp_of();
        for (; row + 3 * groups < end; row += 4 * groups)
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i] += to_float(x[size_t(row + i * groups) * stride + column]);
        for (; row < end; row += groups) sum[0] += to_float(x[size_t(row) * stride + column]);
    }
    sums[warp_of()][lane_of()] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    __syncthreads();
    if (warp_of() == 0 && column < columns) {
        float total = 0;
        for (int group = 0; group < groups; group++) total += sums[group][lane_of()];
        partial[size_t(blockIdx.y) * columns + column] = total;
    }
}

#define SUM_ROWS(T, kind)                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) sum_rows_##kind(             \
        const T* x, float* partial, int rows, int columns, int stride) {               \
        sum_part_of_rows(x, partial, rows, columns, stride);                           \
    }
SUM_ROWS(float, f32)
SUM_ROWS(bf16, bf16)
