// How the threads of a block wait for each other.
#include <algorithm>
#include <cstdio>

#include "worker.h"

namespace emulated {

// Puts threads that become ready together into the order in which they are to run.
void Worker::arrange(unsigned* indices, unsigned n) {
    if (order() == Order::reverse) std::reverse(indices, indices + n);
    if (order() != Order::shuffle) return;
    for (unsigned i = n; i > 1; --i) {
        random = random * 1664525u + 1013904223u;
        std::swap(indices[i - 1], indices[(random >> 8) % i]);
    }
}

unsigned Worker::barrier(Fiber* self, bool predicate, unsigned* threads, int line) {
    if (barrier_waiting == 0) {
        barrier_line = line;
        barrier_predicates = 0;
    } else if (barrier_line != line) {
        fail(self,
             "threads of a block meet in different __syncthreads: in line " + std::to_string(barrier_line) +
                 " and in line " + std::to_string(line),
             line);
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
        fail(&lanes[lane],
             std::string("lanes of a warp wait for each other in different operations: ") + OPERATIONS[int(operation)] +
                 " in line " + std::to_string(self->line) + " and " + OPERATIONS[int(lanes[lane].operation)],
             lanes[lane].line);
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
        case Operation::sync: break;
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

}  // namespace emulated
