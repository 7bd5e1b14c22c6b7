// What kernels call.
#include <algorithm>
#include <cstring>

#include "worker.h"

namespace emulated {
namespace {

Fiber* fiber(Thread* self) { return static_cast<Fiber*>(self); }

unsigned block_barrier(Thread* self, bool predicate, unsigned* threads, int line) {
    return fiber(self)->worker->barrier(fiber(self), predicate, threads, line);
}

unsigned long long shuffle(Thread* self, unsigned mask, unsigned long long value, unsigned source, int line) {
    Fiber* f = fiber(self);
    f->value = value;
    f->source = source;
    f->worker->collective(f, Operation::shuffle, mask, line);
    return f->result;
}

unsigned ballot(Thread* self, unsigned mask, bool predicate, int line) {
    Fiber* f = fiber(self);
    f->value = predicate;
    f->worker->collective(f, Operation::ballot, mask, line);
    return static_cast<unsigned>(f->result);
}

void warp_barrier(Thread* self, unsigned mask, int line) {
    fiber(self)->worker->collective(fiber(self), Operation::sync, mask, line);
}

unsigned active_mask(Thread* self) { return ~fiber(self)->worker->exited_lanes(fiber(self)); }

void load_matrices(Thread* self, unsigned* registers, const void* row, bool transposed, int line) {
    Fiber* f = fiber(self);
    if (reinterpret_cast<std::size_t>(row) % 16 != 0)
        f->worker->fail(f, "ldmatrix of a row that is not 16-byte aligned", line);
    f->matrices = MatrixRequest{registers, row, nullptr, nullptr, nullptr};
    f->worker->collective(f, transposed ? Operation::load_transposed : Operation::load_matrices, ~0u, line);
}

void multiply_matrices(Thread* self, float* d, const unsigned* a, const unsigned* b, int line) {
    Fiber* f = fiber(self);
    f->matrices = MatrixRequest{nullptr, nullptr, d, a, b};
    f->worker->collective(f, Operation::multiply_matrices, ~0u, line);
}

// The copy is done as late as allowed, and until then its target holds what nobody should read: a missing wait shows.
void copy_async(Thread* self, void* shared, const void* global, unsigned bytes, bool valid, int line) {
    Fiber* f = fiber(self);
    const auto aligned = [bytes](const void* address) { return reinterpret_cast<std::size_t>(address) % bytes == 0; };
    if (!aligned(shared) || (valid && !aligned(global))) {
        f->worker->fail(f, "cp.async of an address that is not aligned to what is copied", line);
    }
    std::memset(shared, UNWRITTEN, bytes);
    f->copies.push_back(Copy{shared, global, bytes, valid, f->groups});
}

void commit_copies(Thread* self) { ++fiber(self)->groups; }

void wait_copies(Thread* self, unsigned groups_left) {
    Fiber* f = fiber(self);
    if (f->groups < groups_left) return;
    unsigned done = f->groups - groups_left;
    auto later =
        std::find_if(f->copies.begin(), f->copies.end(), [done](const Copy& copy) { return copy.group >= done; });
    for (auto copy = f->copies.begin(); copy != later; ++copy) {
        if (copy->valid) {
            std::memcpy(copy->shared, copy->global, copy->bytes);
        } else {
            std::memset(copy->shared, 0, copy->bytes);
        }
    }
    f->copies.erase(f->copies.begin(), later);
}

void trap(Thread* self, const char* reason, int line) { fiber(self)->worker->fail(fiber(self), reason, line); }

}  // namespace

const Runtime RUNTIME = {block_barrier,     shuffle,    ballot,        warp_barrier, active_mask, load_matrices,
                         multiply_matrices, copy_async, commit_copies, wait_copies,  trap};

}  // namespace emulated
