// Goes through the three libraries as the program does: opens them by name, compiles, launches, compares.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

void* driver;
void* compiler;
void* products;
int failures = 0;

template <class... T>
int call(void* library, const char* name, T... arguments) {
    auto function = reinterpret_cast<int (*)(T...)>(dlsym(library, name));
    if (!function) {
        std::fprintf(stderr, "no function %s\n", name);
        std::exit(1);
    }
    return function(arguments...);
}

void expect(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    ++failures;
}

void must(int result, const char* what) {
    if (result == 0) return;
    std::fprintf(stderr, "FAILED: %s gave %d\n", what, result);
    std::exit(1);
}

std::uint16_t bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float wide(std::uint16_t value) {
    std::uint32_t bits = std::uint32_t{value} << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// Device memory.
template <class T>
struct Buffer {
    std::uint64_t address = 0;
    std::size_t count;

    explicit Buffer(std::size_t n) : count(n) { must(call(driver, "cuMemAlloc_v2", &address, n * sizeof(T)), "cuMemAlloc"); }
    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
        must(call(driver, "cuMemcpyHtoDAsync_v2", address, static_cast<const void*>(values.data()), count * sizeof(T),
                  static_cast<void*>(nullptr)), "cuMemcpyHtoDAsync");
    }
    Buffer(const Buffer&) = delete;
    ~Buffer() { must(call(driver, "cuMemFree_v2", address), "cuMemFree"); }
    std::vector<T> values() const {
        std::vector<T> result(count);
        must(call(driver, "cuMemcpyDtoHAsync_v2", static_cast<void*>(result.data()), address, count * sizeof(T),
                  static_cast<void*>(nullptr)), "cuMemcpyDtoHAsync");
        return result;
    }
};

struct Module {
    void* handle = nullptr;

    explicit Module(const char* source, bool as_text = false) {
        const char* header = "#pragma once\n#include \"platform.cuh\"\nconstexpr int HEADER_VALUE = 7;\n";
        const char* headers[] = {header, "#error this platform.cuh is to be replaced"};
        const char* names[] = {"common.cuh", "platform.cuh"};
        const char* options[] = {"--gpu-architecture=sm_90", "--std=c++17", "-DFROM_OPTIONS=3"};
        void* program = nullptr;
        must(call(compiler, "nvrtcCreateProgram", &program, source, "test.cu", 2, static_cast<const char* const*>(headers),
                  static_cast<const char* const*>(names)), "nvrtcCreateProgram");
        int result = call(compiler, "nvrtcCompileProgram", program, 3, static_cast<const char* const*>(options));
        std::size_t bytes = 0;
        call(compiler, "nvrtcGetProgramLogSize", program, &bytes);
        std::string log(bytes, 0);
        call(compiler, "nvrtcGetProgramLog", program, log.data());
        if (result) std::fprintf(stderr, "%s\n", log.c_str());
        must(result, "nvrtcCompileProgram");
        std::string kind = as_text ? "PTX" : "CUBIN";
        must(call(compiler, ("nvrtcGet" + kind + "Size").c_str(), program, &bytes), "the image's size");
        std::vector<char> image(bytes);
        must(call(compiler, ("nvrtcGet" + kind).c_str(), program, image.data()), "the image");
        call(compiler, "nvrtcDestroyProgram", &program);
        must(call(driver, "cuModuleLoadData", &handle, static_cast<const void*>(image.data())), "cuModuleLoadData");
    }
    Module(const Module&) = delete;
    ~Module() { must(call(driver, "cuModuleUnload", handle), "cuModuleUnload"); }

    void* function(const char* name) const {
        void* function = nullptr;
        must(call(driver, "cuModuleGetFunction", &function, handle, name), name);
        return function;
    }

    template <class... T>
    int try_launch(const char* name, unsigned grid, unsigned block, unsigned shared, T... arguments) const {
        void* pointers[] = {&arguments..., nullptr};
        return call(driver, "cuLaunchKernel", function(name), grid, 1u, 1u, block, 1u, 1u, shared,
                    static_cast<void*>(nullptr), static_cast<void**>(pointers), static_cast<void**>(nullptr));
    }
    template <class... T>
    void launch(const char* name, unsigned grid, unsigned block, unsigned shared, T... arguments) const {
        must(try_launch(name, grid, block, shared, arguments...), name);
    }
};

std::vector<float> random_values(std::size_t count, unsigned seed) {
    std::vector<float> values(count);
    for (float& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(seed >> 8) / (1 << 23) - 1.0f;
    }
    return values;
}

std::vector<std::uint16_t> rounded(const std::vector<float>& values) {
    std::vector<std::uint16_t> result;
    for (float value : values) result.push_back(bf16(value));
    return result;
}

bool close(float a, float b, float tolerance = 1e-4f) { return std::fabs(a - b) <= tolerance * (1 + std::fabs(b)); }

// ---- what a GPU computes ----

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
    for (int i = threadIdx.x; i < 4 * n; i += blockDim.x) out[i] = values[4 * n - 1 - i] * (float)(count / (int)blockDim.x);
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
        for (int i = 0; i < 400; ++i) expect(got[i] == in[399 - i], "dynamic shared memory, asynchronous copies, atomics");
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

const char* const MATRICES = R"(
#include "platform.cuh"
// C[16][8] = A[16][K] B[K][8], or B given as its transpose [8][K]. A warp; A and B in shared memory.
extern "C" __global__ void multiply(const bf16* a, const bf16* b, const bf16* b_transposed, float* c, float* c_too, int k) {
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

void matrices() {
    Module module(MATRICES);
    constexpr int K = 64;
    std::vector<std::uint16_t> a = rounded(random_values(16 * K, 4)), b = rounded(random_values(K * 8, 5)), b_transposed(8 * K);
    for (int k = 0; k < K; ++k) {
        for (int n = 0; n < 8; ++n) b_transposed[n * K + k] = b[k * 8 + n];
    }
    Buffer<std::uint16_t> device_a(a), device_b(b), device_bt(b_transposed);
    Buffer<float> c(128), c_too(128);
    module.launch("multiply", 1, 32, 64 * K, device_a.address, device_b.address, device_bt.address, c.address, c_too.address, K);
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

// ---- products ----

template <class T>
void set_attribute(const char* function, void* of, int attribute, T value) {
    must(call(products, function, of, attribute, static_cast<const void*>(&value), sizeof value), function);
}

struct ProductTest {
    int m, n, k, batches;
    bool transpose_a, transpose_b, bf16_in, bf16_out;
    float alpha, beta;
    unsigned epilogue;
    bool bf16_bias;
};

template <class In, class Out, class Bias>
void product(const ProductTest& t, In (*in)(float), float (*from_in)(In), Out (*out)(float), float (*from_out)(Out),
             float (*from_bias)(Bias), Bias (*to_bias)(float)) {
    int a_rows = t.transpose_a ? t.k : t.m, a_columns = t.transpose_a ? t.m : t.k;
    int b_rows = t.transpose_b ? t.n : t.k, b_columns = t.transpose_b ? t.k : t.n;
    int lda = a_rows + 3, ldb = b_rows + 1, ldc = t.m + 2, bias_length = t.epilogue == 512 ? t.n : t.m;
    std::size_t a_step = lda * a_columns, b_step = ldb * b_columns, c_step = ldc * t.n;
    std::vector<In> a, b;
    std::vector<Out> c;
    std::vector<Bias> bias;
    for (float value : random_values(a_step * t.batches, 6)) a.push_back(in(value));
    for (float value : random_values(b_step * t.batches, 7)) b.push_back(in(value));
    for (float value : random_values(c_step * t.batches, 8)) c.push_back(out(t.beta == 0 ? NAN : value));
    for (float value : random_values(bias_length, 9)) bias.push_back(to_bias(value));
    Buffer<In> device_a(a), device_b(b);
    Buffer<Out> device_c(c);
    Buffer<Bias> device_bias(bias);
    Buffer<char> workspace(1 << 16);

    void *handle, *description, *layouts[3], *preference;
    must(call(products, "cublasLtCreate", &handle), "cublasLtCreate");
    must(call(products, "cublasLtMatmulDescCreate", &description, 68, 0), "cublasLtMatmulDescCreate");
    const char* set = "cublasLtMatmulDescSetAttribute";
    set_attribute<std::int32_t>(set, description, 3, t.transpose_a);
    set_attribute<std::int32_t>(set, description, 4, t.transpose_b);
    set_attribute<std::uint32_t>(set, description, 7, t.epilogue);
    if (t.epilogue != 1) {
        set_attribute<std::uint64_t>(set, description, 8, device_bias.address);
        set_attribute<std::int32_t>(set, description, 26, t.bf16_bias ? 14 : 0);
    }
    int in_type = t.bf16_in ? 14 : 0, out_type = t.bf16_out ? 14 : 0;
    std::uint64_t rows[] = {std::uint64_t(a_rows), std::uint64_t(b_rows), std::uint64_t(t.m)};
    std::uint64_t columns[] = {std::uint64_t(a_columns), std::uint64_t(b_columns), std::uint64_t(t.n)};
    std::int64_t lds[] = {lda, ldb, ldc}, steps[] = {std::int64_t(a_step), std::int64_t(b_step), std::int64_t(c_step)};
    for (int i = 0; i < 3; ++i) {
        must(call(products, "cublasLtMatrixLayoutCreate", &layouts[i], i == 2 ? out_type : in_type, rows[i], columns[i], lds[i]),
             "cublasLtMatrixLayoutCreate");
        set_attribute<std::int32_t>("cublasLtMatrixLayoutSetAttribute", layouts[i], 5, t.batches);
        set_attribute<std::int64_t>("cublasLtMatrixLayoutSetAttribute", layouts[i], 6, steps[i]);
    }
    must(call(products, "cublasLtMatmulPreferenceCreate", &preference), "cublasLtMatmulPreferenceCreate");
    set_attribute<std::uint64_t>("cublasLtMatmulPreferenceSetAttribute", preference, 1, 1 << 16);
    char result[64 + 8 + 4 + 4 + 16];
    int found = 0;
    must(call(products, "cublasLtMatmulAlgoGetHeuristic", handle, description, layouts[0], layouts[1], layouts[2],
              layouts[2], preference, 1, static_cast<void*>(result), &found), "cublasLtMatmulAlgoGetHeuristic");
    expect(found == 1, "the heuristic finds an algorithm");
    must(call(products, "cublasLtMatmul", handle, description, &t.alpha, device_a.address, layouts[0], device_b.address,
              layouts[1], &t.beta, device_c.address, layouts[2], device_c.address, layouts[2],
              static_cast<const void*>(result), workspace.address, std::size_t{1 << 16}, static_cast<void*>(nullptr)),
         "cublasLtMatmul");
    for (void* layout : layouts) call(products, "cublasLtMatrixLayoutDestroy", layout);
    call(products, "cublasLtMatmulPreferenceDestroy", preference);
    call(products, "cublasLtMatmulDescDestroy", description);
    call(products, "cublasLtDestroy", handle);

    auto op_a = [&](int batch, int i, int k) {
        return from_in(a[batch * a_step + (t.transpose_a ? i * lda + k : k * lda + i)]);
    };
    auto op_b = [&](int batch, int k, int j) {
        return from_in(b[batch * b_step + (t.transpose_b ? k * ldb + j : j * ldb + k)]);
    };
    std::vector<Out> got = device_c.values();
    std::vector<Bias> got_bias = device_bias.values();
    char text[160];
    std::snprintf(text, sizeof text, "product %d %d %d x%d, transposed %d %d, bf16 %d %d, alpha %g beta %g, epilogue %u", t.m,
                  t.n, t.k, t.batches, t.transpose_a, t.transpose_b, t.bf16_in, t.bf16_out, t.alpha, t.beta, t.epilogue);
    bool good = true;
    for (int batch = 0; batch < t.batches; ++batch) {
        for (int j = 0; j < t.n; ++j) {
            for (int i = 0; i < t.m; ++i) {
                double sum = 0;
                for (int k = 0; k < t.k; ++k) sum += static_cast<double>(op_a(batch, i, k)) * op_b(batch, k, j);
                sum *= t.alpha;
                std::size_t at = batch * c_step + j * ldc + i;
                if (t.beta != 0) sum += t.beta * from_out(c[at]);
                if (t.epilogue == 4) sum += from_bias(bias[i]);
                good = good && close(from_out(got[at]), static_cast<float>(sum), t.bf16_out ? 5e-3f : 1e-4f);
            }
        }
    }
    if (t.epilogue >= 256) {
        for (int i = 0; i < bias_length; ++i) {
            double sum = 0;
            for (int k = 0; k < t.k; ++k) sum += t.epilogue == 256 ? op_a(0, i, k) : op_b(0, k, i);
            good = good && close(from_bias(got_bias[i]), static_cast<float>(sum), t.bf16_bias ? 5e-3f : 1e-4f);
        }
    }
    expect(good, text);
}

float same(float x) { return x; }

void product(const ProductTest& t) {
    auto with_bias = [&](auto in, auto from_in, auto out, auto from_out) {
        if (t.bf16_bias) {
            product(t, in, from_in, out, from_out, &wide, &bf16);
        } else {
            product(t, in, from_in, out, from_out, &same, &same);
        }
    };
    if (!t.bf16_in) {
        with_bias(&same, &same, &same, &same);
    } else if (t.bf16_out) {
        with_bias(&bf16, &wide, &bf16, &wide);
    } else {
        with_bias(&bf16, &wide, &same, &same);
    }
}

void all_products() {
    for (int variant = 0; variant < 4; ++variant) {
        bool transpose_a = variant & 1, transpose_b = variant & 2;
        for (unsigned epilogue : {1u, 4u, 256u, 512u}) {
            product({37, 29, 53, 1, transpose_a, transpose_b, true, false, 1, 0, epilogue, false});
            product({17, 70, 300, 1, transpose_a, transpose_b, true, true, 0.5f, 1, epilogue, true});
            product({64, 6, 8, 1, transpose_a, transpose_b, false, false, 1, 1, epilogue, false});
        }
        product({20, 30, 40, 3, transpose_a, transpose_b, true, true, 1, 0, 1, false});
        product({5, 7, 9, 4, transpose_a, transpose_b, false, false, 2, 1, 4, false});
        product({300, 401, 270, 1, transpose_a, transpose_b, true, false, 1, 1, 1, false});
    }
}

// ---- what a GPU refuses ----

void refusals() {
    Module module(BASICS);
    Buffer<float> in(400), out(400);
    std::uint64_t address = in.address, to = out.address;
    expect(module.try_launch("reversed", 1, 64, 48 << 10, address, to, 100) == 1,
           "48 KiB of dynamic beside static shared memory are refused unless asked for");
    void* function = module.function("reversed");
    expect(call(driver, "cuFuncSetAttribute", function, 8, 228 << 10) == 1, "more than 227 KiB can not be asked for");
    must(call(driver, "cuFuncSetAttribute", function, 8, 100 << 10), "cuFuncSetAttribute");
    expect(module.try_launch("reversed", 1, 64, 48 << 10, address, to, 100) == 0, "what was asked for is given");
    expect(module.try_launch("reversed", 1, 2048, 0, address, to, 100) == 1, "2048 threads are refused");
    expect(module.try_launch("reversed", 0, 32, 0, address, to, 100) == 1, "an empty grid is refused");
    std::uint64_t huge = 0;
    expect(call(driver, "cuMemAlloc_v2", &huge, std::size_t{1} << 40) == 2, "memory is limited");
    expect(call(driver, "cuMemcpyHtoDAsync_v2", to, static_cast<const void*>(&huge), std::size_t{4000},
                static_cast<void*>(nullptr)) == 1, "a copy beyond an allocation is refused");
    void* missing;
    expect(call(driver, "cuModuleGetFunction", &missing, module.handle, "missing") == 500, "a missing kernel is not found");
    void* stranger;
    expect(call(driver, "cuModuleLoadData", &stranger, static_cast<const void*>("something that is no image")) == 200,
           "other images are refused");

    void* program = nullptr;
    must(call(compiler, "nvrtcCreateProgram", &program, "extern \"C\" __global__ void f() { undeclared(); }", "bad.cu", 0,
              static_cast<const char* const*>(nullptr), static_cast<const char* const*>(nullptr)), "nvrtcCreateProgram");
    expect(call(compiler, "nvrtcCompileProgram", program, 0, static_cast<const char* const*>(nullptr)) == 6,
           "a wrong program is not compiled");
    std::size_t bytes = 0;
    call(compiler, "nvrtcGetProgramLogSize", program, &bytes);
    std::string log(bytes, 0);
    call(compiler, "nvrtcGetProgramLog", program, log.data());
    expect(log.find("bad.cu:1") != std::string::npos && log.find("undeclared") != std::string::npos, "the log says where");
    call(compiler, "nvrtcDestroyProgram", &program);
}

void events() {
    void *stream, *start, *end;
    must(call(driver, "cuStreamCreate", &stream, 1u), "cuStreamCreate");
    must(call(driver, "cuEventCreate", &start, 0u), "cuEventCreate");
    must(call(driver, "cuEventCreate", &end, 0u), "cuEventCreate");
    must(call(driver, "cuEventRecord", start, stream), "cuEventRecord");
    usleep(20000);
    must(call(driver, "cuEventRecord", end, stream), "cuEventRecord");
    must(call(driver, "cuStreamWaitEvent", stream, end, 0u), "cuStreamWaitEvent");
    float milliseconds = 0;
    must(call(driver, "cuEventElapsedTime", &milliseconds, start, end), "cuEventElapsedTime");
    expect(milliseconds >= 20 && milliseconds < 5000, "elapsed time");
    call(driver, "cuEventDestroy_v2", start);
    call(driver, "cuEventDestroy_v2", end);
    must(call(driver, "cuStreamDestroy_v2", stream), "cuStreamDestroy");
    expect(call(driver, "cuStreamSynchronize", stream) == 400, "a dead stream is recognised");
}

void pitched_copies() {
    std::vector<float> host = random_values(5 * 8, 10), back(5 * 3, 0.0f);
    Buffer<float> device(5 * 8);
    struct {
        std::size_t x = 0, y = 0;
        unsigned type = 1;
        void* host = nullptr;
        std::uint64_t device = 0;
        void* array = nullptr;
        std::size_t pitch = 0;
    } from, to;
    struct {
        decltype(from) source;
        decltype(to) target;
        std::size_t width, height;
    } copy = {from, to, 32, 5};
    copy.source.host = host.data();
    copy.source.pitch = 32;
    copy.target.type = 2;
    copy.target.device = device.address;
    copy.target.pitch = 32;
    must(call(driver, "cuMemcpy2DAsync_v2", static_cast<const void*>(&copy), static_cast<void*>(nullptr)), "cuMemcpy2DAsync");
    copy.source.type = 2;
    copy.source.device = device.address;
    copy.source.x = 8;
    copy.target.type = 1;
    copy.target.host = back.data();
    copy.target.pitch = 12;
    copy.width = 12;
    must(call(driver, "cuMemcpy2DAsync_v2", static_cast<const void*>(&copy), static_cast<void*>(nullptr)), "cuMemcpy2DAsync");
    for (int i = 0; i < 5; ++i) {
        for (int j = 0; j < 3; ++j) expect(back[i * 3 + j] == host[i * 8 + 2 + j], "cuMemcpy2DAsync");
    }
    must(call(driver, "cuMemsetD32Async", device.address, 0x3F800000u, std::size_t{40}, static_cast<void*>(nullptr)), "cuMemsetD32Async");
    for (float value : device.values()) expect(value == 1.0f, "cuMemsetD32Async");
}

// ---- what ends the process: each in one of its own ----

const char* const WRONG = R"(
#include "platform.cuh"
extern "C" __global__ void behind(float* out, int n) { out[n + threadIdx.x] = 1; }
extern "C" __global__ void different_operations() {
    if (threadIdx.x < 16) __shfl_sync(~0u, 1, 0); else __ballot_sync(~0u, 1);
}
extern "C" __global__ void never() {
    if (threadIdx.x < 16) __syncwarp(); else __syncthreads();
}
extern "C" __global__ void different_barriers() {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void behind_shared(int n) { DYNAMIC_SHARED(float, values); values[n] = 1; }
extern "C" __global__ void misaligned(float4* out) { *out = make_float4(1, 2, 3, 4); }
extern "C" __global__ void outside_array(float* out, int n) {
    __shared__ float values[4][8];
    values[0][threadIdx.x % 8] = 0;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x == 31 ? n : 0][0];
}
extern "C" __global__ void no_memory(u64 address) { *(volatile float*)address = 1; }
__device__ __noinline__ float far_down(float* out, int n) {
    float values[32];
    for (int i = 0; i < 32; ++i) values[i] = out[i] + n;
    float rest = n > 0 ? far_down(values, n - 1) : 0.0f;
    for (int i = 0; i < 32; ++i) out[i] = values[31 - i];
    return rest + values[n % 32];
}
extern "C" __global__ void deep(float* out, int n) { out[0] = far_down(out, n); }
extern "C" __global__ void missing_barrier(float* out) {
    __shared__ float values[64];
    values[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = values[63 - threadIdx.x];
}
extern "C" __global__ void missing_wait(const float* in, float* out) {
    __shared__ __align__(16) float values[4];
    cp_async_16(values, in, true);
    cp_async_commit();
    out[0] = values[0];
}
)";

void wrong(const std::string& which) {
    Module module(WRONG);
    Buffer<float> out(64);
    std::uint64_t address = out.address;
    if (which == "behind") module.launch("behind", 1, 32, 0, address, 64);
    if (which == "different_operations") module.launch("different_operations", 1, 32, 0);
    if (which == "never") module.launch("never", 1, 32, 0);
    if (which == "different_barriers") module.launch("different_barriers", 1, 64, 0);
    if (which == "behind_shared") module.launch("behind_shared", 1, 32, 64, 16);
    if (which == "misaligned") module.launch("misaligned", 1, 1, 0, address + 8);
    if (which == "outside_array") module.launch("outside_array", 1, 32, 0, address, 31);
    if (which == "no_memory") module.launch("no_memory", 4, 32, 0, std::uint64_t{64});
    if (which == "deep") module.launch("deep", 4, 32, 0, address, 5000);
    if (which == "host_pointer") module.launch("behind", 1, 32, 0, static_cast<void*>(&address), 0);
}

// With EMULATED_GPU_DELAY=1: pinned memory is read when the copy is done, pageable memory when it is asked for.
void delays() {
    Buffer<float> device(4);
    void* pinned;
    must(call(driver, "cuMemHostAlloc", &pinned, std::size_t{16}, 0u), "cuMemHostAlloc");
    float* values = static_cast<float*>(pinned);
    values[0] = 1;
    void* event;
    must(call(driver, "cuEventCreate", &event, 2u), "cuEventCreate");
    call(driver, "cuMemcpyHtoDAsync_v2", device.address, static_cast<const void*>(pinned), std::size_t{4}, static_cast<void*>(nullptr));
    must(call(driver, "cuEventRecord", event, static_cast<void*>(nullptr)), "cuEventRecord");
    values[0] = 2;
    float pageable = 3;
    call(driver, "cuMemcpyHtoDAsync_v2", device.address + 4, static_cast<const void*>(&pageable), std::size_t{4}, static_cast<void*>(nullptr));
    pageable = 4;
    expect(call(driver, "cuEventQuery", event) == 600, "an event that is queued is not ready");
    expect(call(driver, "cuEventQuery", event) == 0, "and then it is");
    std::vector<float> got = device.values();
    expect(got[0] == 2 && got[1] == 3, "late copies");
    call(driver, "cuEventDestroy_v2", event);
    must(call(driver, "cuMemFreeHost", pinned), "cuMemFreeHost");
    basics();
    all_products();
}

void races() {
    Module module(WRONG);
    Buffer<float> in(4), out(64);
    module.launch("missing_barrier", 1, 64, 0, out.address);
    bool seen = false;
    for (float value : out.values()) seen = seen || std::isnan(value);
    expect(seen, "a missing barrier shows as NaN");
    must(call(driver, "cuMemsetD32Async", in.address, 0u, std::size_t{4}, static_cast<void*>(nullptr)), "cuMemsetD32Async");
    module.launch("missing_wait", 1, 1, 0, in.address, out.address);
    expect(std::isnan(out.values()[0]), "a missing wait for an asynchronous copy shows as NaN");
}

// The text of the failure, or empty if there was none.
std::string output_of(const std::string& command) {
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    std::string text;
    char line[512];
    while (std::fgets(line, sizeof line, pipe)) text += line;
    return pclose(pipe) == 0 ? "" : text;
}

void* open_library(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        std::fprintf(stderr, "%s\n", dlerror());
        std::exit(1);
    }
    return library;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2) return 2;
    std::string folder = arguments[1];
    driver = open_library(folder + "/libcuda.so");
    compiler = open_library(folder + "/libnvrtc.so");
    products = open_library(folder + "/libcublasLt.so");
    int device = -1, major = 0;
    void* context = nullptr;
    std::uint64_t address = 0;
    expect(call(driver, "cuDeviceGet", &device, 0) == 3, "cuInit comes first");
    must(call(driver, "cuInit", 0u), "cuInit");
    must(call(driver, "cuDeviceGet", &device, 0), "cuDeviceGet");
    must(call(driver, "cuDeviceGetAttribute", &major, 75, device), "cuDeviceGetAttribute");
    expect(major == 9, "compute capability 9");
    must(call(driver, "cuDevicePrimaryCtxRetain", &context, device), "cuDevicePrimaryCtxRetain");
    expect(call(driver, "cuMemAlloc_v2", &address, std::size_t{16}) == 201, "nothing goes without a current context");
    must(call(driver, "cuCtxSetCurrent", context), "cuCtxSetCurrent");

    if (count > 2) {
        if (std::string(arguments[2]) == "delays") {
            delays();
        } else {
            wrong(arguments[2]);
        }
        return failures == 0 ? 0 : 1;
    }
    basics();
    matrices();
    all_products();
    refusals();
    events();
    pitched_copies();
    races();
    struct {
        const char *name, *message;
    } cases[] = {
        {"behind", "written 0 bytes behind"},
        {"different_operations", "different operations"},
        {"never", "deadlock"},
        {"different_barriers", "different __syncthreads"},
        {"behind_shared", "dynamic shared memory"},
        {"host_pointer", "no memory of the device"},
        {"misaligned", "not aligned as its type"},
        {"outside_array", "outside its array"},
        {"no_memory", "which is no memory"},
        {"deep", "stack do not suffice"},
    };
    for (const auto& one : cases) {
        std::string text = output_of("EMULATED_GPU_CHECK=1 " + std::string(arguments[0]) + " " + folder + " " + one.name);
        expect(text.find(one.message) != std::string::npos, std::string(one.name) + " ends with a message, got: " + text);
    }
    std::string text = output_of("EMULATED_GPU_DELAY=1 " + std::string(arguments[0]) + " " + folder + " delays");
    expect(text.empty(), "delayed work: " + text);
    std::size_t free = 0, total = 0;
    must(call(driver, "cuMemGetInfo_v2", &free, &total), "cuMemGetInfo");
    expect(free == total, "all memory was given back");
    if (failures == 0) std::printf("the emulated GPU passes its tests\n");
    return failures == 0 ? 0 : 1;
}
