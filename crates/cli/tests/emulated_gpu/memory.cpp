#include "memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>

namespace emulated {
namespace {

// An allocation has pages of its own, between pages that nothing may touch. In front of it are at least GUARD bytes of
// a pattern, which is NaN as f32 and as bf16 but not what fresh memory holds. Behind it are as many; if accesses are to
// be checked, only what is left of a multiple of ALIGNMENT, so that the processor stops whoever goes further.
constexpr std::size_t GUARD = 256, ALIGNMENT = 256, PAGE = 4096, UNTOUCHABLE = 64 << 10;
constexpr std::uint16_t GUARD_PATTERN = 0xFFF7;
constexpr unsigned char UNWRITTEN = 0xFF;

struct Allocation {
    Place place;
    std::size_t bytes;
    unsigned long long serial;
    std::uintptr_t mapping;
    std::size_t mapped;

    std::uintptr_t guard_end() const { return mapping + mapped - UNTOUCHABLE; }
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

// The allocation that the address lies in or just behind, or null.
const std::pair<const std::uintptr_t, Allocation>* find(std::uintptr_t address) {
    auto behind = memory().allocations.upper_bound(address);
    if (behind == memory().allocations.begin()) return nullptr;
    const auto& found = *--behind;
    return address - found.first <= found.second.bytes ? &found : nullptr;
}

std::size_t round_up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

unsigned char pattern(std::uintptr_t address) { return static_cast<unsigned char>(GUARD_PATTERN >> address % 2 * 8); }

void fill_guard(std::uintptr_t begin, std::uintptr_t end) {
    for (; begin < end; ++begin) *reinterpret_cast<unsigned char*>(begin) = pattern(begin);
}

// The first byte that was written, or the end.
std::uintptr_t damage(std::uintptr_t begin, std::uintptr_t end) {
    while (begin < end && *reinterpret_cast<const unsigned char*>(begin) == pattern(begin)) ++begin;
    return begin;
}

void check(std::uintptr_t address, const Allocation& allocation, const char* after) {
    std::uintptr_t end = address + allocation.bytes;
    std::uintptr_t before_it = damage(address - GUARD, address), behind_it = damage(end, allocation.guard_end());
    if (before_it == address && behind_it == allocation.guard_end()) return;
    bool front = before_it != address;
    std::fprintf(stderr,
                 "emulated GPU: after %s: something was written %zu bytes %s allocation %llu of %zu bytes at %p\n",
                 after, front ? address - before_it : behind_it - end, front ? "in front of" : "behind",
                 allocation.serial, allocation.bytes, reinterpret_cast<void*>(address));
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
    std::size_t behind = checking() ? 0 : GUARD, rounded = round_up(bytes, ALIGNMENT) + behind;
    std::size_t open = round_up(GUARD + rounded, PAGE), mapped = open + 2 * UNTOUCHABLE;
    void* mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    Allocation allocation = {place, bytes, ++all.serial, reinterpret_cast<std::uintptr_t>(mapping), mapped};
    std::uintptr_t first = allocation.mapping + UNTOUCHABLE, address = allocation.guard_end() - rounded;
    if (mprotect(reinterpret_cast<void*>(first), open, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapping, mapped);
        return nullptr;
    }
    std::memset(reinterpret_cast<void*>(address), UNWRITTEN, bytes);
    fill_guard(address - GUARD, address);
    fill_guard(address + bytes, allocation.guard_end());
    all.allocations[address] = allocation;
    if (place == Place::device) all.used += bytes;
    return reinterpret_cast<void*>(address);
}

bool release(Place place, void* pointer) {
    Memory& all = memory();
    std::lock_guard<std::mutex> lock(all.mutex);
    std::uintptr_t address = reinterpret_cast<std::uintptr_t>(pointer);
    auto found = all.allocations.find(address);
    if (found == all.allocations.end() || found->second.place != place) return false;
    const Allocation allocation = found->second;
    check(address, allocation, "it was freed");
    if (place == Place::device) all.used -= allocation.bytes;
    all.allocations.erase(found);
    munmap(reinterpret_cast<void*>(allocation.mapping), allocation.mapped);
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

void describe(const void* pointer, char* text, std::size_t room) {
    std::uintptr_t address = reinterpret_cast<std::uintptr_t>(pointer);
    std::snprintf(text, room, "at %p", pointer);
    std::unique_lock<std::mutex> lock(memory().mutex, std::try_to_lock);
    if (!lock) return;
    auto behind = memory().allocations.upper_bound(address);
    for (auto one : {behind, behind == memory().allocations.begin() ? behind : std::prev(behind)}) {
        if (one == memory().allocations.end()) continue;
        const auto& [begin, allocation] = *one;
        if (address < allocation.mapping || address >= allocation.mapping + allocation.mapped) continue;
        bool front = address < begin;
        std::snprintf(text, room, "%zu bytes %s allocation %llu of %zu bytes",
                      front ? begin - address : address - begin - allocation.bytes, front ? "in front of" : "behind",
                      allocation.serial, allocation.bytes);
    }
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
