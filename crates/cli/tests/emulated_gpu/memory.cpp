#include "memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace emulated {
namespace {

constexpr std::size_t GUARD = 256;
// In front of and behind an allocation. NaN as f32 and as bf16, so that a read beside it shows too, but not what fresh
// memory holds.
constexpr std::uint16_t GUARD_PATTERN = 0xFFF7;
constexpr unsigned char UNWRITTEN = 0xFF;

struct Allocation {
    Place place;
    std::size_t bytes;
    unsigned long long serial;
};

struct Memory {
    std::mutex mutex;
    std::map<std::uintptr_t, Allocation> allocations;
    std::size_t used = 0;
    unsigned long long serial = 0;
};

Memory& memory() {
    static Memory* all = new Memory;
    return *all;
}

void fill_guard(std::uintptr_t begin) {
    auto guard = reinterpret_cast<unsigned char*>(begin);
    for (std::size_t i = 0; i < GUARD; ++i) guard[i] = static_cast<unsigned char>(GUARD_PATTERN >> i % 2 * 8);
}

// The allocation that the address lies in or just behind, or null.
const std::pair<const std::uintptr_t, Allocation>* find(std::uintptr_t address) {
    auto behind = memory().allocations.upper_bound(address);
    if (behind == memory().allocations.begin()) return nullptr;
    const auto& found = *--behind;
    return address - found.first <= found.second.bytes ? &found : nullptr;
}

// The first byte that differs, or GUARD.
std::size_t damage(std::uintptr_t begin) {
    auto guard = reinterpret_cast<const unsigned char*>(begin);
    std::size_t i = 0;
    while (i < GUARD && guard[i] == static_cast<unsigned char>(GUARD_PATTERN >> i % 2 * 8)) ++i;
    return i;
}

void check(std::uintptr_t address, const Allocation& allocation, const char* after) {
    std::size_t before_it = damage(address - GUARD), behind_it = damage(address + allocation.bytes);
    if (before_it == GUARD && behind_it == GUARD) return;
    std::string where = before_it != GUARD ? std::to_string(GUARD - before_it) + " bytes in front of"
                                           : std::to_string(behind_it) + " bytes behind";
    std::fprintf(stderr, "emulated GPU: after %s: something was written %s allocation %llu of %zu bytes at %p\n", after,
                 where.c_str(), allocation.serial, allocation.bytes, reinterpret_cast<void*>(address));
    std::abort();
}

}  // namespace

std::size_t memory_limit() {
    static const std::size_t limit = [] {
        const char* bytes = std::getenv("EMULATED_GPU_MEMORY");
        return bytes && *bytes ? std::strtoull(bytes, nullptr, 10) : 4ULL << 30;
    }();
    return limit;
}

std::size_t memory_used() {
    std::lock_guard<std::mutex> lock(memory().mutex);
    return memory().used;
}

void* allocate(Place place, std::size_t bytes) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    if (place == Place::device && bytes > memory_limit() - all.used) return nullptr;
    std::size_t whole = (bytes + 2 * GUARD + 255) / 256 * 256;
    void* block = std::aligned_alloc(256, whole);
    if (!block) return nullptr;
    std::uintptr_t address = reinterpret_cast<std::uintptr_t>(block) + GUARD;
    std::memset(reinterpret_cast<void*>(address), UNWRITTEN, bytes);
    fill_guard(address - GUARD);
    fill_guard(address + bytes);
    all.allocations[address] = Allocation{place, bytes, ++all.serial};
    if (place == Place::device) all.used += bytes;
    return reinterpret_cast<void*>(address);
}

bool release(Place place, void* pointer) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    std::uintptr_t address = reinterpret_cast<std::uintptr_t>(pointer);
    auto found = all.allocations.find(address);
    if (found == all.allocations.end() || found->second.place != place) return false;
    check(address, found->second, "it was freed");
    if (checking()) std::memset(pointer, UNWRITTEN, found->second.bytes);
    if (place == Place::device) all.used -= found->second.bytes;
    all.allocations.erase(found);
    std::free(reinterpret_cast<void*>(address - GUARD));
    return true;
}

bool on_device(const void* pointer, std::size_t bytes) {
    std::lock_guard<std::mutex> lock(memory().mutex);
    std::uintptr_t address = reinterpret_cast<std::uintptr_t>(pointer);
    auto found = find(address);
    return found && found->second.place == Place::device && bytes <= found->second.bytes - (address - found->first);
}

bool pinned(const void* pointer) {
    std::lock_guard<std::mutex> lock(memory().mutex);
    auto found = find(reinterpret_cast<std::uintptr_t>(pointer));
    return found && found->second.place == Place::host;
}

bool known(const void* pointer) {
    std::lock_guard<std::mutex> lock(memory().mutex);
    return !pointer || find(reinterpret_cast<std::uintptr_t>(pointer));
}

bool checking() {
    static const bool on = [] {
        const char* value = std::getenv("EMULATED_GPU_CHECK");
        return value && !std::strcmp(value, "1");
    }();
    return on;
}

void check_guards(const char* after) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    for (const auto& [address, allocation] : all.allocations) check(address, allocation, after);
}

}  // namespace emulated
