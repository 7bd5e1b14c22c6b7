// libcuda: modules and launches; also what the emulated cuBLASLt asks of the driver.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

#include "blocks.h"
#include "driver.h"
#include "memory.h"
#include "modules.h"
#include "queue.h"

using namespace emulated;

namespace {

// Never destroyed: threads may still call when the process ends.
Handles<Module>& modules = *new Handles<Module>;

void do_launch(const Launch& launch) {
    static const bool trace = std::getenv("EMULATED_GPU_TRACE") != nullptr;
    auto start = Clock::now();
    run(launch);
    if (trace) {
        std::fprintf(stderr, "emulated GPU: %s grid %u %u %u block %u %u %u shared %zu: %.3f ms\n", launch.name,
                     launch.grid.x, launch.grid.y, launch.grid.z, launch.block.x, launch.block.y, launch.block.z,
                     launch.dynamic_shared, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
    check_after(launch.name);
}

}  // namespace

API int cuModuleLoadData(void** module, const void* image) {
    if (Result result = in_context()) return result;
    Module* loaded = load_module(image);
    if (!loaded) return INVALID_IMAGE;
    for (auto& [name, function] : loaded->functions)
        function.max_dynamic = SHARED_WITHOUT_ASKING - function.static_shared;
    *module = modules.add(loaded);
    return SUCCESS;
}
API int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}

API int cuModuleUnload(void* module) {
    drain();
    return modules.remove(module) ? SUCCESS : INVALID_HANDLE;
}

API int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (!modules.has(module)) return INVALID_HANDLE;
    auto& functions = static_cast<Module*>(module)->functions;
    auto found = functions.find(name);
    if (found == functions.end()) return NOT_FOUND;
    *function = &found->second;
    return SUCCESS;
}

API int cuFuncSetAttribute(void* handle, int attribute, int value) {
    Function& function = *static_cast<Function*>(handle);
    if (attribute == 9)
        return value >= -1 && value <= 100 ? SUCCESS : INVALID_VALUE;  // a hint: the carveout in percent
    if (attribute != 8) return INVALID_VALUE;                          // MAX_DYNAMIC_SHARED_SIZE_BYTES
    if (value < 0 || value > shared_of_block() - function.static_shared) {
        std::fprintf(stderr, "emulated GPU: %s cannot have %d bytes of dynamic beside %d of static shared memory\n",
                     function.kernel->name, value, function.static_shared);
        return INVALID_VALUE;
    }
    function.max_dynamic = value;
    return SUCCESS;
}

API int cuFuncGetAttribute(int* value, int attribute, void* handle) {
    const Function& function = *static_cast<Function*>(handle);
    switch (attribute) {
        case 0: *value = function.kernel->max_threads; break;
        case 1: *value = function.static_shared; break;
        case 4: *value = 32; break;  // NUM_REGS, a plausible number
        case 5:
        case 6: *value = capability(); break;
        case 8: *value = function.max_dynamic; break;
        case 9: *value = -1; break;
        default: *value = 0;
    }
    return SUCCESS;
}

API int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned dynamic_shared, void* stream, void** arguments,
                       void** extra) {
    if (Result result = check_stream(stream)) return result;
    if (!handle) return INVALID_HANDLE;
    if (extra) return NOT_SUPPORTED;
    const Function& function = *static_cast<Function*>(handle);
    auto refuse = [&](const char* why) {
        std::fprintf(stderr, "emulated GPU: launch of %s refused: %s (grid %u %u %u, block %u %u %u, %u bytes)\n",
                     function.kernel->name, why, grid_x, grid_y, grid_z, block_x, block_y, block_z, dynamic_shared);
        return INVALID_VALUE;
    };
    if (!grid_x || !grid_y || !grid_z || grid_x > 0x7FFFFFFF || grid_y > 65535 || grid_z > 65535) {
        return refuse("impossible grid");
    }
    if (!block_x || !block_y || !block_z || block_x > 1024 || block_y > 1024 || block_z > 64) {
        return refuse("impossible block");
    }
    if (1ULL * block_x * block_y * block_z > function.kernel->max_threads) return refuse("too many threads");
    if (static_cast<int>(dynamic_shared) < 0 || static_cast<int>(dynamic_shared) > function.max_dynamic)
        return refuse("more shared memory than was asked for");
    if (checking()) {
        for (unsigned i = 0; i < 64; ++i) {
            if (!(function.kernel->pointers >> i & 1)) continue;
            if (!known(*static_cast<void**>(arguments[i]))) {
                std::fprintf(stderr, "emulated GPU: argument %u (from 0) of %s points to no memory of the device\n", i,
                             function.kernel->name);
                std::abort();
            }
        }
    }
    Launch launch = {function.kernel->name,       function.kernel->launch,        arguments,
                     Dim{grid_x, grid_y, grid_z}, Dim{block_x, block_y, block_z}, dynamic_shared,
                     function.module->tls_module, function.module->static_shared};
    if (!delaying()) {
        do_launch(launch);
        return SUCCESS;
    }
    // The caller's arguments may be gone by then.
    std::vector<std::vector<char>> values;
    for (unsigned i = 0; function.kernel->sizes[i]; ++i) {
        auto value = static_cast<const char*>(arguments[i]);
        values.emplace_back(value, value + function.kernel->sizes[i]);
    }
    enqueue(stream, [launch, values = std::move(values)]() mutable {
        std::vector<void*> pointers;
        for (std::vector<char>& value : values) pointers.push_back(value.data());
        launch.arguments = pointers.data();
        do_launch(launch);
    });
    return SUCCESS;
}

// What a launch is made of, as the driver takes it. Attributes may let kernels overlap; here none does.
struct LaunchConfig {
    unsigned grid[3], block[3], dynamic_shared;
    void* stream;
    void* attributes;
    unsigned attribute_count;
};

API int cuLaunchKernelEx(const LaunchConfig* config, void* handle, void** arguments, void** extra) {
    const auto& [grid, block, dynamic_shared, stream, attributes, attribute_count] = *config;
    return cuLaunchKernel(handle, grid[0], grid[1], grid[2], block[0], block[1], block[2], dynamic_shared, stream,
                          arguments, extra);
}

// ---- for the emulated cuBLASLt ----

API int emulated_on_device(const void* address, std::size_t bytes) { return on_device(address, bytes); }
API void emulated_check_after(const char* what) { check_after(what); }
API void emulated_enqueue(const void* stream, std::function<void()> work) { enqueue(stream, std::move(work)); }
