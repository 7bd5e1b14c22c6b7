// Layer norm over rows, alone and of a residual sum. A warp takes a row; rows of 384, 768 and 1024 columns stay in its
// registers, others are read again; in the backward pass 384 and 768.
#include "random.cuh"

constexpr int WARPS = 8;
// Of a block of the backward pass, whose threads have many numbers in registers.
constexpr int GRADIENT_WARPS = 4;

// The sequences that rows belong to, for the names of their draws.
struct Rows {
    const u32* owners;
    const u32* begins;
    const u32* ids;
};

// The draws of a row begin at a block of its sequence's stream.
__device__ __forceinline__ Stream row_stream(const Dropout& dropout, const Rows& rows, int row, int columns, u32& first) {
    const u32 sequence = rows.owners[row];
    first = (row - rows.begins[sequence]) * ((columns + 3) / 4);
    return stream_of(dropout.site, rows.ids[sequence], 0, 0);
}

// What one element is multiplied by.
__device__ __forceinline__ float mask_of(const Dropout& dropout, const Stream& stream, u32 first, int column) {
    float mask[4];
    mask4(dropout, stream, first + column / 4, mask);
    return column % 4 == 0 ? mask[0] : column % 4 == 1 ? mask[1] : column % 4 == 2 ? mask[2] : mask[3];
}

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
    for (int row = blockIdx.x * GRADIENT_WARPS + warp_of(); row < rows; row += gridDim.x * GRADIENT_WARPS) {
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
    for (int warp = 0; warp < GRADIENT_WARPS; warp++) {
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
    for (int row = blockIdx.x * GRADIENT_WARPS + warp_of(); row < rows; row += gridDim.x * GRADIENT_WARPS) {
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
        for (int base = blockIdx.x * GRADIENT_WARPS; base < rows; base += gridDim.x * GRADIENT_WARPS)
            for (int row = base; row < min(base + GRADIENT_WARPS, rows); row++) {
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
    extern "C" __global__ void __launch_bounds__(GRADIENT_WARPS* WARP, blocks) norm_gradient_##width##_##kind(      \
        const T* x, const float* gain, const float* statistics, const T* dy, const u32* owners, const u32* begins,   \
        const u32* ids, u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept, T* dx,            \
        T* masked, float* partial, float* partial_of_last, int rows, int columns) {                                                          \
        const Rows sequences = {owners, begins, ids};                                                                \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                \
        body;                                                                                                        \
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
