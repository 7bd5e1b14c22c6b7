// Work of streams: done at once, or, with EMULATED_GPU_DELAY=1, as late as the interface allows, which shows host
// memory that is changed or read too early.
#pragma once
#include <functional>

namespace emulated {

bool delaying();

// All streams share a queue: work is done in the order in which it was given.
void enqueue(std::function<void()> work);
// Does all that is queued; false if there was nothing.
bool drain();

}  // namespace emulated
