#include "queue.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace emulated {
namespace {

// More than this does not wait.
constexpr std::size_t LONGEST = 10000;

struct Item {
    std::function<void()> work;
    std::function<bool()> ready;
};

struct Stream {
    const void* name;
    std::deque<Item> items;
};

struct Queue {
    std::mutex mutex;
    // In the order in which they got their first work.
    std::vector<Stream> streams;
};

Queue& queue() {
    static Queue* one = new Queue;
    return *one;
}

// 1: the stream that was first goes as far as it can; 2: the one that was last.
int delay() {
    static const int value = [] {
        const char* text = std::getenv("EMULATED_GPU_DELAY");
        return text ? std::atoi(text) : 0;
    }();
    return value;
}

Stream& stream_of(const void* name) {
    for (Stream& stream : queue().streams)
        if (stream.name == name) return stream;
    queue().streams.push_back({name, {}});
    return queue().streams.back();
}

// The stream whose turn it is, or none.
Stream* next() {
    std::vector<Stream>& streams = queue().streams;
    for (std::size_t i = 0; i < streams.size(); ++i) {
        Stream& stream = streams[delay() == 2 ? streams.size() - 1 - i : i];
        if (!stream.items.empty() && (!stream.items.front().ready || stream.items.front().ready())) return &stream;
    }
    return nullptr;
}

}  // namespace

bool delaying() { return delay() != 0; }

void enqueue(const void* stream, std::function<void()> work, std::function<bool()> ready) {
    if (!delaying()) return work();
    std::unique_lock<std::mutex> lock(queue().mutex);
    std::deque<Item>& items = stream_of(stream).items;
    items.push_back({std::move(work), std::move(ready)});
    bool full = items.size() > LONGEST;
    lock.unlock();
    if (full) drain();
}

bool drain() {
    // Held meanwhile: two threads that wait must not change the order.
    std::lock_guard<std::mutex> lock(queue().mutex);
    bool some = false;
    while (Stream* stream = next()) {
        Item item = std::move(stream->items.front());
        stream->items.pop_front();
        item.work();
        some = true;
    }
    for (const Stream& stream : queue().streams) {
        if (stream.items.empty()) continue;
        std::fprintf(stderr, "emulated GPU: a stream waits for an event that nobody records\n");
        std::abort();
    }
    return some;
}

}  // namespace emulated
