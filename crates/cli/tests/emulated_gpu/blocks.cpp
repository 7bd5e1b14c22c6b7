#include "blocks.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "matrices.h"

// The generic way to a module's thread-local storage on x86-64, which allocates it at a thread's first use.
struct TlsIndex {
    unsigned long module, offset;
};
extern "C" void* __tls_get_addr(TlsIndex*);

// void emulated_switch(void** save, void* load): leaves this stack and goes on where `load` was left.
// void emulated_enter(void): the first thing on a fiber's stack; r15 is the fiber.
// void emulated_call(void (*kernel)(void**), void** arguments, Thread* self): calls with r15 set.
asm(R"(
    .text
    .globl emulated_switch
    .hidden emulated_switch
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .globl emulated_enter
    .hidden emulated_enter
emulated_enter:
    movq %r15, %rdi
    call emulated_fiber
    ud2
    .globl emulated_call
    .hidden emulated_call
emulated_call:
    pushq %r15
    movq %rdx, %r15
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
    popq %r15
    ret
)");
extern "C" void emulated_switch(void** save, void* load);
extern "C" void emulated_enter();
extern "C" void emulated_call(void (*kernel)(void**), void** arguments, emulated::Thread* self);

namespace emulated {
namespace {

constexpr unsigned MAX_THREADS = 1024;
constexpr std::size_t STACK = 256 << 10, PAGE = 4096, STACK_STRIDE = STACK + PAGE;
constexpr std::size_t MAX_DYNAMIC = 256 << 10, GUARD = 1024;
constexpr unsigned char GUARD_BYTE = 0xF7, UNWRITTEN = 0xFF;

enum class Order { forward, reverse, shuffle };

Order order() {
    static const Order chosen = [] {
        const char* name = std::getenv("EMULATED_GPU_ORDER");
        if (!name || !*name || !std::strcmp(name, "forward")) return Order::forward;
        if (!std::strcmp(name, "reverse")) return Order::reverse;
        if (!std::strcmp(name, "shuffle")) return Order::shuffle;
        std::fprintf(stderr, "emulated GPU: EMULATED_GPU_ORDER is %s, not forward, reverse or shuffle\n", name);
        std::abort();
    }();
    return chosen;
}

enum class State { ready, barrier, warp, exited };
enum class Operation { sync, shuffle, ballot, load_matrices, load_transposed, multiply_matrices };
const char* const OPERATIONS[] = {"__syncwarp", "a shuffle", "a ballot", "ldmatrix", "ldmatrix.trans", "mma"};

struct Copy {
    void* shared;
    const void* global;
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
    [[noreturn]] void fail(const Fiber* self, const std::string& reason, int line);
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

Fiber* fiber(Thread* self) { return static_cast<Fiber*>(self); }

// ---- what kernels call ----

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
    if (reinterpret_cast<std::size_t>(row) % 16 != 0) f->worker->fail(f, "ldmatrix of a row that is not 16-byte aligned", line);
    f->matrices = MatrixRequest{registers, row, nullptr, nullptr, nullptr};
    f->worker->collective(f, transposed ? Operation::load_transposed : Operation::load_matrices, ~0u, line);
}

void multiply_matrices(Thread* self, float* d, const unsigned* a, const unsigned* b, int line) {
    Fiber* f = fiber(self);
    f->matrices = MatrixRequest{nullptr, nullptr, d, a, b};
    f->worker->collective(f, Operation::multiply_matrices, ~0u, line);
}

// The copy is done as late as allowed, and until then its target holds what nobody should read: a missing wait shows.
void copy_async(Thread* self, void* shared, const void* global, bool valid, int line) {
    Fiber* f = fiber(self);
    if (reinterpret_cast<std::size_t>(shared) % 16 != 0 || (valid && reinterpret_cast<std::size_t>(global) % 16 != 0)) {
        f->worker->fail(f, "cp.async of an address that is not 16-byte aligned", line);
    }
    std::memset(shared, UNWRITTEN, 16);
    f->copies.push_back(Copy{shared, global, valid, f->groups});
}

void commit_copies(Thread* self) { ++fiber(self)->groups; }

void wait_copies(Thread* self, unsigned groups_left) {
    Fiber* f = fiber(self);
    if (f->groups < groups_left) return;
    unsigned done = f->groups - groups_left;
    auto later = std::find_if(f->copies.begin(), f->copies.end(), [done](const Copy& copy) { return copy.group >= done; });
    for (auto copy = f->copies.begin(); copy != later; ++copy) {
        if (copy->valid) {
            std::memcpy(copy->shared, copy->global, 16);
        } else {
            std::memset(copy->shared, 0, 16);
        }
    }
    f->copies.erase(f->copies.begin(), later);
}

void trap(Thread* self, const char* reason, int line) { fiber(self)->worker->fail(fiber(self), reason, line); }

const Runtime RUNTIME = {block_barrier,     shuffle,    ballot,        warp_barrier, active_mask, load_matrices,
                         multiply_matrices, copy_async, commit_copies, wait_copies,  trap};

// ---- a worker: one block at a time ----

// Of this thread of the operating system, if it runs a kernel.
thread_local Worker* executing = nullptr;

Worker::Worker() : running(nullptr), fibers(MAX_THREADS), random(1) {
    void* memory = mmap(nullptr, MAX_THREADS * STACK_STRIDE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("emulated GPU: stacks");
        std::abort();
    }
    stacks = static_cast<char*>(memory);
    madvise(stacks, MAX_THREADS * STACK_STRIDE, MADV_NOHUGEPAGE);
    for (unsigned i = 0; i < MAX_THREADS; ++i) mprotect(stacks + i * STACK_STRIDE, PAGE, PROT_NONE);
    dynamic = static_cast<char*>(std::aligned_alloc(1024, MAX_DYNAMIC + 2 * GUARD));
    for (unsigned i = 0; i < MAX_THREADS; ++i) {
        fibers[i].worker = this;
        fibers[i].index = i;
        fibers[i].runtime = &RUNTIME;
    }
}

bool Worker::in_stack_guard(const void* address) const {
    std::size_t offset = static_cast<const char*>(address) - stacks;
    return offset < MAX_THREADS * STACK_STRIDE && offset % STACK_STRIDE < PAGE;
}

void Worker::run_blocks(const Launch& what, std::atomic<unsigned long long>& next) {
    launch = &what;
    executing = this;
    count = what.block.x * what.block.y * what.block.z;
    void* static_shared = nullptr;
    if (what.static_shared) {
        TlsIndex index = {what.tls_module, 0};
        static_shared = __tls_get_addr(&index);
    }
    char* shared = dynamic + GUARD;
    std::memset(dynamic, GUARD_BYTE, GUARD);
    unsigned long long blocks = 1ULL * what.grid.x * what.grid.y * what.grid.z;
    for (unsigned long long i; (i = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) {
        if (order() != Order::forward) i = blocks - 1 - i;
        Dim block = {static_cast<unsigned>(i % what.grid.x), static_cast<unsigned>(i / what.grid.x % what.grid.y),
                     static_cast<unsigned>(i / what.grid.x / what.grid.y)};
        run_block(block, shared, static_shared);
    }
    executing = nullptr;
}

void Worker::run_block(Dim block, void* shared, void* static_shared) {
    char* end = static_cast<char*>(shared) + launch->dynamic_shared;
    std::memset(shared, UNWRITTEN, launch->dynamic_shared);
    std::memset(end, GUARD_BYTE, GUARD);
    if (static_shared) std::memset(static_shared, UNWRITTEN, launch->static_shared);

    alive = count;
    first = ready_count = barrier_waiting = barrier_predicates = 0;
    for (unsigned warp = 0; warp * 32 < count; ++warp) {
        unsigned lanes = count - warp * 32;
        warps[warp] = Warp{0, lanes >= 32 ? 0 : ~0u << lanes};
    }
    unsigned indices[MAX_THREADS];
    std::iota(indices, indices + count, 0u);
    arrange(indices, count);
    for (unsigned i = 0; i < count; ++i) {
        prepare(fibers[i], block, shared);
        wake(indices[i]);
    }
    Fiber* start = next_ready();
    emulated_switch(&own_stack, start->stack_pointer);
    running = nullptr;

    auto damaged = [](const char* guard) {
        return std::any_of(guard, guard + GUARD, [](char byte) { return static_cast<unsigned char>(byte) != GUARD_BYTE; });
    };
    if (damaged(end) || damaged(static_cast<char*>(shared) - GUARD)) {
        fail(&fibers[0], "wrote beside its " + std::to_string(launch->dynamic_shared) + " bytes of dynamic shared memory", 0);
    }
}

// Puts onto the fiber's stack what emulated_switch takes from it: six registers and where to go.
void Worker::prepare(Fiber& fiber, Dim block, void* shared) {
    unsigned i = fiber.index, row = i / launch->block.x;
    fiber.thread_index = Dim{i % launch->block.x, row % launch->block.y, row / launch->block.y};
    fiber.block_index = block;
    fiber.block_dim = launch->block;
    fiber.grid_dim = launch->grid;
    fiber.dynamic_shared = shared;
    fiber.state = State::ready;
    fiber.line = 0;
    fiber.copies.clear();
    fiber.groups = 0;
    // Stacks begin at different offsets from a page, so that they do not all compete for the same lines of the cache.
    char* top = stacks + (i + 1) * STACK_STRIDE - i % 61 * 192;
    void** stack = reinterpret_cast<void**>(reinterpret_cast<std::size_t>(top) & ~std::size_t{63});
    *--stack = nullptr;
    *--stack = nullptr;
    *--stack = reinterpret_cast<void*>(&emulated_enter);
    for (int register_ = 0; register_ < 5; ++register_) *--stack = nullptr;
    *--stack = &fiber;
    fiber.stack_pointer = stack;
}

// Puts threads that become ready together into the order in which they are to run.
void Worker::arrange(unsigned* indices, unsigned n) {
    if (order() == Order::reverse) std::reverse(indices, indices + n);
    if (order() != Order::shuffle) return;
    for (unsigned i = n; i > 1; --i) {
        random = random * 1664525u + 1013904223u;
        std::swap(indices[i - 1], indices[(random >> 8) % i]);
    }
}

void Worker::wake(unsigned index) {
    fibers[index].state = State::ready;
    ready[(first + ready_count) % MAX_THREADS] = index;
    ++ready_count;
}

Fiber* Worker::next_ready() {
    Fiber* next = &fibers[ready[first]];
    first = (first + 1) % MAX_THREADS;
    --ready_count;
    running = next;
    return next;
}

// Goes on with another thread of the block, until someone wakes this one.
void Worker::pass(Fiber* self) {
    if (ready_count == 0) fail(self, "deadlock: " + waiting_threads(), self->line);
    Fiber* other = next_ready();
    if (other != self) emulated_switch(&self->stack_pointer, other->stack_pointer);
}

unsigned Worker::barrier(Fiber* self, bool predicate, unsigned* threads, int line) {
    if (barrier_waiting == 0) {
        barrier_line = line;
        barrier_predicates = 0;
    } else if (barrier_line != line) {
        fail(self, "threads of a block meet in different __syncthreads: in line " + std::to_string(barrier_line) +
                       " and in line " + std::to_string(line), line);
    }
    barrier_predicates += predicate;
    self->state = State::barrier;
    self->line = line;
    ++barrier_waiting;
    if (barrier_waiting == alive) release_barrier();
    pass(self);
    *threads = self->source;
    return static_cast<unsigned>(self->result);
}

void Worker::release_barrier() {
    unsigned indices[MAX_THREADS], n = 0;
    for (unsigned i = 0; i < count; ++i) {
        if (fibers[i].state != State::barrier) continue;
        fibers[i].result = barrier_predicates;
        fibers[i].source = barrier_waiting;
        indices[n++] = i;
    }
    arrange(indices, n);
    for (unsigned i = 0; i < n; ++i) wake(indices[i]);
    barrier_waiting = 0;
}

void Worker::collective(Fiber* self, Operation operation, unsigned mask, int line) {
    Warp& warp = warps[self->index / 32];
    unsigned bit = 1u << self->index % 32;
    if (!(mask & bit)) fail(self, std::string(OPERATIONS[int(operation)]) + " whose mask lacks the calling lane", line);
    self->state = State::warp;
    self->line = line;
    self->operation = operation;
    self->mask = mask;
    warp.waiting |= bit;
    complete(self, mask, operation);
    pass(self);
}

// If all lanes of the mask that have not exited wait for this operation, does it and wakes them.
bool Worker::complete(Fiber* self, unsigned mask, Operation operation) {
    Warp& warp = warps[self->index / 32];
    unsigned participants = mask & ~warp.exited;
    if ((warp.waiting & participants) != participants) return false;
    Fiber* lanes = &fibers[self->index / 32 * 32];
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(participants >> lane & 1) || lanes[lane].mask == mask) continue;
        return false;
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(participants >> lane & 1) || lanes[lane].operation == operation) continue;
        fail(&lanes[lane], std::string("lanes of a warp wait for each other in different operations: ") +
                               OPERATIONS[int(operation)] + " in line " + std::to_string(self->line) + " and " +
                               OPERATIONS[int(lanes[lane].operation)], lanes[lane].line);
    }
    if (operation >= Operation::load_matrices && participants != ~0u) {
        fail(self, std::string(OPERATIONS[int(operation)]) + " in a warp that is not whole", self->line);
    }
    deliver(lanes, participants, operation);
    warp.waiting &= ~participants;
    unsigned indices[32], n = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (participants >> lane & 1) indices[n++] = lanes[lane].index;
    }
    arrange(indices, n);
    for (unsigned i = 0; i < n; ++i) wake(indices[i]);
    return true;
}

void Worker::deliver(Fiber* lanes, unsigned participants, Operation operation) {
    const MatrixRequest* requests[32];
    unsigned long long votes = 0;
    switch (operation) {
        case Operation::sync:
            break;
        case Operation::shuffle:
            for (unsigned lane = 0; lane < 32; ++lane) {
                if (!(participants >> lane & 1)) continue;
                // What a lane outside the mask holds is undefined.
                bool defined = participants >> lanes[lane].source & 1;
                lanes[lane].result = defined ? lanes[lanes[lane].source].value : ~0ULL;
            }
            break;
        case Operation::ballot:
            for (unsigned lane = 0; lane < 32; ++lane) {
                if (participants >> lane & 1) votes |= lanes[lane].value << lane;
            }
            for (unsigned lane = 0; lane < 32; ++lane) {
                if (participants >> lane & 1) lanes[lane].result = votes;
            }
            break;
        default:
            for (unsigned lane = 0; lane < 32; ++lane) requests[lane] = &lanes[lane].matrices;
            if (operation == Operation::multiply_matrices) {
                emulated::multiply(requests);
            } else {
                emulated::load(requests, operation == Operation::load_transposed);
            }
    }
}

void Worker::exit(Fiber* self) {
    Warp& warp = warps[self->index / 32];
    self->state = State::exited;
    warp.exited |= 1u << self->index % 32;
    --alive;
    if (alive == 0) emulated_switch(&self->stack_pointer, own_stack);
    // Nobody waits for a thread that has exited.
    if (barrier_waiting != 0 && barrier_waiting == alive) release_barrier();
    Fiber* lanes = &fibers[self->index / 32 * 32];
    for (unsigned lane = 0; lane < 32 && warp.waiting != 0; ++lane) {
        if (warp.waiting >> lane & 1) complete(&lanes[lane], lanes[lane].mask, lanes[lane].operation);
    }
    pass(self);
}

void Worker::fail(const Fiber* self, const std::string& reason, int line) {
    std::fprintf(stderr, "emulated GPU: kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", launch->name,
                 self->block_index.x, self->block_index.y, self->block_index.z, self->thread_index.x,
                 self->thread_index.y, self->thread_index.z);
    if (line) std::fprintf(stderr, ", line %d", line);
    std::fprintf(stderr, ": %s\n", reason.c_str());
    std::abort();
}

std::string Worker::waiting_threads() const {
    std::string text = "no thread can go on;";
    for (unsigned begin = 0, end; begin < count; begin = end) {
        const Fiber& one = fibers[begin];
        auto alike = [&one](const Fiber& other) {
            if (other.state != one.state) return false;
            if (one.state == State::exited) return true;
            if (other.line != one.line) return false;
            return one.state == State::barrier || (other.operation == one.operation && other.mask == one.mask);
        };
        for (end = begin + 1; end < count && alike(fibers[end]);) ++end;
        char where[160];
        if (one.state == State::exited) {
            std::snprintf(where, sizeof where, " %u to %u have exited;", begin, end - 1);
        } else if (one.state == State::barrier) {
            std::snprintf(where, sizeof where, " %u to %u wait at __syncthreads in line %d;", begin, end - 1, one.line);
        } else {
            std::snprintf(where, sizeof where, " %u to %u wait in %s of lanes %08x in line %d;", begin, end - 1,
                          OPERATIONS[int(one.operation)], one.mask, one.line);
        }
        text += where;
    }
    return text;
}

// ---- a kernel that the processor stops ----

struct sigaction other_handlers[NSIG];

void stopped(int signal, siginfo_t* info, void* context) {
    if (executing && executing->running) {
        char reason[160];
        if (signal == SIGFPE) {
            std::snprintf(reason, sizeof reason, "an integer was divided by zero");
        } else if (executing->in_stack_guard(info->si_addr)) {
            std::snprintf(reason, sizeof reason, "its %zu bytes of stack do not suffice", STACK);
        } else {
            std::snprintf(reason, sizeof reason, "accessed %p, which is no memory, or not as aligned as its type",
                          info->si_addr);
        }
        executing->fail(executing->running, reason, 0);
    }
    const struct sigaction& other = other_handlers[signal];
    if (other.sa_flags & SA_SIGINFO) return other.sa_sigaction(signal, info, context);
    // On return the instruction is tried again, and stops the process.
    sigaction(signal, &other, nullptr);
}

// A fiber that has used up its stack leaves no room for a handler.
void need_signal_stack() {
    stack_t stack;
    sigaltstack(nullptr, &stack);
    if (!(stack.ss_flags & SS_DISABLE)) return;
    constexpr std::size_t BYTES = 64 << 10;
    stack = {};
    stack.ss_sp = std::malloc(BYTES);
    stack.ss_size = BYTES;
    sigaltstack(&stack, nullptr);
}

void handle_signals() {
    struct sigaction action = {};
    action.sa_sigaction = stopped;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, &other_handlers[signal]);
}

// ---- workers share the blocks of a launch ----

class Pool {
  public:
    Pool() {
        const char* wanted = std::getenv("EMULATED_GPU_THREADS");
        unsigned threads = wanted ? std::strtoul(wanted, nullptr, 10) : std::min(2u, std::thread::hardware_concurrency());
        for (unsigned i = 1; i < threads; ++i) std::thread([this] { help(); }).detach();
        helpers = threads > 1 ? threads - 1 : 0;
        handle_signals();
    }

    void run(const Launch& what) {
        std::lock_guard<std::mutex> one_launch_at_a_time(launching);
        std::atomic<unsigned long long> next{0};
        bool alone = helpers == 0 || 1ULL * what.grid.x * what.grid.y * what.grid.z == 1;
        if (!alone) {
            std::lock_guard<std::mutex> lock(mutex);
            job = &what;
            blocks = &next;
            working = helpers;
            ++generation;
            begin.notify_all();
        }
        need_signal_stack();
        own.run_blocks(what, next);
        if (alone) return;
        std::unique_lock<std::mutex> lock(mutex);
        end.wait(lock, [this] { return working == 0; });
    }

  private:
    void help() {
        Worker* worker = new Worker;
        need_signal_stack();
        unsigned seen = 0;
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            begin.wait(lock, [&] { return generation != seen; });
            seen = generation;
            lock.unlock();
            worker->run_blocks(*job, *blocks);
            lock.lock();
            if (--working == 0) end.notify_one();
        }
    }

    std::mutex launching, mutex;
    std::condition_variable begin, end;
    const Launch* job;
    std::atomic<unsigned long long>* blocks;
    unsigned helpers, working = 0, generation = 0;
    Worker own;
};

}  // namespace

void run(const Launch& launch) {
    // Never destroyed: its threads run until the process ends.
    static Pool* pool = new Pool;
    pool->run(launch);
}

}  // namespace emulated

extern "C" __attribute__((used, visibility("hidden"))) void emulated_fiber(emulated::Fiber* self) {
    const emulated::Launch* launch = self->worker->launch;
    emulated_call(launch->kernel, launch->arguments, self);
    self->worker->exit(self);
}
