#include "gemm.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace emulated {
namespace {

// A unit of the innermost loop is ROWS x COLUMNS sums, held in registers; a task is a tile of D.
constexpr std::ptrdiff_t ROWS = 16, COLUMNS = 6, TILE_M = 256, TILE_N = 384, TILE_K = 256;

typedef float Eight __attribute__((vector_size(32), aligned(4)));

float from_bf16(std::uint16_t bits) {
    std::uint32_t wide = std::uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
}

// Round to nearest, ties away from zero, to 10 bits of mantissa.
float to_tf32(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if ((bits & 0x7F800000u) != 0x7F800000u) bits = (bits + 0x1000u) & ~0x1FFFu;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Packs `count` rows (of op(A)) or columns (of op(B)) of K steps into panels `width` wide, padded with zeros:
// panel after panel, in each step after step.
void pack(float* to, std::ptrdiff_t width, const Matrix& from, std::ptrdiff_t offset, std::ptrdiff_t across,
          std::ptrdiff_t along, std::ptrdiff_t count, std::ptrdiff_t steps, bool tf32) {
    for (std::ptrdiff_t panel = 0; panel < count; panel += width, to += width * steps) {
        std::ptrdiff_t some = std::min(width, count - panel);
        if (some < width) std::fill(to, to + width * steps, 0.0f);
        std::ptrdiff_t begin = offset + panel * across;
        auto each = [&](auto element) {
            if (across == 1) {
                for (std::ptrdiff_t k = 0; k < steps; ++k) {
                    for (std::ptrdiff_t i = 0; i < some; ++i) to[k * width + i] = element(begin + k * along + i);
                }
            } else {
                for (std::ptrdiff_t i = 0; i < some; ++i) {
                    for (std::ptrdiff_t k = 0; k < steps; ++k)
                        to[k * width + i] = element(begin + i * across + k * along);
                }
            }
        };
        if (from.type == Type::bf16) {
            auto values = static_cast<const std::uint16_t*>(from.values);
            each([values](std::ptrdiff_t i) { return from_bf16(values[i]); });
        } else if (tf32) {
            auto values = static_cast<const float*>(from.values);
            each([values](std::ptrdiff_t i) { return to_tf32(values[i]); });
        } else {
            auto values = static_cast<const float*>(from.values);
            each([values](std::ptrdiff_t i) { return values[i]; });
        }
    }
}

// sums[column][row] += a panel of A times a panel of B. The loops over columns are unrolled, so that the sums stay in
// registers.
__attribute__((always_inline)) inline void multiply_panels_inline(float* sums, std::ptrdiff_t column_step,
                                                                  const float* a, const float* b,
                                                                  std::ptrdiff_t steps) {
    Eight low[COLUMNS], high[COLUMNS];
#pragma GCC unroll 6
    for (int j = 0; j < COLUMNS; ++j) {
        low[j] = *reinterpret_cast<const Eight*>(sums + j * column_step);
        high[j] = *reinterpret_cast<const Eight*>(sums + j * column_step + 8);
    }
    for (std::ptrdiff_t k = 0; k < steps; ++k) {
        Eight a_low = *reinterpret_cast<const Eight*>(a + k * ROWS),
              a_high = *reinterpret_cast<const Eight*>(a + k * ROWS + 8);
#pragma GCC unroll 6
        for (int j = 0; j < COLUMNS; ++j) {
            float factor = b[k * COLUMNS + j];
            low[j] += a_low * factor;
            high[j] += a_high * factor;
        }
    }
#pragma GCC unroll 6
    for (int j = 0; j < COLUMNS; ++j) {
        *reinterpret_cast<Eight*>(sums + j * column_step) = low[j];
        *reinterpret_cast<Eight*>(sums + j * column_step + 8) = high[j];
    }
}

using Panels = void (*)(float*, std::ptrdiff_t, const float*, const float*, std::ptrdiff_t);

void multiply_panels_anywhere(float* sums, std::ptrdiff_t column_step, const float* a, const float* b,
                              std::ptrdiff_t steps) {
    multiply_panels_inline(sums, column_step, a, b, steps);
}

__attribute__((target("avx2,fma"))) void multiply_panels_avx2(float* sums, std::ptrdiff_t column_step, const float* a,
                                                              const float* b, std::ptrdiff_t steps) {
    multiply_panels_inline(sums, column_step, a, b, steps);
}

Panels panels_here() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? multiply_panels_avx2
                                                                           : multiply_panels_anywhere;
}

std::ptrdiff_t round_up(std::ptrdiff_t n, std::ptrdiff_t step) { return (n + step - 1) / step * step; }

struct Buffers {
    std::vector<float> a, b, sums;
};

void multiply_tile(const Product& p, std::ptrdiff_t batch, std::ptrdiff_t first_row, std::ptrdiff_t first_column,
                   Buffers& buffers) {
    std::ptrdiff_t rows = std::min(TILE_M, p.m - first_row), columns = std::min(TILE_N, p.n - first_column);
    std::ptrdiff_t padded_rows = round_up(rows, ROWS), padded_columns = round_up(columns, COLUMNS);
    static const Panels multiply_panels = panels_here();
    buffers.a.resize(padded_rows * TILE_K);
    buffers.b.resize(padded_columns * TILE_K);
    buffers.sums.assign(padded_rows * padded_columns, 0.0f);
    for (std::ptrdiff_t k = 0; k < p.k; k += TILE_K) {
        std::ptrdiff_t steps = std::min(TILE_K, p.k - k);
        pack(buffers.a.data(), ROWS, p.a, batch * p.a.batch_step + first_row * p.a.row_step + k * p.a.column_step,
             p.a.row_step, p.a.column_step, rows, steps, p.tf32);
        pack(buffers.b.data(), COLUMNS, p.b, batch * p.b.batch_step + first_column * p.b.column_step + k * p.b.row_step,
             p.b.column_step, p.b.row_step, columns, steps, p.tf32);
        for (std::ptrdiff_t j = 0; j < columns; j += COLUMNS) {
            for (std::ptrdiff_t i = 0; i < rows; i += ROWS) {
                multiply_panels(&buffers.sums[j * padded_rows + i], padded_rows, &buffers.a[i * steps],
                                &buffers.b[j * steps], steps);
            }
        }
    }
    for (std::ptrdiff_t j = 0; j < columns; ++j) {
        for (std::ptrdiff_t i = 0; i < rows; ++i) {
            std::ptrdiff_t row = first_row + i, column = first_column + j;
            float value = p.alpha * buffers.sums[j * padded_rows + i];
            // With beta 0, C is not read: it may hold NaN.
            if (p.beta != 0) {
                value += p.beta * read(p.c.values, p.c.type,
                                       batch * p.c.batch_step + row * p.c.row_step + column * p.c.column_step);
            }
            if (p.bias) value += read(p.bias, p.bias_type, batch * p.bias_step + row);
            write(p.d.values, p.d.type, batch * p.d.batch_step + row * p.d.row_step + column * p.d.column_step, value);
        }
    }
}

}  // namespace

float read(const void* values, Type type, std::ptrdiff_t i) {
    return type == Type::f32 ? static_cast<const float*>(values)[i]
                             : from_bf16(static_cast<const std::uint16_t*>(values)[i]);
}

void write(void* values, Type type, std::ptrdiff_t i, float value) {
    if (type == Type::f32) {
        static_cast<float*>(values)[i] = value;
        return;
    }
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    std::uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    static_cast<std::uint16_t*>(values)[i] = static_cast<std::uint16_t>(value != value ? 0x7FFFu : rounded);
}

void multiply(const Product& p) {
    std::ptrdiff_t tiles_m = (p.m + TILE_M - 1) / TILE_M, tiles_n = (p.n + TILE_N - 1) / TILE_N;
    std::ptrdiff_t tiles = tiles_m * tiles_n * p.batches;
    std::atomic<std::ptrdiff_t> next{0};
    auto work = [&] {
        Buffers buffers;
        for (std::ptrdiff_t i; (i = next.fetch_add(1)) < tiles;) {
            multiply_tile(p, i / (tiles_m * tiles_n), i % tiles_m * TILE_M, i / tiles_m % tiles_n * TILE_N, buffers);
        }
    };
    // A thread costs about as much as a product of a million multiplications.
    bool worth_it = tiles > 1 && 1.0 * p.m * p.n * p.k * p.batches > 4e6 && std::thread::hardware_concurrency() > 1;
    if (!worth_it) return work();
    std::thread helper(work);
    work();
    helper.join();
}

}  // namespace emulated
