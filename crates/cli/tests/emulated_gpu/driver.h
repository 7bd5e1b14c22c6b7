// What the parts of the driver's interface share.
#pragma once
#include <chrono>
#include <mutex>
#include <set>

#define API extern "C" __attribute__((visibility("default")))

namespace emulated {

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

using Clock = std::chrono::steady_clock;

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

// Bytes of shared memory: of a block that has not asked for more, and of any block at most.
constexpr int SHARED_WITHOUT_ASKING = 48 << 10;
int shared_of_block();
// As 90 for 9.0.
int capability();

// Whether a context is current in this thread.
Result in_context();
// The same, and whether the stream lives.
Result check_stream(const void* stream);
// With EMULATED_GPU_CHECK=1, whether all guards of memory are whole.
void check_after(const char* what);
// Does all queued work, and checks.
void wait(const char* what);

}  // namespace emulated
