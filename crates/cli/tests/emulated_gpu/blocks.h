// Runs the blocks of a launch. Each thread of a block is a fiber: a stack of its own that is switched to and from.
#pragma once
#include <cstddef>
#include <string>

#include "abi.h"

namespace emulated {

struct Launch {
    const char* name;
    void (*kernel)(void** arguments);
    void** arguments;
    Dim grid, block;
    std::size_t dynamic_shared;
    // Where the module's static shared memory is, in terms of the thread-local storage that it lies in.
    std::size_t tls_module, static_shared;
};

// Returns when all blocks have run. Aborts the process, with a message, where a GPU would hang or go wrong silently.
void run(const Launch& launch);

}  // namespace emulated
