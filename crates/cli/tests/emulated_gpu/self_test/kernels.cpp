// What kernels compute.
#include <chrono>

#include "harness.h"

namespace {

const char* const BASICS = R"(
#include "common.cuh"

struct Options { int scale; float shift; };

template <class T, int N>
__device__ __forceinline__ T sum_of_block(T value) {
    __shared__ T parts[N / 32];
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < N / 32; ++i) sum += parts[i];
    __syncthreads();
    return sum;
}

template <class T>
__device__ void sums(const T* __restrict__ in, T* out, int n, Options options) {
    T value = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) value += in[blockIdx.x * n + i];
    value = sum_of_block<T, 256>(value);
    if (threadIdx.x == 0) out[blockIdx.x] = value * options.scale + (T)options.shift;
}
#define SUMS(T) \
    extern "C" __global__ void __launch_bounds__(256, 2) sums_##T(const T* in, T* out, int n, Options options) { \
        sums<T>(in, out, n, options); \
    }
SUMS(float)
SUMS(double)

extern "C" __global__ __launch_bounds__(128) void warps(unsigned* out) {
    unsigned t = threadIdx.x, lane = t % 32;
    out[t * 8] = __shfl_up_sync(~0u, t, 3);
    out[t * 8 + 1] = __shfl_down_sync(~0u, t, 5, 16);
    out[t * 8 + 2] = __shfl_sync(~0u, t, lane / 8, 8);
    out[t * 8 + 3] = __ballot_sync(~0u, lane % 3 == 0);
    unsigned half = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
    out[t * 8 + 4] = lane < 16 ? __shfl_xor_sync(half, t, 1) : __shfl_xor_sync(half, t, 2);
    out[t * 8 + 5] = __syncthreads_count(t % 5 == 0);
    if (t % 2 == 1) return;
    __syncthreads();
    out[t * 8 + 6] = __ballot_sync(0x55555555u, 1);
    __syncwarp(0x55555555u);
    out[t * 8 + 7] = HEADER_VALUE * FROM_OPTIONS;
}

extern "C" {
__global__ void reversed(const float* in, float* out, int n) {
    DYNAMIC_SHARED(float, values);
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) cp_async_16(values + 4 * i, in + 4 * i, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    atomicAdd(&count, 1);
    __syncthreads();
    float one = count / (int)blockDim.x;
    for (int i = threadIdx.x; i < 4 * n; i += blockDim.x) out[i] = values[4 * n - 1 - i] * one;
}
}

extern "C" __global__ void unwritten(unsigned* out) {
    DYNAMIC_SHARED(unsigned, dynamic);
    __shared__ unsigned fixed[32];
    out[threadIdx.x] = dynamic[threadIdx.x] & fixed[threadIdx.x];
    __syncthreads();
    dynamic[threadIdx.x] = fixed[threadIdx.x] = 0;
}

extern "C" __global__ void conversions(const float* in, u16* out, u32* pairs, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        out[i] = to_bf16(in[i]).bits;
        pairs[i] = pack_bf16(in[i], to_float(to_bf16(in[n - 1 - i])));
    }
}

extern "C" __global__ void many_barriers(float* out, int rounds) {
    __shared__ float values[256];
    int t = threadIdx.x;
    values[t] = t;
    __syncthreads();
    for (int i = 0; i < rounds; ++i) {
        float next = values[(t + 1) % 256];
        __syncthreads();
        values[t] = __shfl_xor_sync(~0u, next, 1) + 1;
        __syncthreads();
    }
    out[t] = values[t];
}
)";

}  // namespace

void basics() {
    Module module(BASICS);
    {
        std::vector<float> in = random_values(10 * 1000, 1);
        std::vector<double> in_double(in.begin(), in.end());
        Buffer<float> device_in(in), out(10);
        Buffer<double> device_in_double(in_double), out_double(10);
        struct {
            int scale = 2;
            float shift = 0.5f;
        } options;
        module.launch("sums_float", 10, 256, 0, device_in.address, out.address, 1000, options);
        module.launch("sums_double", 10, 256, 0, device_in_double.address, out_double.address, 1000, options);
        for (int block = 0; block < 10; ++block) {
            double sum = 0;
            for (int i = 0; i < 1000; ++i) sum += in_double[block * 1000 + i];
            expect(close(out.values()[block], static_cast<float>(2 * sum + 0.5)), "sums_float");
            expect(std::fabs(out_double.values()[block] - (2 * sum + 0.5)) < 1e-9, "sums_double");
        }
        expect(module.try_launch("sums_float", 1, 512, 0, device_in.address, out.address, 1000, options) == 1,
               "more threads than __launch_bounds__ says are refused");
    }
    {
        Buffer<unsigned> out(128 * 8);
        module.launch("warps", 1, 128, 0, out.address);
        std::vector<unsigned> got = out.values();
        for (unsigned t = 0; t < 128; ++t) {
            unsigned lane = t % 32;
            expect(got[t * 8] == (lane >= 3 ? t - 3 : t), "__shfl_up_sync");
            expect(got[t * 8 + 1] == (lane % 16 + 5 < 16 ? t + 5 : t), "__shfl_down_sync of a width of 16");
            expect(got[t * 8 + 2] == t / 8 * 8 + lane / 8, "__shfl_sync of a width of 8");
            expect(got[t * 8 + 3] == 0x49249249u, "__ballot_sync");
            expect(got[t * 8 + 4] == (t ^ (lane < 16 ? 1 : 2)), "__shfl_xor_sync of half a warp");
            expect(got[t * 8 + 5] == 26, "__syncthreads_count");
            if (t % 2) continue;
            expect(got[t * 8 + 6] == 0x55555555u, "a ballot of lanes that others have left");
            expect(got[t * 8 + 7] == 21, "headers and macros");
        }
    }
    {
        std::vector<float> in = random_values(400, 2);
        Buffer<float> device_in(in), out(400);
        module.launch("reversed", 1, 64, 1600, device_in.address, out.address, 100);
        std::vector<float> got = out.values();
        for (int i = 0; i < 400; ++i)
            expect(got[i] == in[399 - i], "dynamic shared memory, asynchronous copies, atomics");
    }
    {
        Buffer<unsigned> out(32);
        module.launch("unwritten", 8, 32, 128, out.address);
        for (unsigned bits : out.values()) expect(bits == ~0u, "shared memory is fresh for each block");
    }
    {
        std::vector<float> in = random_values(1000, 3);
        in[0] = NAN, in[1] = INFINITY, in[2] = 1.00390625f, in[3] = 1.01171875f, in[4] = 3.4e38f;
        Buffer<float> device_in(in);
        Buffer<std::uint16_t> out(1000);
        Buffer<unsigned> pairs(1000);
        module.launch("conversions", 8, 128, 0, device_in.address, out.address, pairs.address, 1000);
        std::vector<std::uint16_t> got = out.values();
        std::vector<unsigned> got_pairs = pairs.values();
        expect(got[0] == 0x7FFF && got[1] == 0x7F80 && got[2] == 0x3F80 && got[3] == 0x3F82 && got[4] == 0x7F80,
               "bf16 rounds to nearest even");
        for (int i = 5; i < 995; ++i) {
            expect(got[i] == bf16(in[i]), "to_bf16");
            expect(got_pairs[i] == (bf16(in[i]) | unsigned{bf16(in[999 - i])} << 16), "pack_bf16");
        }
    }
    {
        Buffer<float> out(256);
        module.launch("many_barriers", 1, 256, 0, out.address, 1);
        auto start = std::chrono::steady_clock::now();
        module.launch("many_barriers", 1, 256, 0, out.address, 1000);
        double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        std::printf("256 threads, 2000 barriers and 1000 shuffles: %.1f ms\n", seconds * 1e3);
        // Each round moves a value by a thread and swaps it with its neighbour's.
        std::vector<float> values(256), next(256);
        for (int t = 0; t < 256; ++t) values[t] = static_cast<float>(t);
        for (int i = 0; i < 1000; ++i) {
            for (int t = 0; t < 256; ++t) next[t] = values[((t ^ 1) + 1) % 256] + 1;
            values = next;
        }
        expect(out.values() == values, "many barriers");
    }
    Module as_text(BASICS, true);
    Buffer<unsigned> out(32);
    as_text.launch("unwritten", 1, 32, 128, out.address);
}

namespace {

const char* const MATRICES = R"(
#include "platform.cuh"
// C[16][8] = A[16][K] B[K][8], or B given as its transpose [8][K]. A warp; A and B in shared memory.
extern "C" __global__ void multiply(
    const bf16* a, const bf16* b, const bf16* b_transposed, float* c, float* c_too, int k) {
    DYNAMIC_SHARED(bf16, shared);
    bf16 *a_rows = shared, *b_rows = a_rows + 16 * k, *b_columns = b_rows + 8 * k;
    int lane = threadIdx.x;
    for (int i = lane; i < 16 * k; i += 32) a_rows[i] = a[i];
    for (int i = lane; i < 8 * k; i += 32) { b_rows[i] = b[i]; b_columns[i] = b_transposed[i]; }
    __syncwarp();
    float d[4] = {0, 0, 0, 0}, d_too[4] = {0, 0, 0, 0};
    for (int step = 0; step < k; step += 32) {
        u32 a_low[4], a_high[4], b_all[4], b_all_too[4];
        ldmatrix_x4(a_low, a_rows + (lane % 16) * k + step + lane / 16 * 8);
        ldmatrix_x4(a_high, a_rows + (lane % 16) * k + step + 16 + lane / 16 * 8);
        ldmatrix_x4_trans(b_all, b_rows + (step + lane) * 8);
        ldmatrix_x4(b_all_too, b_columns + lane % 8 * k + step + lane / 8 * 8);
        u32 b_low[2] = {b_all[0], b_all[1]}, b_high[2] = {b_all[2], b_all[3]};
        mma_bf16(d, a_low, b_low);
        mma_bf16(d, a_high, b_high);
        u32 too_low[2] = {b_all_too[0], b_all_too[1]}, too_high[2] = {b_all_too[2], b_all_too[3]};
        mma_bf16(d_too, a_low, too_low);
        mma_bf16(d_too, a_high, too_high);
    }
    for (int i = 0; i < 4; ++i) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        c[row * 8 + column] = d[i];
        c_too[row * 8 + column] = d_too[i];
    }
}

// The fragments straight from memory, by the tables in PTX's manual.
extern "C" __global__ void multiply_by_the_manual(const u16* a, const u16* b, float* c) {
    int lane = threadIdx.x, group = lane >> 2, in_group = lane % 4;
    u16 a_parts[8], b_parts[4];
    for (int i = 0; i < 8; ++i) {
        int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
        a_parts[i] = a[row * 16 + column];
    }
    for (int i = 0; i < 4; ++i) {
        int row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        b_parts[i] = b[row * 8 + group];
    }
    u32 ra[4], rb[2];
    for (int i = 0; i < 4; ++i) ra[i] = a_parts[2 * i] | (u32)a_parts[2 * i + 1] << 16;
    for (int i = 0; i < 2; ++i) rb[i] = b_parts[2 * i] | (u32)b_parts[2 * i + 1] << 16;
    float d[4];
    for (int i = 0; i < 4; ++i) d[i] = 1;
    mma_bf16(d, ra, rb);
    for (int i = 0; i < 4; ++i) {
        int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
        c[row * 8 + column] = d[i];
    }
}
)";

}  // namespace

void matrices() {
    Module module(MATRICES);
    constexpr int K = 64;
    std::vector<std::uint16_t> a = rounded(random_values(16 * K, 4)), b = rounded(random_values(K * 8, 5)),
                               b_transposed(8 * K);
    for (int k = 0; k < K; ++k) {
        for (int n = 0; n < 8; ++n) b_transposed[n * K + k] = b[k * 8 + n];
    }
    Buffer<std::uint16_t> device_a(a), device_b(b), device_bt(b_transposed);
    Buffer<float> c(128), c_too(128);
    module.launch("multiply", 1, 32, 64 * K, device_a.address, device_b.address, device_bt.address, c.address,
                  c_too.address, K);
    std::vector<float> got = c.values(), got_too = c_too.values();
    for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
            double sum = 0;
            for (int k = 0; k < K; ++k) sum += static_cast<double>(wide(a[m * K + k])) * wide(b[k * 8 + n]);
            expect(close(got[m * 8 + n], static_cast<float>(sum)), "mma after ldmatrix.trans");
            expect(close(got_too[m * 8 + n], static_cast<float>(sum)), "mma after ldmatrix");
        }
    }
    module.launch("multiply_by_the_manual", 1, 32, 0, device_a.address, device_b.address, c.address);
    got = c.values();
    for (int m = 0; m < 16; ++m) {
        for (int n = 0; n < 8; ++n) {
            double sum = 1;
            for (int k = 0; k < 16; ++k) sum += static_cast<double>(wide(a[m * 16 + k])) * wide(b[k * 8 + n]);
            expect(close(got[m * 8 + n], static_cast<float>(sum)), "mma by the manual's tables");
        }
    }
}
