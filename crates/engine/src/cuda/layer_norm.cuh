// Layer norm over rows, alone and of a residual sum: what its kernels share. A warp takes a row; rows of some widths stay in
// its registers, others are read again.
#pragma once
#include "random.cuh"

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
