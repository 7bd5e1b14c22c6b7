// libcuda: the driver's interface, as far as the project uses it and a little further. Work is done in the calling thread,
// in the order of the calls, whatever the stream; what a GPU would refuse is refused.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "blocks.h"
#include "memory.h"
#include "modules.h"
#include "queue.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
};

struct Named {
    int code;
    const char *name, *description;
};
const Named RESULTS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

using Clock = std::chrono::steady_clock;
using emulated::Dim;
using emulated::Function;
using emulated::Module;
using emulated::Place;

struct Stream {};
struct Event {
    bool timed, recorded = false;
    int pending = 0;  // records that are queued
    Clock::time_point time = {};
};
struct Context {};

Context primary_context;
bool initialized = false;
thread_local Context* current = nullptr;

// The handles that live, so that a dead one is recognised.
template <class T>
class Handles {
  public:
    T* add(T* handle) {
        std::lock_guard<std::mutex> lock(mutex);
        live.insert(handle);
        return handle;
    }
    bool has(const void* handle) {
        std::lock_guard<std::mutex> lock(mutex);
        return live.count(static_cast<T*>(const_cast<void*>(handle))) != 0;
    }
    bool remove(void* handle) {
        std::lock_guard<std::mutex> lock(mutex);
        if (live.erase(static_cast<T*>(handle)) == 0) return false;
        delete static_cast<T*>(handle);
        return true;
    }

  private:
    std::mutex mutex;
    std::set<T*> live;
};

// Never destroyed: threads may still call when the process ends.
Handles<Stream>& streams = *new Handles<Stream>;
Handles<Event>& events = *new Handles<Event>;
Handles<Module>& modules = *new Handles<Module>;

// 0, 1 and 2 name the default streams.
bool is_stream(const void* stream) { return reinterpret_cast<std::uintptr_t>(stream) <= 2 || streams.has(stream); }

int capability() {
    static const int value = [] {
        const char* text = std::getenv("EMULATED_GPU_CAPABILITY");
        return text && *text ? std::atoi(text) : 90;
    }();
    return value;
}

// Shared memory in bytes: of a block at most, and of a multiprocessor.
int shared_of_block() {
    switch (capability()) {
        case 75: return 64 << 10;
        case 80: case 87: return 163 << 10;
        case 86: case 89: case 120: return 99 << 10;
        default: return 227 << 10;
    }
}
constexpr int SHARED_WITHOUT_ASKING = 48 << 10;

Result in_context() {
    if (!initialized) return NOT_INITIALIZED;
    return current ? SUCCESS : INVALID_CONTEXT;
}

Result check(const void* stream) {
    if (Result result = in_context()) return result;
    return is_stream(stream) ? SUCCESS : INVALID_HANDLE;
}

Result copy(void* to, const void* from, std::size_t bytes, bool to_device, bool from_device, const void* stream) {
    if (Result result = check(stream)) return result;
    if (bytes == 0) return SUCCESS;
    if (!to || !from) return INVALID_VALUE;
    if (to_device && !emulated::on_device(to, bytes)) return INVALID_VALUE;
    if (from_device && !emulated::on_device(from, bytes)) return INVALID_VALUE;
    if (!emulated::delaying()) {
        std::memmove(to, from, bytes);
    } else if (!from_device && !emulated::pinned(from)) {
        // Pageable memory has been read when the call returns.
        std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
        emulated::enqueue([to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
    } else {
        emulated::enqueue([to, from, bytes] { std::memmove(to, from, bytes); });
        // Pageable memory has been written when the call returns.
        if (!to_device && !emulated::pinned(to)) emulated::drain();
    }
    return SUCCESS;
}

template <class T>
Result set(std::uint64_t to, T value, std::size_t count, const void* stream) {
    if (Result result = check(stream)) return result;
    if (count == 0) return SUCCESS;
    void* address = reinterpret_cast<void*>(to);
    if (to % sizeof(T) != 0 || !emulated::on_device(address, count * sizeof(T))) return INVALID_VALUE;
    emulated::enqueue([values = static_cast<T*>(address), value, count] { std::fill(values, values + count, value); });
    return SUCCESS;
}

void check_after(const char* what) {
    if (emulated::checking()) emulated::check_guards(what);
}

void wait(const char* what) {
    emulated::drain();
    check_after(what);
}

bool device_ok(int device) { return initialized && device == 0; }

}  // namespace

// ---- the device and its context ----

API int cuInit(unsigned flags) {
    if (flags != 0) return INVALID_VALUE;
    initialized = true;
    return SUCCESS;
}

API int cuDriverGetVersion(int* version) {
    *version = 12000;
    return SUCCESS;
}

API int cuDeviceGetCount(int* count) {
    if (!initialized) return NOT_INITIALIZED;
    *count = 1;
    return SUCCESS;
}

API int cuDeviceGet(int* device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

API int cuDeviceGetName(char* name, int length, int device) {
    if (!device_ok(device)) return INVALID_DEVICE;
    std::snprintf(name, length, "Emulated GPU");
    return SUCCESS;
}

API int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
    if (!device_ok(device)) return INVALID_DEVICE;
    std::memcpy(uuid, "EMULATED GPU    ", 16);
    return SUCCESS;
}
API int cuDeviceGetUuid(unsigned char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

API int cuDeviceTotalMem_v2(std::size_t* bytes, int device) {
    if (!device_ok(device)) return INVALID_DEVICE;
    *bytes = emulated::memory_limit();
    return SUCCESS;
}

API int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (!device_ok(device)) return INVALID_DEVICE;
    switch (attribute) {
        case 1: *value = 1024; break;                          // MAX_THREADS_PER_BLOCK
        case 2: case 3: *value = 1024; break;                  // MAX_BLOCK_DIM_X, Y
        case 4: *value = 64; break;                            // MAX_BLOCK_DIM_Z
        case 5: *value = 0x7FFFFFFF; break;                    // MAX_GRID_DIM_X
        case 6: case 7: *value = 65535; break;                 // MAX_GRID_DIM_Y, Z
        case 8: *value = SHARED_WITHOUT_ASKING; break;         // MAX_SHARED_MEMORY_PER_BLOCK
        case 9: *value = 64 << 10; break;                      // TOTAL_CONSTANT_MEMORY
        case 10: *value = 32; break;                           // WARP_SIZE
        case 12: case 82: *value = 65536; break;               // MAX_REGISTERS_PER_BLOCK, PER_MULTIPROCESSOR
        case 13: *value = 1000000; break;                      // CLOCK_RATE in kHz
        case 14: *value = 512; break;                          // TEXTURE_ALIGNMENT
        case 15: case 19: case 31: case 41: *value = 1; break; // overlap, mapped host memory, concurrency, unified addresses
        case 16: *value = 4; break;                            // MULTIPROCESSOR_COUNT
        case 36: *value = 1000000; break;                      // MEMORY_CLOCK_RATE in kHz
        case 37: *value = 128; break;                          // GLOBAL_MEMORY_BUS_WIDTH in bits
        case 38: *value = 4 << 20; break;                      // L2_CACHE_SIZE
        case 39: *value = 2048; break;                         // MAX_THREADS_PER_MULTIPROCESSOR
        case 40: *value = 2; break;                            // ASYNC_ENGINE_COUNT
        case 75: *value = capability() / 10; break;            // COMPUTE_CAPABILITY_MAJOR
        case 76: *value = capability() % 10; break;            // COMPUTE_CAPABILITY_MINOR
        case 78: *value = 1; break;                            // STREAM_PRIORITIES_SUPPORTED
        case 81: *value = shared_of_block() + 1024; break;     // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        case 97: *value = shared_of_block(); break;            // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        case 106: *value = 32; break;                          // MAX_BLOCKS_PER_MULTIPROCESSOR
        case 111: *value = 1024; break;                        // RESERVED_SHARED_MEMORY_PER_BLOCK
        default:
            if (attribute < 1 || attribute > 150) return INVALID_VALUE;
            *value = 0;
    }
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(void** context, int device) {
    if (!initialized) return NOT_INITIALIZED;
    if (!device_ok(device)) return INVALID_DEVICE;
    *context = &primary_context;
    return SUCCESS;
}

API int cuDevicePrimaryCtxRelease_v2(int device) { return device_ok(device) ? SUCCESS : INVALID_DEVICE; }

API int cuCtxSetCurrent(void* context) {
    if (!initialized) return NOT_INITIALIZED;
    if (context && context != &primary_context) return INVALID_CONTEXT;
    current = static_cast<Context*>(context);
    return SUCCESS;
}

API int cuCtxGetCurrent(void** context) {
    if (!initialized) return NOT_INITIALIZED;
    *context = current;
    return SUCCESS;
}

API int cuCtxGetDevice(int* device) {
    if (Result result = in_context()) return result;
    *device = 0;
    return SUCCESS;
}

API int cuCtxSynchronize() {
    if (Result result = in_context()) return result;
    wait("cuCtxSynchronize");
    return SUCCESS;
}

// ---- streams and events ----

API int cuStreamCreate(void** stream, unsigned flags) {
    if (Result result = in_context()) return result;
    if (flags > 1) return INVALID_VALUE;
    *stream = streams.add(new Stream);
    return SUCCESS;
}
API int cuStreamCreateWithPriority(void** stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }

API int cuStreamDestroy_v2(void* stream) {
    emulated::drain();
    return streams.remove(stream) ? SUCCESS : INVALID_HANDLE;
}

API int cuStreamSynchronize(void* stream) {
    if (Result result = check(stream)) return result;
    wait("cuStreamSynchronize");
    return SUCCESS;
}

// What is asked for is done soon, but not at once.
API int cuStreamQuery(void* stream) {
    if (Result result = check(stream)) return result;
    return emulated::drain() ? NOT_READY : SUCCESS;
}

API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    if (Result result = check(stream)) return result;
    return events.has(event) ? SUCCESS : INVALID_HANDLE;
}

API int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    if (Result result = check(stream)) return result;
    emulated::enqueue([function, data] { function(data); });
    return SUCCESS;
}

API int cuEventCreate(void** event, unsigned flags) {
    if (Result result = in_context()) return result;
    *event = events.add(new Event{(flags & 2) == 0});
    return SUCCESS;
}

API int cuEventDestroy_v2(void* event) {
    emulated::drain();
    return events.remove(event) ? SUCCESS : INVALID_HANDLE;
}

API int cuEventRecord(void* event, void* stream) {
    if (Result result = check(stream)) return result;
    if (!events.has(event)) return INVALID_HANDLE;
    auto recorded = static_cast<Event*>(event);
    ++recorded->pending;
    emulated::enqueue([recorded] {
        --recorded->pending;
        recorded->recorded = true;
        recorded->time = Clock::now();
    });
    return SUCCESS;
}

API int cuEventQuery(void* event) {
    if (!events.has(event)) return INVALID_HANDLE;
    if (static_cast<Event*>(event)->pending == 0) return SUCCESS;
    emulated::drain();
    return NOT_READY;
}

API int cuEventSynchronize(void* event) {
    if (!events.has(event)) return INVALID_HANDLE;
    if (static_cast<Event*>(event)->pending != 0) wait("cuEventSynchronize");
    return SUCCESS;
}

API int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    if (!events.has(start) || !events.has(end)) return INVALID_HANDLE;
    const Event &from = *static_cast<Event*>(start), &to = *static_cast<Event*>(end);
    if (from.pending || to.pending) return NOT_READY;
    if (!from.timed || !to.timed || !from.recorded || !to.recorded) return INVALID_HANDLE;
    *milliseconds = std::chrono::duration<float, std::milli>(to.time - from.time).count();
    return SUCCESS;
}
API int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

// ---- memory ----

API int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) {
    if (Result result = in_context()) return result;
    if (bytes == 0) return INVALID_VALUE;
    void* memory = emulated::allocate(Place::device, bytes);
    if (!memory) return OUT_OF_MEMORY;
    *address = reinterpret_cast<std::uint64_t>(memory);
    return SUCCESS;
}
API int cuMemAllocAsync(std::uint64_t* address, std::size_t bytes, void* stream) {
    if (Result result = check(stream)) return result;
    return cuMemAlloc_v2(address, bytes);
}

API int cuMemFree_v2(std::uint64_t address) {
    if (Result result = in_context()) return result;
    if (address == 0) return SUCCESS;
    emulated::drain();
    return emulated::release(Place::device, reinterpret_cast<void*>(address)) ? SUCCESS : INVALID_VALUE;
}
API int cuMemFreeAsync(std::uint64_t address, void* stream) {
    if (Result result = check(stream)) return result;
    return cuMemFree_v2(address);
}

API int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    if (Result result = in_context()) return result;
    *total = emulated::memory_limit();
    *free = *total - emulated::memory_used();
    return SUCCESS;
}

API int cuMemHostAlloc(void** address, std::size_t bytes, unsigned) {
    if (Result result = in_context()) return result;
    if (bytes == 0) return INVALID_VALUE;
    *address = emulated::allocate(Place::host, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
API int cuMemAllocHost_v2(void** address, std::size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

API int cuMemFreeHost(void* address) {
    if (Result result = in_context()) return result;
    emulated::drain();
    return emulated::release(Place::host, address) ? SUCCESS : INVALID_VALUE;
}

API int cuMemHostGetDevicePointer_v2(std::uint64_t* device, void* host, unsigned) {
    if (Result result = in_context()) return result;
    *device = reinterpret_cast<std::uint64_t>(host);
    return SUCCESS;
}

API int cuMemcpyHtoDAsync_v2(std::uint64_t to, const void* from, std::size_t bytes, void* stream) {
    return copy(reinterpret_cast<void*>(to), from, bytes, true, false, stream);
}
API int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t bytes, void* stream) {
    return copy(to, reinterpret_cast<void*>(from), bytes, false, true, stream);
}
API int cuMemcpyDtoDAsync_v2(std::uint64_t to, std::uint64_t from, std::size_t bytes, void* stream) {
    return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes, true, true, stream);
}
API int cuMemcpyHtoD_v2(std::uint64_t to, const void* from, std::size_t bytes) {
    int result = cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr);
    emulated::drain();
    return result;
}
API int cuMemcpyDtoH_v2(void* to, std::uint64_t from, std::size_t bytes) {
    int result = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
    emulated::drain();
    return result;
}
API int cuMemcpyDtoD_v2(std::uint64_t to, std::uint64_t from, std::size_t bytes) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}

// CUDA_MEMCPY2D
struct Copy2D {
    struct Side {
        std::size_t x, y;
        unsigned type;
        void* host;
        std::uint64_t device;
        void* array;
        std::size_t pitch;

        bool on_device() const { return type == 2; }
        // The first byte of a row; a pitch of 0 means rows that follow each other.
        char* row(std::size_t i, std::size_t width) const {
            char* base = on_device() ? reinterpret_cast<char*>(device) : static_cast<char*>(host);
            return base + (y + i) * (pitch ? pitch : width) + x;
        }
    } from, to;
    std::size_t width, height;
};

API int cuMemcpy2DAsync_v2(const Copy2D* what, void* stream) {
    if (Result result = check(stream)) return result;
    for (const Copy2D::Side* side : {&what->from, &what->to}) {
        if (side->type != 1 && side->type != 2) return NOT_SUPPORTED;
        if (side->pitch && side->pitch < side->x + what->width) return INVALID_VALUE;
    }
    for (std::size_t i = 0; i < what->height; ++i) {
        Result result = copy(what->to.row(i, what->width), what->from.row(i, what->width), what->width,
                             what->to.on_device(), what->from.on_device(), stream);
        if (result) return result;
    }
    return SUCCESS;
}

API int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t count, void* stream) {
    return set<std::uint8_t>(to, value, count, stream);
}
API int cuMemsetD16Async(std::uint64_t to, unsigned short value, std::size_t count, void* stream) {
    return set<std::uint16_t>(to, value, count, stream);
}
API int cuMemsetD32Async(std::uint64_t to, unsigned value, std::size_t count, void* stream) {
    return set<std::uint32_t>(to, value, count, stream);
}
API int cuMemsetD8_v2(std::uint64_t to, unsigned char value, std::size_t count) {
    return set<std::uint8_t>(to, value, count, nullptr);
}

// ---- modules and launches ----

namespace {
void do_launch(const emulated::Launch& launch) {
    static const bool trace = std::getenv("EMULATED_GPU_TRACE") != nullptr;
    auto start = Clock::now();
    emulated::run(launch);
    if (trace) {
        std::fprintf(stderr, "emulated GPU: %s grid %u %u %u block %u %u %u shared %zu: %.3f ms\n", launch.name,
                     launch.grid.x, launch.grid.y, launch.grid.z, launch.block.x, launch.block.y, launch.block.z,
                     launch.dynamic_shared, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
    check_after(launch.name);
}
}  // namespace

API int cuModuleLoadData(void** module, const void* image) {
    if (Result result = in_context()) return result;
    Module* loaded = emulated::load_module(image);
    if (!loaded) return INVALID_IMAGE;
    for (auto& [name, function] : loaded->functions) function.max_dynamic = SHARED_WITHOUT_ASKING - function.static_shared;
    *module = modules.add(loaded);
    return SUCCESS;
}
API int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}

API int cuModuleUnload(void* module) {
    emulated::drain();
    return modules.remove(module) ? SUCCESS : INVALID_HANDLE;
}

API int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (!modules.has(module)) return INVALID_HANDLE;
    auto& functions = static_cast<Module*>(module)->functions;
    auto found = functions.find(name);
    if (found == functions.end()) return NOT_FOUND;
    *function = &found->second;
    return SUCCESS;
}

API int cuFuncSetAttribute(void* handle, int attribute, int value) {
    Function& function = *static_cast<Function*>(handle);
    if (attribute == 9) return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE;  // a hint: the carveout in percent
    if (attribute != 8) return INVALID_VALUE;  // MAX_DYNAMIC_SHARED_SIZE_BYTES
    if (value < 0 || value > shared_of_block() - function.static_shared) return INVALID_VALUE;
    function.max_dynamic = value;
    return SUCCESS;
}

API int cuFuncGetAttribute(int* value, int attribute, void* handle) {
    const Function& function = *static_cast<Function*>(handle);
    switch (attribute) {
        case 0: *value = function.kernel->max_threads; break;
        case 1: *value = function.static_shared; break;
        case 4: *value = 32; break;  // NUM_REGS, a plausible number
        case 5: case 6: *value = capability(); break;
        case 8: *value = function.max_dynamic; break;
        case 9: *value = -1; break;
        default: *value = 0;
    }
    return SUCCESS;
}

API int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned dynamic_shared, void* stream, void** arguments,
                       void** extra) {
    if (Result result = check(stream)) return result;
    if (!handle) return INVALID_HANDLE;
    if (extra) return NOT_SUPPORTED;
    const Function& function = *static_cast<Function*>(handle);
    auto refuse = [&](const char* why) {
        std::fprintf(stderr, "emulated GPU: launch of %s refused: %s (grid %u %u %u, block %u %u %u, %u bytes)\n",
                     function.kernel->name, why, grid_x, grid_y, grid_z, block_x, block_y, block_z, dynamic_shared);
        return INVALID_VALUE;
    };
    if (!grid_x || !grid_y || !grid_z || grid_x > 0x7FFFFFFF || grid_y > 65535 || grid_z > 65535) {
        return refuse("impossible grid");
    }
    if (!block_x || !block_y || !block_z || block_x > 1024 || block_y > 1024 || block_z > 64) {
        return refuse("impossible block");
    }
    if (1ULL * block_x * block_y * block_z > function.kernel->max_threads) return refuse("too many threads");
    if (static_cast<int>(dynamic_shared) < 0 || static_cast<int>(dynamic_shared) > function.max_dynamic) return refuse("more shared memory than was asked for");
    if (emulated::checking()) {
        for (unsigned i = 0; i < 64; ++i) {
            if (!(function.kernel->pointers >> i & 1)) continue;
            if (!emulated::known(*static_cast<void**>(arguments[i]))) {
                std::fprintf(stderr, "emulated GPU: argument %u (from 0) of %s points to no memory of the device\n", i,
                             function.kernel->name);
                std::abort();
            }
        }
    }
    emulated::Launch launch = {function.kernel->name, function.kernel->launch, arguments, Dim{grid_x, grid_y, grid_z},
                               Dim{block_x, block_y, block_z}, dynamic_shared, function.module->tls_module,
                               function.module->static_shared};
    if (!emulated::delaying()) {
        do_launch(launch);
        return SUCCESS;
    }
    // The caller's arguments may be gone by then.
    std::vector<std::vector<char>> values;
    for (unsigned i = 0; function.kernel->sizes[i]; ++i) {
        auto value = static_cast<const char*>(arguments[i]);
        values.emplace_back(value, value + function.kernel->sizes[i]);
    }
    emulated::enqueue([launch, values = std::move(values)]() mutable {
        std::vector<void*> pointers;
        for (std::vector<char>& value : values) pointers.push_back(value.data());
        launch.arguments = pointers.data();
        do_launch(launch);
    });
    return SUCCESS;
}

// ---- for the emulated cuBLASLt ----

API int emulated_on_device(const void* address, std::size_t bytes) { return emulated::on_device(address, bytes); }
API void emulated_check_after(const char* what) { check_after(what); }
API void emulated_enqueue(std::function<void()> work) { emulated::enqueue(std::move(work)); }

// ---- errors ----

namespace {
const Named* find(int code) {
    for (const Named& result : RESULTS) {
        if (result.code == code) return &result;
    }
    return nullptr;
}
}  // namespace

API int cuGetErrorName(int code, const char** text) {
    const Named* result = find(code);
    *text = result ? result->name : nullptr;
    return result ? SUCCESS : INVALID_VALUE;
}

API int cuGetErrorString(int code, const char** text) {
    const Named* result = find(code);
    *text = result ? result->description : nullptr;
    return result ? SUCCESS : INVALID_VALUE;
}
