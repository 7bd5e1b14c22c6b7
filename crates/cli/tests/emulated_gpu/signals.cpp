#include "signals.h"

#include <signal.h>

#include <cstdio>
#include <cstdlib>

#include "memory.h"
#include "worker.h"

namespace emulated {
namespace {

struct sigaction other_handlers[NSIG];

void stopped(int signal, siginfo_t* info, void* context) {
    if (executing && executing->running) {
        char reason[200];
        if (signal == SIGFPE) {
            std::snprintf(reason, sizeof reason, "an integer was divided by zero");
        } else if (executing->in_stack_guard(info->si_addr)) {
            std::snprintf(reason, sizeof reason, "its %zu bytes of stack do not suffice", STACK);
        } else {
            char where[100];
            describe(info->si_addr, where, sizeof where);
            std::snprintf(reason, sizeof reason, "an access %s, which is no memory, or is not aligned as its type",
                          where);
        }
        executing->fail(executing->running, reason, 0);
    }
    const struct sigaction& other = other_handlers[signal];
    if (other.sa_flags & SA_SIGINFO) return other.sa_sigaction(signal, info, context);
    // On return the instruction is tried again, and stops the process.
    sigaction(signal, &other, nullptr);
}

}  // namespace

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

}  // namespace emulated
