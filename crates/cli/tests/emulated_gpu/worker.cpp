#include "worker.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

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

constexpr std::size_t PAGE = 4096, STACK_STRIDE = STACK + PAGE;
// Dynamic shared memory at most, more than any GPU has; and what lies on both sides of it.
constexpr std::size_t MAX_DYNAMIC = 256 << 10, GUARD = 1024;
constexpr unsigned char GUARD_BYTE = 0xF7;

}  // namespace

thread_local Worker* executing = nullptr;

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

Worker::Worker() : running(nullptr), fibers(MAX_THREADS) {
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
    // Shuffled alike in each run, whichever worker has the block.
    random = block.x + launch->grid.x * (block.y + launch->grid.y * block.z);
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
        return std::any_of(guard, guard + GUARD,
                           [](char byte) { return static_cast<unsigned char>(byte) != GUARD_BYTE; });
    };
    if (damaged(end) || damaged(static_cast<char*>(shared) - GUARD)) {
        fail(&fibers[0],
             "wrote beside its " + std::to_string(launch->dynamic_shared) + " bytes of dynamic shared memory", 0);
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

// Without memory from the heap, which may be damaged, and in one piece, since the process may end meanwhile.
void Worker::fail(const Fiber* self, const char* reason, int line) {
    char text[2000], where[32] = "";
    if (line) std::snprintf(where, sizeof where, ", line %d", line);
    int length =
        std::snprintf(text, sizeof text, "emulated GPU: kernel %s, block (%u, %u, %u), thread (%u, %u, %u)%s: %s\n",
                      launch->name, self->block_index.x, self->block_index.y, self->block_index.z, self->thread_index.x,
                      self->thread_index.y, self->thread_index.z, where, reason);
    [[maybe_unused]] auto written = write(2, text, std::min<std::size_t>(length, sizeof text - 1));
    std::abort();
}

}  // namespace emulated

extern "C" __attribute__((used, visibility("hidden"))) void emulated_fiber(emulated::Fiber* self) {
    const emulated::Launch* launch = self->worker->launch;
    emulated_call(launch->kernel, launch->arguments, self);
    self->worker->exit(self);
}
