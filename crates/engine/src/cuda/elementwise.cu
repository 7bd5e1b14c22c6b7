// Functions of single elements, copies between kinds, and sums.
#include "common.cuh"

constexpr int THREADS = 256;

// Rows of `columns` elements that begin `stride` elements apart; element i row by row.
struct Layout {
    int columns, stride;
};

__device__ __forceinline__ size_t place(Layout layout, size_t i) {
    return layout.columns == layout.stride ? i : i / layout.columns * layout.stride + i % layout.columns;
}

__device__ __forceinline__ size_t first_element() {
    return size_t(blockIdx.x) * blockDim.x + threadIdx.x;
}

#define EACH(i, count) for (size_t i = first_element(); i < count; i += size_t(gridDim.x) * blockDim.x)

#define COPY(name, FROM, TO)                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                        \
        const FROM* from, TO* to, size_t count, int columns, int from_stride, int to_stride) {         \
        EACH(i, count) to[place({columns, to_stride}, i)] =                                            \
            from_float<TO>(to_float(from[place({columns, from_stride}, i)]));                          \
    }
COPY(copy_f32_f32, float, float)
COPY(copy_f32_bf16, float, bf16)
COPY(copy_bf16_f32, bf16, float)
COPY(copy_bf16_bf16, bf16, bf16)

#define ACCUMULATE(name, X, SUM)                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) name(                                        \
        const X* x, SUM* sum, size_t count, int columns, int x_stride, int sum_stride) {               \
        EACH(i, count) {                                                                               \
            SUM& total = sum[place({columns, sum_stride}, i)];                                         \
            total = from_float<SUM>(to_float(total) + to_float(x[place({columns, x_stride}, i)]));     \
        }                                                                                              \
    }
ACCUMULATE(accumulate_f32_f32, float, float)
ACCUMULATE(accumulate_f32_bf16, float, bf16)
ACCUMULATE(accumulate_bf16_f32, bf16, float)
ACCUMULATE(accumulate_bf16_bf16, bf16, bf16)

// How the smaller operand repeats over the larger one's rows and columns.
enum Repeat { NOT, OVER_ROWS, OVER_COLUMNS, OVER_BOTH };

__device__ __forceinline__ size_t repeated(int repeat, size_t i, int columns) {
    return repeat == NOT ? i : repeat == OVER_ROWS ? i % columns : repeat == OVER_COLUMNS ? i / columns : 0;
}

// Functions by the numbers that elementwise.rs gives them.
enum Function { ADD, MULTIPLY };
enum UnaryFunction { SIGMOID, GELU };

#define ELEMENTWISE(T, kind)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) scale_##kind(                                             \
        const T* x, float factor, T* out, size_t count) {                                                           \
        EACH(i, count) out[i] = from_float<T>(factor * to_float(x[i]));                                             \
    }                                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) unary_##kind(                                             \
        int function, const T* x, T* out, size_t count) {                                                           \
        EACH(i, count) {                                                                                            \
            const float v = to_float(x[i]);                                                                         \
            out[i] = from_float<T>(function == SIGMOID ? sigmoid(v) : gelu(v));                                     \
        }                                                                                                           \
    }                                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) unary_gradient_##kind(                                    \
        int function, const T* x, const T* dy, T* dx, size_t count) {                                               \
        EACH(i, count) {                                                                                            \
            const float v = to_float(x[i]), s = sigmoid(v);                                                         \
            dx[i] = from_float<T>(to_float(dy[i]) * (function == SIGMOID ? s * (1 - s) : gelu_slope(v)));           \
        }                                                                                                           \
    }                                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) binary_##kind(                                            \
        int function, int repeat, const T* a, const T* b, T* out, size_t count, int columns) {                      \
        EACH(i, count) {                                                                                            \
            const float x = to_float(a[i]), y = to_float(b[repeated(repeat, i, columns)]);                          \
            out[i] = from_float<T>(function == ADD ? x + y : x * y);                                                \
        }                                                                                                           \
    }                                                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) sum_columns_##kind(                                       \
        const T* x, T* out, int rows, int columns) {                                                                \
        const int row = blockIdx.x * (THREADS / WARP) + warp_of();                                                  \
        if (row >= rows) return;                                                                                    \
        float sum = 0;                                                                                              \
        for (int c = lane_of(); c < columns; c += WARP) sum += to_float(x[size_t(row) * columns + c]);              \
        sum = warp_sum(sum);                                                                                        \
        if (lane_of() == 0) out[row] = from_float<T>(sum);                                                          \
    }                                                                                                               \
    /* All of x in one block, in double precision. */                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS) sum_all_##kind(const T* x, T* out, size_t count) {        \
        double sum = 0;                                                                                             \
        for (size_t i = threadIdx.x; i < count; i += THREADS) sum += to_float(x[i]);                                \
        sum = block_sum(sum);                                                                                       \
        if (threadIdx.x == 0) out[0] = from_float<T>(float(sum));                                                   \
    }

ELEMENTWISE(float, f32)
ELEMENTWISE(bf16, bf16)
