// Layer norm over rows, alone and of a residual sum. Rows of 384, 768 and 1024 columns stay in registers.
#include "layer_norm.cuh"

constexpr int WARPS = 8;

// Writes residual + dropout(x) (where there is a residual), the norm of it, and the row's mean and 1/deviation.
template <typename T, int CHUNKS>
__device__ void norm_in_registers(
    const T* x, const T* residual, Rows sequences, Dropout dropout, const float* gain, const float* bias, float epsilon,
    T* sum, T* y, float* statistics, int rows) {
    constexpr int COLUMNS = CHUNKS * WARP * 4;
    const int row = blockIdx.x * WARPS + warp_of();
    if (row >= rows) return;
    const size_t begin = size_t(row) * COLUMNS + lane_of() * 4;
    float v[CHUNKS][4], total = 0;
    u32 first = 0;
    Stream stream = {};
    if (dropout.threshold) stream = row_stream(dropout, sequences, row, COLUMNS, first);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        load4(x + begin + c * WARP * 4, v[c]);
        if (residual) {
            float r[4], mask[4] = {1, 1, 1, 1};
            load4(residual + begin + c * WARP * 4, r);
            if (dropout.threshold) mask4(dropout, stream, first + c * WARP + lane_of(), mask);
#pragma unroll
            for (int i = 0; i < 4; i++) v[c][i] = to_float(from_float<T>(r[i] + v[c][i] * mask[i]));
            store4(sum + begin + c * WARP * 4, v[c]);
        }
        total += v[c][0] + v[c][1] + v[c][2] + v[c][3];
    }
    const float mean = warp_sum(total) / COLUMNS;
    float squares = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int i = 0; i < 4; i++) squares += (v[c][i] - mean) * (v[c][i] - mean);
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / COLUMNS + epsilon);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        float g[4], b[4];
        load4(gain + (c * WARP + lane_of()) * 4, g);
        load4(bias + (c * WARP + lane_of()) * 4, b);
#pragma unroll
        for (int i = 0; i < 4; i++) v[c][i] = (v[c][i] - mean) * inverse * g[i] + b[i];
        store4(y + begin + c * WARP * 4, v[c]);
    }
    if (lane_of() == 0) statistics[2 * row] = mean, statistics[2 * row + 1] = inverse;
}

template <typename T>
__device__ void norm_of_any_width(
    const T* x, const T* residual, Rows sequences, Dropout dropout, const float* gain, const float* bias, float epsilon,
    T* sum, T* y, float* statistics, int rows, int columns) {
    const int row = blockIdx.x * WARPS + warp_of();
    if (row >= rows) return;
    const size_t begin = size_t(row) * columns;
    u32 first = 0;
    Stream stream = {};
    if (dropout.threshold) stream = row_stream(dropout, sequences, row, columns, first);
    float total = 0;
    for (int c = lane_of(); c < columns; c += WARP) {
        float v = to_float(x[begin + c]);
        if (residual) {
            const float mask = dropout.threshold ? mask_of(dropout, stream, first, c) : 1.0f;
            const T rounded = from_float<T>(to_float(residual[begin + c]) + v * mask);
            sum[begin + c] = rounded;
            v = to_float(rounded);
        }
        total += v;
    }
    const T* terms = residual ? sum : x;
    const float mean = warp_sum(total) / columns;
    float squares = 0;
    for (int c = lane_of(); c < columns; c += WARP) {
        const float v = to_float(terms[begin + c]) - mean;
        squares += v * v;
    }
    const float inverse = 1.0f / sqrtf(warp_sum(squares) / columns + epsilon);
    for (int c = lane_of(); c < columns; c += WARP)
        y[begin + c] = from_float<T>((to_float(terms[begin + c]) - mean) * inverse * gain[c] + bias[c]);
    if (lane_of() == 0) statistics[2 * row] = mean, statistics[2 * row + 1] = inverse;
}

#define NORM(T, kind)                                                                                               \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) norm_##kind(                                         \
        const T* x, const T* residual, const u32* owners, const u32* begins, const u32* ids, u32 seed_low,           \
        u32 seed_high, u32 step, u32 name, u32 threshold, float kept, const float* gain, const float* bias,          \
        float epsilon, T* sum, T* y, float* statistics, int rows, int columns) {                                     \
        const Rows sequences = {owners, begins, ids};                                                                \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                \
        if (columns == 384)                                                                                          \
            norm_in_registers<T, 3>(                                                                                 \
                x, residual, sequences, dropout, gain, bias, epsilon, sum, y, statistics, rows);                     \
        else if (columns == 768)                                                                                     \
            norm_in_registers<T, 6>(                                                                                 \
                x, residual, sequences, dropout, gain, bias, epsilon, sum, y, statistics, rows);                     \
        else if (columns == 1024)                                                                                    \
            norm_in_registers<T, 8>(                                                                                 \
                x, residual, sequences, dropout, gain, bias, epsilon, sum, y, statistics, rows);                     \
        else                                                                                                         \
            norm_of_any_width<T>(                                                                                    \
                x, residual, sequences, dropout, gain, bias, epsilon, sum, y, statistics, rows, columns);            \
    }
NORM(float, f32)
NORM(bf16, bf16)
