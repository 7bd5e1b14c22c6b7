// Rows of unit length. A block takes a row.
#include "common.cuh"

constexpr int THREADS = 128;

extern "C" __global__ void __launch_bounds__(THREADS) l2_normalize(
    const float* x, float* out, float* norms, int columns) {
    const size_t begin = size_t(blockIdx.x) * columns;
    float squares = 0;
    for (int c = threadIdx.x; c < columns; c += THREADS) squares += x[begin + c] * x[begin + c];
    const float norm = fmaxf(sqrtf(block_sum(squares)), 1e-12f);
    for (int c = threadIdx.x; c < columns; c += THREADS) out[begin + c] = x[begin + c] / norm;
    if (threadIdx.x == 0) norms[blockIdx.x] = norm;
}

// dx = (dy - y (y dy)) / norm
extern "C" __global__ void __launch_bounds__(THREADS) l2_normalize_gradient(
    const float* y, const float* norms, const float* dy, float* dx, int columns) {
    const size_t begin = size_t(blockIdx.x) * columns;
    float along = 0;
    for (int c = threadIdx.x; c < columns; c += THREADS) along += y[begin + c] * dy[begin + c];
    along = block_sum(along);
    const float norm = norms[blockIdx.x];
    for (int c = threadIdx.x; c < columns; c += THREADS)
        dx[begin + c] = (dy[begin + c] - y[begin + c] * along) / norm;
}
