// A worker runs one block at a time, whose threads are fibers: stacks that are switched to and from.
#pragma once
#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include "abi.h"
#include "blocks.h"
#include "matrices.h"

namespace emulated {

constexpr unsigned MAX_THREADS = 1024;
constexpr std::size_t STACK = 256 << 10;  // bytes of each thread
// What shared memory holds before it is written, and the target of a copy before that is waited for.
constexpr unsigned char UNWRITTEN = 0xFF;

// What the kernels' runtime is (runtime.cpp).
extern const Runtime RUNTIME;

// EMULATED_GPU_ORDER
enum class Order { forward, reverse, shuffle };
Order order();

enum class State { ready, barrier, warp, exited };
enum class Operation { sync, shuffle, ballot, load_matrices, load_transposed, multiply_matrices };
constexpr const char* OPERATIONS[] = {"__syncwarp", "a shuffle", "a ballot", "ldmatrix", "ldmatrix.trans", "mma"};

struct Copy {
    void* shared;
    const void* global;
    unsigned bytes;
    bool valid;
    unsigned group;
};

class Worker;

struct Fiber : Thread {
    Worker* worker;
    void* stack_pointer;
    unsigned index;
    State state;
    int line;
    // What it asks of its warp, and gets.
    Operation operation;
    unsigned mask, source;
    unsigned long long value, result;
    MatrixRequest matrices;
    // Asynchronous copies: begun, and not yet waited for.
    std::vector<Copy> copies;
    unsigned groups;
};

struct Warp {
    unsigned waiting, exited;  // a bit per lane
};

class Worker {
  public:
    Worker();
    void run_blocks(const Launch& launch, std::atomic<unsigned long long>& next);

    unsigned barrier(Fiber* self, bool predicate, unsigned* threads, int line);
    void collective(Fiber* self, Operation operation, unsigned mask, int line);
    void exit(Fiber* self);
    [[noreturn]] void fail(const Fiber* self, const char* reason, int line);
    [[noreturn]] void fail(const Fiber* self, const std::string& reason, int line) { fail(self, reason.c_str(), line); }
    unsigned exited_lanes(const Fiber* self) const { return warps[self->index / 32].exited; }
    const Launch* launch;
    const Fiber* running;

    bool in_stack_guard(const void* address) const;

  private:
    void run_block(Dim block, void* shared, void* static_shared);
    void prepare(Fiber& fiber, Dim block, void* shared);
    void pass(Fiber* self);
    void wake(unsigned index);
    Fiber* next_ready();
    void release_barrier();
    bool complete(Fiber* self, unsigned mask, Operation operation);
    void deliver(Fiber* lanes, unsigned participants, Operation operation);
    void arrange(unsigned* indices, unsigned count);
    std::string waiting_threads() const;

    std::vector<Fiber> fibers;
    Warp warps[MAX_THREADS / 32];
    char* stacks;
    char* dynamic;
    void* own_stack;
    unsigned count, alive;
    // Threads that can go on, in a ring.
    unsigned ready[MAX_THREADS], first, ready_count;
    unsigned barrier_waiting, barrier_predicates;
    int barrier_line;
    unsigned random;
};

// Of this thread of the operating system, if it runs a kernel.
extern thread_local Worker* executing;

}  // namespace emulated
