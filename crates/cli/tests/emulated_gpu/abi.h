// What a compiled kernel and the driver know of each other. Included by both; needs no other header.
#pragma once

namespace emulated {

struct Dim {
    unsigned x, y, z;
};

struct Thread;

// What the driver does for a thread of a kernel. `line` is where the kernel asked, for messages.
struct Runtime {
    // __syncthreads and its relatives: how many threads passed a predicate that is not zero.
    unsigned (*block_barrier)(Thread* self, bool predicate, unsigned* threads, int line);
    // Each lane of `mask` offers a value and gets that of the lane `source`.
    unsigned long long (*shuffle)(Thread* self, unsigned mask, unsigned long long value, unsigned source, int line);
    unsigned (*ballot)(Thread* self, unsigned mask, bool predicate, int line);
    void (*warp_barrier)(Thread* self, unsigned mask, int line);
    unsigned (*active_mask)(Thread* self);
    void (*load_matrices)(Thread* self, unsigned* registers, const void* row, bool transposed, int line);
    void (*multiply_matrices)(Thread* self, float* d, const unsigned* a, const unsigned* b, int line);
    void (*copy_async)(Thread* self, void* shared, const void* global, unsigned bytes, bool valid, int line);
    void (*commit_copies)(Thread* self);
    void (*wait_copies)(Thread* self, unsigned groups_left);
    void (*trap)(Thread* self, const char* reason, int line);
};

// What a kernel sees of the thread that it runs as. A kernel finds it in register r15, which is kept free for it:
// cheaper than thread-local storage, and right in whichever fiber the processor is.
struct Thread {
    Dim thread_index, block_index, block_dim, grid_dim;
    void* dynamic_shared;
    const Runtime* runtime;
};

// One line of the table `emulated_kernels` of a compiled program. The last line's name is null.
struct Kernel {
    const char* name;
    void (*launch)(void** arguments);
    unsigned max_threads;         // by __launch_bounds__, or 1024
    unsigned long long pointers;  // bit i: parameter i is a pointer
    const unsigned* sizes;        // of the parameters in bytes, and a 0
};

// An image is this, a shared library, and a text with a line for each kernel: its name and its bytes of static shared
// memory. The sizes are here since cuModuleLoadData is told none.
struct ImageHeader {
    char magic[8];
    unsigned long long version;  // of the emulator: others cannot run it
    unsigned long long library_bytes, text_bytes;
};
constexpr char IMAGE_MAGIC[9] = "EMULATED";

}  // namespace emulated
