// D = alpha op(A) op(B) + beta C on the CPU, in single precision.
#pragma once
#include <cstddef>

namespace emulated {

enum class Type { f32, bf16 };

inline std::size_t bytes_of(Type type) { return type == Type::f32 ? 4 : 2; }
float read(const void* values, Type type, std::ptrdiff_t i);
void write(void* values, Type type, std::ptrdiff_t i, float value);

// A matrix whose element (i, j) is at i * row_step + j * column_step.
struct Matrix {
    void* values;
    Type type;
    std::ptrdiff_t row_step, column_step, batch_step;
};

struct Product {
    std::ptrdiff_t m, n, k, batches;
    Matrix a, b, c, d;
    float alpha, beta;
    bool tf32;         // round what is multiplied to TF32
    const void* bias;  // of each row, or null
    Type bias_type;
    std::ptrdiff_t bias_step;  // from batch to batch
};

// The result does not depend on the number of threads.
void multiply(const Product& product);

}  // namespace emulated
