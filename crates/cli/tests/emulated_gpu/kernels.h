// Finds the kernels of a preprocessed program, and writes the table by which the driver calls them.
#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace emulated {

struct Definition {
    std::string name;
    std::string bounds;  // what __launch_bounds__ was given, or empty
};

// Only `extern "C"` kernels: others have no name to load them by.
std::vector<Definition> find_kernels(const std::string& preprocessed);
std::string table(const std::vector<Definition>& kernels);

// Bytes of static shared memory, which is to say thread-local storage, that each kernel uses by itself or through what
// it calls, from the assembly that g++ made.
std::map<std::string, std::size_t> static_shared(const std::string& assembly, const std::vector<Definition>& kernels);

}  // namespace emulated
