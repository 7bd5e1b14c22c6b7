// Dropout alone. A block takes a row.
#include "random.cuh"

constexpr int THREADS = 128;

#define DROPOUT(T, kind)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) dropout_##kind(                                        \
        const T* x, const u32* owners, const u32* begins, const u32* ids, u32 seed_low, u32 seed_high, u32 step, \
        u32 name, u32 threshold, float kept, T* out, int columns) {                                              \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                            \
        const u32 row = blockIdx.x, sequence = owners[row];                                                      \
        const Stream stream = stream_of(dropout.site, ids[sequence], 0, 0);                                      \
        const u32 first = (row - begins[sequence]) * ((columns + 3) / 4);                                        \
        for (int c = 4 * threadIdx.x; c < columns; c += 4 * THREADS) {                                           \
            float mask[4];                                                                                       \
            mask4(dropout, stream, first + c / 4, mask);                                                         \
            const size_t at = size_t(row) * columns + c;                                                         \
            if (columns % 4 == 0) {                                                                              \
                float v[4];                                                                                      \
                load4(x + at, v);                                                                                \
                for (int i = 0; i < 4; i++) v[i] *= mask[i];                                                     \
                store4(out + at, v);                                                                             \
            } else {                                                                                             \
                for (int i = 0; i < 4 && c + i < columns; i++)                                                   \
                    out[at + i] = from_float<T>(to_float(x[at + i]) * mask[i]);                                  \
            }                                                                                                    \
        }                                                                                                        \
    }
DROPOUT(float, f32)
DROPOUT(bf16, bf16)
