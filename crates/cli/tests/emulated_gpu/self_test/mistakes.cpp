// What ends the process, each case in a process of its own, and what shows as NaN.
#include "harness.h"

namespace {

const char* const WRONG = R"(
#include "platform.cuh"
extern "C" __global__ void in_front(float* out) { out[-1] = 1; }
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

}  // namespace

void wrong(const std::string& which) {
    Module module(WRONG);
    Buffer<float> out(64);
    std::uint64_t address = out.address;
    if (which == "in_front") module.launch("in_front", 1, 1, 0, address);
    if (which == "far_behind") module.launch("behind", 1, 1, 0, address, 64 + 1024);
    if (which == "freed") {
        must(call(driver, "cuMemFree_v2", address), "cuMemFree");
        module.launch("behind", 1, 1, 0, address, 0);
    }
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

void races() {
    Module module(WRONG);
    Buffer<float> in(4), out(64);
    module.launch("missing_barrier", 1, 64, 0, out.address);
    bool seen = false;
    for (float value : out.values()) seen = seen || std::isnan(value);
    expect(seen, "a missing barrier shows as NaN");
    must(call(driver, "cuMemsetD32Async", in.address, 0u, std::size_t{4}, static_cast<void*>(nullptr)),
         "cuMemsetD32Async");
    module.launch("missing_wait", 1, 1, 0, in.address, out.address);
    expect(std::isnan(out.values()[0]), "a missing wait for an asynchronous copy shows as NaN");
}
