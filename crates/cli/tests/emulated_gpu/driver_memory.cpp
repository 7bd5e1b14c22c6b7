// libcuda: memory and copies.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "driver.h"
#include "memory.h"
#include "queue.h"

using namespace emulated;

namespace {

Result copy(void* to, const void* from, std::size_t bytes, bool to_device, bool from_device, const void* stream) {
    if (Result result = check_stream(stream)) return result;
    if (bytes == 0) return SUCCESS;
    if (!to || !from) return INVALID_VALUE;
    if (to_device && !on_device(to, bytes)) return INVALID_VALUE;
    if (from_device && !on_device(from, bytes)) return INVALID_VALUE;
    if (!delaying()) {
        std::memmove(to, from, bytes);
    } else if (!from_device && !pinned(from)) {
        // Pageable memory has been read when the call returns.
        std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
        enqueue(stream, [to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
    } else {
        enqueue(stream, [to, from, bytes] { std::memmove(to, from, bytes); });
        // Pageable memory has been written when the call returns.
        if (!to_device && !pinned(to)) drain();
    }
    return SUCCESS;
}

template <class T>
Result set(std::uint64_t to, T value, std::size_t count, const void* stream) {
    if (Result result = check_stream(stream)) return result;
    if (count == 0) return SUCCESS;
    void* address = reinterpret_cast<void*>(to);
    if (to % sizeof(T) != 0 || !on_device(address, count * sizeof(T))) return INVALID_VALUE;
    enqueue(stream, [values = static_cast<T*>(address), value, count] { std::fill(values, values + count, value); });
    return SUCCESS;
}

}  // namespace

API int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) {
    if (Result result = in_context()) return result;
    if (bytes == 0) return INVALID_VALUE;
    void* memory = allocate(Place::device, bytes);
    if (!memory) return OUT_OF_MEMORY;
    *address = reinterpret_cast<std::uint64_t>(memory);
    return SUCCESS;
}
API int cuMemAllocAsync(std::uint64_t* address, std::size_t bytes, void* stream) {
    if (Result result = check_stream(stream)) return result;
    return cuMemAlloc_v2(address, bytes);
}

API int cuMemFree_v2(std::uint64_t address) {
    if (Result result = in_context()) return result;
    if (address == 0) return SUCCESS;
    drain();
    return release(Place::device, reinterpret_cast<void*>(address)) ? SUCCESS : INVALID_VALUE;
}
API int cuMemFreeAsync(std::uint64_t address, void* stream) {
    if (Result result = check_stream(stream)) return result;
    return cuMemFree_v2(address);
}

API int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    if (Result result = in_context()) return result;
    *total = memory_limit();
    *free = *total - memory_used();
    return SUCCESS;
}

API int cuMemHostAlloc(void** address, std::size_t bytes, unsigned) {
    if (Result result = in_context()) return result;
    if (bytes == 0) return INVALID_VALUE;
    *address = allocate(Place::host, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}
API int cuMemAllocHost_v2(void** address, std::size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

API int cuMemFreeHost(void* address) {
    if (Result result = in_context()) return result;
    drain();
    return release(Place::host, address) ? SUCCESS : INVALID_VALUE;
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
    drain();
    return result;
}
API int cuMemcpyDtoH_v2(void* to, std::uint64_t from, std::size_t bytes) {
    int result = cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
    drain();
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
    if (Result result = check_stream(stream)) return result;
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
