// AdamW over many tensors in one launch, and their norm.
#include "common.cuh"

constexpr int THREADS = 256;
// Elements of one block.
constexpr int PART = 4096;

// The tensors: `count` numbers each of first part, length, and then addresses and decay as the kernels read them.
struct Table {
    const u64* numbers;
    int count;
};

// The tensor that a part belongs to: the last whose first part is not after it.
__device__ __forceinline__ int tensor_of(Table table, u64 part) {
    int low = 0, high = table.count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (table.numbers[middle] <= part)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

__device__ __forceinline__ u64 entry(Table table, int row, int tensor) {
    return table.numbers[size_t(row) * table.count + tensor];
}

struct Update {
    float beta1, beta2, size, deviation, epsilon, scale, keep;
};

__device__ __forceinline__ void update(Update u, float g, float& p, float& m, float& v) {
    g *= u.scale;
    m = u.beta1 * m + (1 - u.beta1) * g;
    v = u.beta2 * v + (1 - u.beta2) * g * g;
    p = p * u.keep - u.size * m / (sqrtf(v) * u.deviation + u.epsilon);
}

// Rows of the table: first part, length, gradient, first and second moment, bits of the decay factor, the place of a
// rounded copy or 0, parameter.
extern "C" __global__ void __launch_bounds__(THREADS) adamw(
    const u64* numbers, int count, float beta1, float beta2, float size, float deviation, float epsilon, float max_norm,
    const float* norm, const float* loss) {
    if (!is_finite(*norm) || !is_finite(*loss)) return;
    const Table table = {numbers, count};
    const int tensor = tensor_of(table, blockIdx.x);
    const size_t begin = (blockIdx.x - entry(table, 0, tensor)) * PART, length = entry(table, 1, tensor);
    const float* gradient = reinterpret_cast<const float*>(entry(table, 2, tensor));
    float* first = reinterpret_cast<float*>(entry(table, 3, tensor));
    float* second = reinterpret_cast<float*>(entry(table, 4, tensor));
    const float keep = __uint_as_float(u32(entry(table, 5, tensor)));
    bf16* rounded = reinterpret_cast<bf16*>(entry(table, 6, tensor));
    float* parameter = reinterpret_cast<float*>(entry(table, 7, tensor));
    const float scale = fminf(1.0f, max_norm / (*norm + 1e-6f));
    const Update u = {beta1, beta2, size, deviation, epsilon, scale, keep};
    // A copy follows others, whose lengths need not be multiples of four.
    const bool wide = length % 4 == 0 && reinterpret_cast<size_t>(rounded) % 8 == 0;
    for (size_t i = begin + 4 * threadIdx.x; i < min(begin + PART, length); i += 4 * THREADS) {
        if (wide) {
            float g[4], p[4], m[4], v[4];
            load4(gradient + i, g), load4(parameter + i, p), load4(first + i, m), load4(second + i, v);
#pragma unroll
            for (int j = 0; j < 4; j++) update(u, g[j], p[j], m[j], v[j]);
            store4(parameter + i, p), store4(first + i, m), store4(second + i, v);
            if (rounded) store4(rounded + i, p);
        } else {
            for (size_t j = i; j < min(i + 4, length); j++) {
                update(u, gradient[j], parameter[j], first[j], second[j]);
                if (rounded) rounded[j] = to_bf16(parameter[j]);
            }
        }
    }
}

// Each block's sum of squares. Rows of the table: first part, length, address.
extern "C" __global__ void __launch_bounds__(THREADS) squares(const u64* numbers, int count, double* partial) {
    const Table table = {numbers, count};
    const int tensor = tensor_of(table, blockIdx.x);
    const size_t begin = (blockIdx.x - entry(table, 0, tensor)) * PART, length = entry(table, 1, tensor);
    const float* x = reinterpret_cast<const float*>(entry(table, 2, tensor));
    const bool wide = length % 4 == 0;
    float sum = 0;
    for (size_t i = begin + 4 * threadIdx.x; i < min(begin + PART, length); i += 4 * THREADS) {
        if (wide) {
            float v[4];
            load4(x + i, v);
            sum += v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3];
        } else {
            for (size_t j = i; j < min(i + 4, length); j++) sum += x[j] * x[j];
        }
    }
    const double total = block_sum(double(sum));
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// One block.
extern "C" __global__ void __launch_bounds__(THREADS) norm_of_squares(const double* partial, int count, float* norm) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = float(sqrt(sum));
}
