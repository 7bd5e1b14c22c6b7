// The warp's matrix instructions, done for all 32 lanes at once.
#pragma once

namespace emulated {

// What a lane hands to ldmatrix (registers, row) or to mma (d, a, b).
struct MatrixRequest {
    unsigned* registers;
    const void* row;
    float* d;
    const unsigned *a, *b;
};

// ldmatrix.sync.aligned.m8n8.x4[.trans].shared.b16
void load(const MatrixRequest* const lanes[32], bool transposed);

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 with d also as the accumulator
void multiply(const MatrixRequest* const lanes[32]);

}  // namespace emulated
