#include "matrices.h"

#include <cstring>

namespace emulated {
namespace {

float low_half(unsigned pair) {
    unsigned bits = pair << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

float high_half(unsigned pair) {
    unsigned bits = pair & 0xFFFF0000u;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

}  // namespace

void load(const MatrixRequest* const lanes[32], bool transposed) {
    unsigned short matrices[4][8][8];
    for (int lane = 0; lane < 32; ++lane) std::memcpy(matrices[lane / 8][lane % 8], lanes[lane]->row, 16);
    for (int lane = 0; lane < 32; ++lane) {
        int row = lane / 4, column = lane % 4 * 2;
        for (int i = 0; i < 4; ++i) {
            unsigned low = transposed ? matrices[i][column][row] : matrices[i][row][column];
            unsigned high = transposed ? matrices[i][column + 1][row] : matrices[i][row][column + 1];
            lanes[lane]->registers[i] = low | high << 16;
        }
    }
}

namespace {

typedef float Eight __attribute__((vector_size(32), aligned(32)));

__attribute__((always_inline)) inline void multiply_inline(const MatrixRequest* const lanes[32]) {
    float a[16][16];
    alignas(32) float b[16][8], d[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        int group = lane / 4, pair = lane % 4 * 2;
        const MatrixRequest& request = *lanes[lane];
        for (int i = 0; i < 4; ++i) {
            int row = group + i % 2 * 8, k = pair + i / 2 * 8;
            a[row][k] = low_half(request.a[i]);
            a[row][k + 1] = high_half(request.a[i]);
        }
        for (int i = 0; i < 2; ++i) {
            b[pair + i * 8][group] = low_half(request.b[i]);
            b[pair + i * 8 + 1][group] = high_half(request.b[i]);
        }
        for (int i = 0; i < 4; ++i) d[group + i / 2 * 8][pair + i % 2] = request.d[i];
    }
    // Four rows at a time, since each sum waits for the one before.
    for (int row = 0; row < 16; row += 4) {
        Eight sums[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[i] = *reinterpret_cast<const Eight*>(d[row + i]);
        for (int k = 0; k < 16; ++k) {
            Eight b_row = *reinterpret_cast<const Eight*>(b[k]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) sums[i] += a[row + i][k] * b_row;
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) *reinterpret_cast<Eight*>(d[row + i]) = sums[i];
    }
    for (int lane = 0; lane < 32; ++lane) {
        int group = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < 4; ++i) lanes[lane]->d[i] = d[group + i / 2 * 8][pair + i % 2];
    }
}

void multiply_anywhere(const MatrixRequest* const lanes[32]) { multiply_inline(lanes); }

__attribute__((target("avx2,fma"))) void multiply_avx2(const MatrixRequest* const lanes[32]) { multiply_inline(lanes); }

}  // namespace

void multiply(const MatrixRequest* const lanes[32]) {
    static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2) {
        multiply_avx2(lanes);
    } else {
        multiply_anywhere(lanes);
    }
}

}  // namespace emulated
