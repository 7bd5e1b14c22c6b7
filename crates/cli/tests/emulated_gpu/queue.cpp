#include "queue.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

namespace emulated {
namespace {

// More than this does not wait.
constexpr std::size_t LONGEST = 10000;

struct Queue {
    std::mutex mutex;
    std::deque<std::function<void()>> work;
};

Queue& queue() {
    static Queue* one = new Queue;
    return *one;
}

}  // namespace

bool delaying() {
    static const bool on = [] {
        const char* value = std::getenv("EMULATED_GPU_DELAY");
        return value && !std::strcmp(value, "1");
    }();
    return on;
}

void enqueue(std::function<void()> work) {
    if (!delaying()) return work();
    std::unique_lock<std::mutex> lock(queue().mutex);
    queue().work.push_back(std::move(work));
    bool full = queue().work.size() > LONGEST;
    lock.unlock();
    if (full) drain();
}

bool drain() {
    // Held meanwhile: two threads that wait must not change the order.
    std::lock_guard<std::mutex> lock(queue().mutex);
    bool some = !queue().work.empty();
    while (!queue().work.empty()) {
        queue().work.front()();
        queue().work.pop_front();
    }
    return some;
}

}  // namespace emulated
