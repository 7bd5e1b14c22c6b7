// Work of streams: done at once, or, with EMULATED_GPU_DELAY, as late as the interface allows, which shows memory that is
// changed or read too early.
#pragma once
#include <functional>

namespace emulated {

bool delaying();

// Behind what the stream has already, and no sooner than `ready` says so.
void enqueue(const void* stream, std::function<void()> work, std::function<bool()> ready = nullptr);
// Does all that is queued; false if there was nothing.
bool drain();

}  // namespace emulated
