// The gradients of layer norm. Rows of 384 and 768 columns stay in registers.
#include "layer_norm.cuh"

// Threads have many numbers in registers.
constexpr int WARPS = 4;

// With x^ the normalised row and g = gain dy: dx = (g - mean(g) - x^ mean(g x^)) / deviation; `masked`, where there is
// one, is dx through the dropout. Each block's sums over its rows of dy x^ and of dy go to `partial` [blocks, 2, columns],
// those of what it writes last, `masked` or else dx, to `partial_of_last` [blocks, columns].
template <typename T, int CHUNKS>
__device__ void gradient_in_registers(
    const T* x, const float* gain, const float* statistics, const T* dy, Rows sequences, Dropout dropout, T* dx,
    T* masked, float* partial, float* partial_of_last, int rows) {
    constexpr int COLUMNS = CHUNKS * WARP * 4;
    __shared__ float sums[3 * COLUMNS];
    float gains[CHUNKS][4] = {}, biases[CHUNKS][4] = {}, written[CHUNKS][4] = {};
    for (int row = blockIdx.x * WARPS + warp_of(); row < rows; row += gridDim.x * WARPS) {
        const size_t begin = size_t(row) * COLUMNS + lane_of() * 4;
        const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
        float normal[CHUNKS][4], d[CHUNKS][4], total = 0, along = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            float g[4];
            load4(x + begin + c * WARP * 4, normal[c]);
            load4(dy + begin + c * WARP * 4, d[c]);
            load4(gain + (c * WARP + lane_of()) * 4, g);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                normal[c][i] = (normal[c][i] - mean) * inverse;
                gains[c][i] += d[c][i] * normal[c][i];
                biases[c][i] += d[c][i];
                d[c][i] *= g[i];
                total += d[c][i];
                along += d[c][i] * normal[c][i];
            }
        }
        total = warp_sum(total) / COLUMNS;
        along = warp_sum(along) / COLUMNS;
        u32 first = 0;
        Stream stream = {};
        if (masked) stream = row_stream(dropout, sequences, row, COLUMNS, first);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
            for (int i = 0; i < 4; i++) d[c][i] = inverse * (d[c][i] - total - normal[c][i] * along);
            store4(dx + begin + c * WARP * 4, d[c]);
            if (masked) {
                float mask[4];
                mask4(dropout, stream, first + c * WARP + lane_of(), mask);
#pragma unroll
                for (int i = 0; i < 4; i++) d[c][i] *= mask[i];
                store4(masked + begin + c * WARP * 4, d[c]);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) written[c][i] += d[c][i];
        }
    }
    for (int warp = 0; warp < WARPS; warp++) {
        if (warp_of() == warp) {
#pragma unroll
            for (int c = 0; c < CHUNKS; c++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int column = (c * WARP + lane_of()) * 4 + i;
                    sums[column] = gains[c][i] + (warp == 0 ? 0.0f : sums[column]);
                    sums[COLUMNS + column] = biases[c][i] + (warp == 0 ? 0.0f : sums[COLUMNS + column]);
                    sums[2 * COLUMNS + column] = written[c][i] + (warp == 0 ? 0.0f : sums[2 * COLUMNS + column]);
                }
        }
        __syncthreads();
    }
    for (int c = threadIdx.x; c < 2 * COLUMNS; c += blockDim.x) partial[size_t(blockIdx.x) * 2 * COLUMNS + c] = sums[c];
    for (int c = threadIdx.x; c < COLUMNS; c += blockDim.x)
        partial_of_last[size_t(blockIdx.x) * COLUMNS + c] = sums[2 * COLUMNS + c];
}

template <typename T>
__device__ void gradient_of_any_width(
    const T* x, const float* gain, const float* statistics, const T* dy, Rows sequences, Dropout dropout, T* dx,
    T* masked, float* partial, float* partial_of_last, int rows, int columns) {
    for (int row = blockIdx.x * WARPS + warp_of(); row < rows; row += gridDim.x * WARPS) {
        const size_t begin = size_t(row) * columns;
        const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
        float total = 0, along = 0;
        for (int c = lane_of(); c < columns; c += WARP) {
            const float g = gain[c] * to_float(dy[begin + c]);
            total += g;
            along += g * (to_float(x[begin + c]) - mean) * inverse;
        }
        total = warp_sum(total) / columns;
        along = warp_sum(along) / columns;
        u32 first = 0;
        Stream stream = {};
        if (masked) stream = row_stream(dropout, sequences, row, columns, first);
        for (int c = lane_of(); c < columns; c += WARP) {
            const float normal = (to_float(x[begin + c]) - mean) * inverse;
            const float d = inverse * (gain[c] * to_float(dy[begin + c]) - total - normal * along);
            dx[begin + c] = from_float<T>(d);
            if (masked) masked[begin + c] = from_float<T>(d * mask_of(dropout, stream, first, c));
        }
    }
    __syncthreads();
    const T* last = masked ? masked : dx;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        float gains = 0, biases = 0, written = 0;
        for (int base = blockIdx.x * WARPS; base < rows; base += gridDim.x * WARPS)
            for (int row = base; row < min(base + WARPS, rows); row++) {
                const float d = to_float(dy[size_t(row) * columns + c]);
                const float v = to_float(x[size_t(row) * columns + c]);
                gains += d * (v - statistics[2 * row]) * statistics[2 * row + 1];
                biases += d;
                written += to_float(last[size_t(row) * columns + c]);
            }
        partial[size_t(blockIdx.x) * 2 * columns + c] = gains;
        partial[(size_t(blockIdx.x) * 2 + 1) * columns + c] = biases;
        partial_of_last[size_t(blockIdx.x) * columns + c] = written;
    }
}

#define NORM_GRADIENT(T, kind, width, blocks, body)                                                                 \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP, blocks) norm_gradient_##width##_##kind(              \
        const T* x, const float* gain, const float* statistics, const T* dy, const u32* owners, const u32* begins,  \
        const u32* ids, u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept, T* dx,          \
        T* masked, float* partial, float* partial_of_last, int rows, int columns) {                                 \
        const Rows sequences = {owners, begins, ids};                                                               \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                               \
        body;                                                                                                       \
    }
#define GRADIENT_IN_REGISTERS(T, CHUNKS) \
    gradient_in_registers<T, CHUNKS>(x, gain, statistics, dy, sequences, dropout, dx, masked, partial, partial_of_last, rows)
// So many blocks share a multiprocessor's registers.
#define NORM_GRADIENTS(T, kind)                                     \
    NORM_GRADIENT(T, kind, 384, 5, GRADIENT_IN_REGISTERS(T, 3))     \
    NORM_GRADIENT(T, kind, 768, 3, GRADIENT_IN_REGISTERS(T, 6))     \
    NORM_GRADIENT(                                                  \
        T, kind, any, 3,                                            \
        gradient_of_any_width<T>(x, gain, statistics, dy, sequences, dropout, dx, masked, partial, partial_of_last, rows, columns))
NORM_GRADIENTS(float, f32)
NORM_GRADIENTS(bf16, bf16)
