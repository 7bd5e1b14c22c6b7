// What the driver and the compiler do and refuse beside computing.
#include <unistd.h>

#include "harness.h"

namespace {

const char* const COPY = R"(
#include "platform.cuh"
extern "C" __global__ __launch_bounds__(64) void through_shared(const float* in, float* out, int n) {
    DYNAMIC_SHARED(float, values);
    __shared__ float one;
    if (threadIdx.x == 0) one = 1;
    for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] = in[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = values[i] * one;
}
)";

}  // namespace

void refusals() {
    Module module(COPY);
    Buffer<float> in(400), out(400);
    std::uint64_t address = in.address, to = out.address;
    expect(module.try_launch("through_shared", 1, 64, 48 << 10, address, to, 100) == 1,
           "48 KiB of dynamic beside static shared memory are refused unless asked for");
    void* function = module.function("through_shared");
    expect(call(driver, "cuFuncSetAttribute", function, 8, 228 << 10) == 1, "more than 227 KiB can not be asked for");
    must(call(driver, "cuFuncSetAttribute", function, 8, 100 << 10), "cuFuncSetAttribute");
    expect(module.try_launch("through_shared", 1, 64, 48 << 10, address, to, 100) == 0, "what was asked for is given");
    expect(module.try_launch("through_shared", 1, 2048, 0, address, to, 100) == 1, "2048 threads are refused");
    expect(module.try_launch("through_shared", 0, 32, 0, address, to, 100) == 1, "an empty grid is refused");
    std::uint64_t huge = 0;
    expect(call(driver, "cuMemAlloc_v2", &huge, std::size_t{1} << 40) == 2, "memory is limited");
    expect(call(driver, "cuMemcpyHtoDAsync_v2", to, static_cast<const void*>(&huge), std::size_t{4000},
                static_cast<void*>(nullptr)) == 1,
           "a copy beyond an allocation is refused");
    void* missing;
    expect(call(driver, "cuModuleGetFunction", &missing, module.handle, "missing") == 500,
           "a missing kernel is not found");
    void* stranger;
    expect(call(driver, "cuModuleLoadData", &stranger, static_cast<const void*>("something that is no image")) == 200,
           "other images are refused");

    void* program = nullptr;
    must(call(compiler, "nvrtcCreateProgram", &program, "extern \"C\" __global__ void f() { undeclared(); }", "bad.cu",
              0, static_cast<const char* const*>(nullptr), static_cast<const char* const*>(nullptr)),
         "nvrtcCreateProgram");
    expect(call(compiler, "nvrtcCompileProgram", program, 0, static_cast<const char* const*>(nullptr)) == 6,
           "a wrong program is not compiled");
    std::size_t bytes = 0;
    call(compiler, "nvrtcGetProgramLogSize", program, &bytes);
    std::string log(bytes, 0);
    call(compiler, "nvrtcGetProgramLog", program, log.data());
    expect(log.find("bad.cu:1") != std::string::npos && log.find("undeclared") != std::string::npos,
           "the log says where");
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
    must(call(driver, "cuEventSynchronize", end), "cuEventSynchronize");
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
    must(call(driver, "cuMemcpy2DAsync_v2", static_cast<const void*>(&copy), static_cast<void*>(nullptr)),
         "cuMemcpy2DAsync");
    copy.source.type = 2;
    copy.source.device = device.address;
    copy.source.x = 8;
    copy.target.type = 1;
    copy.target.host = back.data();
    copy.target.pitch = 12;
    copy.width = 12;
    must(call(driver, "cuMemcpy2DAsync_v2", static_cast<const void*>(&copy), static_cast<void*>(nullptr)),
         "cuMemcpy2DAsync");
    for (int i = 0; i < 5; ++i) {
        for (int j = 0; j < 3; ++j) expect(back[i * 3 + j] == host[i * 8 + 2 + j], "cuMemcpy2DAsync");
    }
    must(call(driver, "cuMemsetD32Async", device.address, 0x3F800000u, std::size_t{40}, static_cast<void*>(nullptr)),
         "cuMemsetD32Async");
    for (float value : device.values()) expect(value == 1.0f, "cuMemsetD32Async");
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
    call(driver, "cuMemcpyHtoDAsync_v2", device.address, static_cast<const void*>(pinned), std::size_t{4},
         static_cast<void*>(nullptr));
    must(call(driver, "cuEventRecord", event, static_cast<void*>(nullptr)), "cuEventRecord");
    values[0] = 2;
    float pageable = 3;
    call(driver, "cuMemcpyHtoDAsync_v2", device.address + 4, static_cast<const void*>(&pageable), std::size_t{4},
         static_cast<void*>(nullptr));
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
