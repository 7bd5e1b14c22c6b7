// libcuda: the driver's interface, as far as the project uses it and a little further. Here the device, its context,
// streams, events and errors; driver_memory.cpp and driver_launch.cpp have the rest. Work is done in the calling
// thread, in the order of the calls, whatever the stream; what a GPU would refuse is refused.
#include "driver.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "memory.h"
#include "queue.h"

using namespace emulated;

namespace {

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

struct Stream {};
struct Event {
    explicit Event(bool with_time) : timed(with_time) {}

    const bool timed;
    bool recorded = false;
    std::atomic<int> pending{0};  // records that are queued
    std::atomic<int> done{0};     // and those that are not any more
    Clock::time_point time = {};
};
struct Context {};

Context primary_context;
std::atomic<int> retained{0};
bool initialized = false;
thread_local Context* current = nullptr;

// Never destroyed: threads may still call when the process ends.
Handles<Stream>& streams = *new Handles<Stream>;
Handles<Event>& events = *new Handles<Event>;

// 0, 1 and 2 name the default streams.
bool is_stream(const void* stream) { return reinterpret_cast<std::uintptr_t>(stream) <= 2 || streams.has(stream); }

struct Attribute {
    int number, value;
};

// CUdevice_attribute; what is not here is 0.
const std::vector<Attribute>& attributes() {
    static const std::vector<Attribute> all = {
        {1, 1024},                       // MAX_THREADS_PER_BLOCK
        {2, 1024},                       // MAX_BLOCK_DIM_X
        {3, 1024},                       // MAX_BLOCK_DIM_Y
        {4, 64},                         // MAX_BLOCK_DIM_Z
        {5, 0x7FFFFFFF},                 // MAX_GRID_DIM_X
        {6, 65535},                      // MAX_GRID_DIM_Y
        {7, 65535},                      // MAX_GRID_DIM_Z
        {8, SHARED_WITHOUT_ASKING},      // MAX_SHARED_MEMORY_PER_BLOCK
        {9, 64 << 10},                   // TOTAL_CONSTANT_MEMORY
        {10, 32},                        // WARP_SIZE
        {12, 65536},                     // MAX_REGISTERS_PER_BLOCK
        {13, 1000000},                   // CLOCK_RATE in kHz
        {14, 512},                       // TEXTURE_ALIGNMENT
        {15, 1},                         // GPU_OVERLAP
        {16, 4},                         // MULTIPROCESSOR_COUNT
        {19, 1},                         // CAN_MAP_HOST_MEMORY
        {31, 1},                         // CONCURRENT_KERNELS
        {36, 1000000},                   // MEMORY_CLOCK_RATE in kHz
        {37, 128},                       // GLOBAL_MEMORY_BUS_WIDTH in bits
        {38, 4 << 20},                   // L2_CACHE_SIZE
        {39, 2048},                      // MAX_THREADS_PER_MULTIPROCESSOR
        {40, 2},                         // ASYNC_ENGINE_COUNT
        {41, 1},                         // UNIFIED_ADDRESSING
        {75, capability() / 10},         // COMPUTE_CAPABILITY_MAJOR
        {76, capability() % 10},         // COMPUTE_CAPABILITY_MINOR
        {78, 1},                         // STREAM_PRIORITIES_SUPPORTED
        {81, shared_of_block() + 1024},  // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        {82, 65536},                     // MAX_REGISTERS_PER_MULTIPROCESSOR
        {97, shared_of_block()},         // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        {106, 32},                       // MAX_BLOCKS_PER_MULTIPROCESSOR
        {111, 1024},                     // RESERVED_SHARED_MEMORY_PER_BLOCK
    };
    return all;
}

bool device_ok(int device) { return initialized && device == 0; }

// Whoever keeps it may also leave threads at work, which the end of a process does not wait for.
void refuse_a_context_at_exit() {
    if (retained == 0) return;
    std::fprintf(stderr, "emulated GPU: the process ends with a context that it has not released\n");
    std::abort();
}

}  // namespace

namespace emulated {

int capability() {
    static const int value = [] {
        const char* text = std::getenv("EMULATED_GPU_CAPABILITY");
        return text && *text ? std::atoi(text) : 90;
    }();
    return value;
}

int shared_of_block() {
    int version = capability();
    if (version == 80 || version == 87) return 163 << 10;
    if (version == 86 || version == 89 || version == 120) return 99 << 10;
    return version < 80 ? 64 << 10 : 227 << 10;
}

Result in_context() {
    if (!initialized) return NOT_INITIALIZED;
    return current ? SUCCESS : INVALID_CONTEXT;
}

Result check_stream(const void* stream) {
    if (Result result = in_context()) return result;
    return is_stream(stream) ? SUCCESS : INVALID_HANDLE;
}

void check_after(const char* what) {
    if (checking()) check_guards(what);
}

void wait(const char* what) {
    drain();
    check_after(what);
}

}  // namespace emulated

// ---- the device and its context ----

API int cuInit(unsigned flags) {
    if (flags != 0) return INVALID_VALUE;
    initialized = true;
    return SUCCESS;
}

API int cuDriverGetVersion(int* version) {
    *version = 13000;
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
    *bytes = memory_limit();
    return SUCCESS;
}

API int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (!device_ok(device)) return INVALID_DEVICE;
    for (const Attribute& one : attributes()) {
        if (one.number != attribute) continue;
        *value = one.value;
        return SUCCESS;
    }
    if (attribute < 1 || attribute > 150) return INVALID_VALUE;
    *value = 0;
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(void** context, int device) {
    if (!initialized) return NOT_INITIALIZED;
    if (!device_ok(device)) return INVALID_DEVICE;
    if (checking() && retained == 0) std::atexit(refuse_a_context_at_exit);
    retained++;
    *context = &primary_context;
    return SUCCESS;
}

API int cuDevicePrimaryCtxRelease_v2(int device) {
    if (!device_ok(device)) return INVALID_DEVICE;
    if (retained == 0) return INVALID_CONTEXT;
    retained--;
    return SUCCESS;
}

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
    drain();
    return streams.remove(stream) ? SUCCESS : INVALID_HANDLE;
}

API int cuStreamSynchronize(void* stream) {
    if (Result result = check_stream(stream)) return result;
    wait("cuStreamSynchronize");
    return SUCCESS;
}

// What is asked for is done soon, but not at once.
API int cuStreamQuery(void* stream) {
    if (Result result = check_stream(stream)) return result;
    return drain() ? NOT_READY : SUCCESS;
}

API int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    if (Result result = check_stream(stream)) return result;
    if (!events.has(event)) return INVALID_HANDLE;
    // The event may be recorded again meanwhile: what counts is what has been asked for by now.
    auto awaited = static_cast<Event*>(event);
    enqueue(stream, [] {}, [awaited, records = awaited->done + awaited->pending] { return awaited->done >= records; });
    return SUCCESS;
}

API int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    if (Result result = check_stream(stream)) return result;
    enqueue(stream, [function, data] { function(data); });
    return SUCCESS;
}

API int cuEventCreate(void** event, unsigned flags) {
    if (Result result = in_context()) return result;
    *event = events.add(new Event((flags & 2) == 0));
    return SUCCESS;
}

API int cuEventDestroy_v2(void* event) {
    drain();
    return events.remove(event) ? SUCCESS : INVALID_HANDLE;
}

API int cuEventRecord(void* event, void* stream) {
    if (Result result = check_stream(stream)) return result;
    if (!events.has(event)) return INVALID_HANDLE;
    auto recorded = static_cast<Event*>(event);
    ++recorded->pending;
    enqueue(stream, [recorded] {
        --recorded->pending;
        ++recorded->done;
        recorded->recorded = true;
        recorded->time = Clock::now();
    });
    return SUCCESS;
}

API int cuEventQuery(void* event) {
    if (!events.has(event)) return INVALID_HANDLE;
    if (static_cast<Event*>(event)->pending == 0) return SUCCESS;
    drain();
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
