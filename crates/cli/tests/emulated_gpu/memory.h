// Device and pinned memory.
#pragma once
#include <cstddef>

namespace emulated {

enum class Place { device, host };

std::size_t memory_limit();
std::size_t memory_used();

// Null if the limit would be passed. Device memory begins as NaNs.
void* allocate(Place place, std::size_t bytes);
// False if no allocation of that place begins there.
bool release(Place place, void* address);
// Whether the range lies in one allocation of device memory.
bool on_device(const void* address, std::size_t bytes);
// Whether the address lies in an allocation of pinned memory.
bool pinned(const void* address);
// Whether a kernel may be given this address: null, or in device or pinned memory, or just behind it.
bool known(const void* address);

// Where an address that must not be touched lies, for a message.
void describe(const void* address, char* text, std::size_t room);

// EMULATED_GPU_CHECK=1
bool checking();
// Aborts if anything wrote beside an allocation.
void check_guards(const char* after);

}  // namespace emulated
