// RMS norm over rows, which are a head's queries or keys. A row is read by as many lanes as have four of its columns
// each, at most a warp, and a warp takes as many rows at once.
#include "common.cuh"

constexpr int WARPS = 8;

// Of a row, and the first of this lane's columns; its next are `step()` further.
struct Lanes {
    int count;

    __device__ __forceinline__ Lanes(int columns) : count(1) {
        while (count < WARP && 4 * count < columns) count *= 2;
    }
    __device__ __forceinline__ int rows() const { return WARP / count; }
    __device__ __forceinline__ int row() const { return lane_of() / count; }
    __device__ __forceinline__ int column() const { return lane_of() % count * 4; }
    __device__ __forceinline__ int step() const { return 4 * count; }
    __device__ __forceinline__ float sum(float x) const {
        for (int step = count / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
        return x;
    }
};

// Up to four columns from c on; zeros behind the last.
template <typename T>
__device__ __forceinline__ void load_columns(const T* row, int c, int columns, float (&x)[4]) {
    if (columns % 4 == 0)
        load4(row + c, x);
    else
        for (int i = 0; i < 4; i++) x[i] = c + i < columns ? to_float(row[c + i]) : 0.0f;
}

template <typename T>
__device__ __forceinline__ void store_columns(T* row, int c, int columns, const float (&x)[4]) {
    if (columns % 4 == 0)
        store4(row + c, x);
    else
        for (int i = 0; i < 4 && c + i < columns; i++) row[c + i] = from_float<T>(x[i]);
}

template <typename T>
__device__ void normalise(
    const T* x, const float* gain, float epsilon, T* y, float* inverse_rms, int rows, int columns) {
    const Lanes lanes(columns);
    const int row = (blockIdx.x * WARPS + warp_of()) * lanes.rows() + lanes.row();
    // All lanes of a warp take part in its sums.
    const size_t begin = size_t(min(row, rows - 1)) * columns;
    float squares = 0;
    for (int c = lanes.column(); c < columns; c += lanes.step()) {
        float v[4];
        load_columns(x + begin, c, columns, v);
        squares += v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3];
    }
    const float inverse = 1.0f / sqrtf(lanes.sum(squares) / columns + epsilon);
    if (row >= rows) return;
    for (int c = lanes.column(); c < columns; c += lanes.step()) {
        float v[4], g[4];
        load_columns(x + begin, c, columns, v);
        load_columns(gain, c, columns, g);
        for (int i = 0; i < 4; i++) v[i] *= inverse * g[i];
        store_columns(y + begin, c, columns, v);
    }
    if (lanes.column() == 0) inverse_rms[row] = inverse;
}

// With r = 1/rms and g = gain dy: dx = r g - x r^3 mean(g x). Each block's sums of dy x r go to `partial` [blocks,
// columns], by way of `sums` [rows at once, columns].
template <typename T>
__device__ void gradient(
    const T* x, const float* gain, const float* inverse_rms, const T* dy, T* dx, float* partial, int rows, int columns) {
    DYNAMIC_SHARED(float, sums);
    const Lanes lanes(columns);
    const int at_once = WARPS * lanes.rows(), place = warp_of() * lanes.rows() + lanes.row();
    for (int i = threadIdx.x; i < at_once * columns; i += blockDim.x) sums[i] = 0;
    __syncthreads();
    for (int first = blockIdx.x * at_once; first < rows; first += gridDim.x * at_once) {
        const int row = first + place;
        const size_t begin = size_t(min(row, rows - 1)) * columns;
        const float r = inverse_rms[min(row, rows - 1)];
        float along = 0;
        for (int c = lanes.column(); c < columns; c += lanes.step()) {
            float v[4], d[4], g[4];
            load_columns(x + begin, c, columns, v);
            load_columns(dy + begin, c, columns, d);
            load_columns(gain, c, columns, g);
            for (int i = 0; i < 4; i++) along += g[i] * d[i] * v[i];
        }
        along = lanes.sum(along) / columns;
        if (row >= rows) continue;
        for (int c = lanes.column(); c < columns; c += lanes.step()) {
            float v[4], d[4], g[4];
            load_columns(x + begin, c, columns, v);
            load_columns(dy + begin, c, columns, d);
            load_columns(gain, c, columns, g);
            for (int i = 0; i < 4 && c + i < columns; i++) {
                sums[place * columns + c + i] += d[i] * v[i] * r;
                d[i] = r * (g[i] * d[i] - v[i] * r * r * along);
            }
            store_columns(dx + begin, c, columns, d);
        }
    }
    __syncthreads();
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        float sum = 0;
        for (int i = 0; i < at_once; i++) sum += sums[i * columns + c];
        partial[size_t(blockIdx.x) * columns + c] = sum;
    }
}

#define RMS_NORM(T, kind)                                                                                      \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) rms_norm_##kind(                                \
        const T* x, const float* gain, float epsilon, T* y, float* inverse_rms, int rows, int columns) {       \
        normalise(x, gain, epsilon, y, inverse_rms, rows, columns);                                            \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) rms_norm_gradient_##kind(                       \
        const T* x, const float* gain, const float* inverse_rms, const T* dy, T* dx, float* partial, int rows, \
        int columns) {                                                                                         \
        gradient(x, gain, inverse_rms, dy, dx, partial, rows, columns);                                        \
    }
RMS_NORM(float, f32)
RMS_NORM(bf16, bf16)
