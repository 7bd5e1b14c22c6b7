// RMS norm over rows, which are a head's queries or keys; a warp takes a row.
#include "common.cuh"

constexpr int WARPS = 8;

#define RMS_NORM(T, kind)                                                                                        \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) rms_norm_##kind(                                  \
        const T* x, const float* gain, float epsilon, T* y, float* inverse_rms, int rows, int columns) {         \
        const int row = blockIdx.x * WARPS + warp_of();                                                          \
        if (row >= rows) return;                                                                                 \
        x += size_t(row) * columns, y += size_t(row) * columns;                                                  \
        float squares = 0;                                                                                       \
        for (int c = lane_of(); c < columns; c += WARP) squares += to_float(x[c]) * to_float(x[c]);              \
        const float inverse = 1.0f / sqrtf(warp_sum(squares) / columns + epsilon);                               \
        for (int c = lane_of(); c < columns; c += WARP) y[c] = from_float<T>(to_float(x[c]) * inverse * gain[c]); \
        if (lane_of() == 0) inverse_rms[row] = inverse;                                                          \
    }                                                                                                            \
    /* With r = 1/rms and g = gain dy: dx = r g - x r^3 mean(g x); each block's sums of dy x r go to partial. */ \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) rms_norm_gradient_##kind(                         \
        const T* x, const float* gain, const float* inverse_rms, const T* dy, T* dx, float* partial, int rows,   \
        int columns) {                                                                                           \
        for (int row = blockIdx.x * WARPS + warp_of(); row < rows; row += gridDim.x * WARPS) {                   \
            const size_t begin = size_t(row) * columns;                                                          \
            const float r = inverse_rms[row];                                                                    \
            float along = 0;                                                                                     \
            for (int c = lane_of(); c < columns; c += WARP)                                                      \
                along += gain[c] * to_float(dy[begin + c]) * to_float(x[begin + c]);                             \
            along = warp_sum(along) / columns;                                                                   \
            for (int c = lane_of(); c < columns; c += WARP)                                                      \
                dx[begin + c] = from_float<T>(                                                                   \
                    r * (gain[c] * to_float(dy[begin + c]) - to_float(x[begin + c]) * r * r * along));           \
        }                                                                                                        \
        for (int c = threadIdx.x; c < columns; c += blockDim.x) {                                                \
            float sum = 0;                                                                                       \
            for (int base = blockIdx.x * WARPS; base < rows; base += gridDim.x * WARPS)                          \
                for (int row = base; row < min(base + WARPS, rows); row++)                                       \
                    sum += to_float(dy[size_t(row) * columns + c]) * to_float(x[size_t(row) * columns + c]) *    \
                           inverse_rms[row];                                                                     \
            partial[size_t(blockIdx.x) * columns + c] = sum;                                                     \
        }                                                                                                        \
    }
RMS_NORM(float, f32)
RMS_NORM(bf16, bf16)
