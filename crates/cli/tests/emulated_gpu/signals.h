// A kernel that the processor stops ends the process with a message that names it.
#pragma once

namespace emulated {

// For the process, once.
void handle_signals();
// For each thread that runs kernels.
void need_signal_stack();

}  // namespace emulated
