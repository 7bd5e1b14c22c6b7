// What the parts of the test share: the three libraries, device memory, modules, numbers.
#pragma once
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

inline void* driver;
inline void* compiler;
inline void* products;
inline int failures = 0;

template <class... T>
int call(void* library, const char* name, T... arguments) {
    auto function = reinterpret_cast<int (*)(T...)>(dlsym(library, name));
    if (!function) {
        std::fprintf(stderr, "no function %s\n", name);
        std::exit(1);
    }
    return function(arguments...);
}

inline void expect(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", what.c_str());
    ++failures;
}

inline void must(int result, const char* what) {
    if (result == 0) return;
    std::fprintf(stderr, "FAILED: %s gave %d\n", what, result);
    std::exit(1);
}

inline std::uint16_t bf16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline float wide(std::uint16_t value) {
    std::uint32_t bits = std::uint32_t{value} << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// Device memory.
template <class T>
struct Buffer {
    std::uint64_t address = 0;
    std::size_t count;

    explicit Buffer(std::size_t n) : count(n) {
        must(call(driver, "cuMemAlloc_v2", &address, n * sizeof(T)), "cuMemAlloc");
    }
    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
        must(call(driver, "cuMemcpyHtoDAsync_v2", address, static_cast<const void*>(values.data()), count * sizeof(T),
                  static_cast<void*>(nullptr)),
             "cuMemcpyHtoDAsync");
    }
    Buffer(const Buffer&) = delete;
    ~Buffer() { must(call(driver, "cuMemFree_v2", address), "cuMemFree"); }
    std::vector<T> values() const {
        std::vector<T> result(count);
        must(call(driver, "cuMemcpyDtoHAsync_v2", static_cast<void*>(result.data()), address, count * sizeof(T),
                  static_cast<void*>(nullptr)),
             "cuMemcpyDtoHAsync");
        return result;
    }
};

struct Module {
    void* handle = nullptr;

    explicit Module(const char* source, bool as_text = false) {
        const char* header = "#pragma once\n#include \"platform.cuh\"\nconstexpr int HEADER_VALUE = 7;\n";
        const char* headers[] = {header, "#error this platform.cuh is to be replaced"};
        const char* names[] = {"common.cuh", "platform.cuh"};
        const char* options[] = {"--gpu-architecture=sm_90", "--std=c++17", "-DFROM_OPTIONS=3"};
        void* program = nullptr;
        must(call(compiler, "nvrtcCreateProgram", &program, source, "test.cu", 2,
                  static_cast<const char* const*>(headers), static_cast<const char* const*>(names)),
             "nvrtcCreateProgram");
        int result = call(compiler, "nvrtcCompileProgram", program, 3, static_cast<const char* const*>(options));
        std::size_t bytes = 0;
        call(compiler, "nvrtcGetProgramLogSize", program, &bytes);
        std::string log(bytes, 0);
        call(compiler, "nvrtcGetProgramLog", program, log.data());
        if (result) std::fprintf(stderr, "%s\n", log.c_str());
        must(result, "nvrtcCompileProgram");
        std::string kind = as_text ? "PTX" : "CUBIN";
        must(call(compiler, ("nvrtcGet" + kind + "Size").c_str(), program, &bytes), "the image's size");
        std::vector<char> image(bytes);
        must(call(compiler, ("nvrtcGet" + kind).c_str(), program, image.data()), "the image");
        call(compiler, "nvrtcDestroyProgram", &program);
        must(call(driver, "cuModuleLoadData", &handle, static_cast<const void*>(image.data())), "cuModuleLoadData");
    }
    Module(const Module&) = delete;
    ~Module() { must(call(driver, "cuModuleUnload", handle), "cuModuleUnload"); }

    void* function(const char* name) const {
        void* function = nullptr;
        must(call(driver, "cuModuleGetFunction", &function, handle, name), name);
        return function;
    }

    template <class... T>
    int try_launch(const char* name, unsigned grid, unsigned block, unsigned shared, T... arguments) const {
        void* pointers[] = {&arguments..., nullptr};
        return call(driver, "cuLaunchKernel", function(name), grid, 1u, 1u, block, 1u, 1u, shared,
                    static_cast<void*>(nullptr), static_cast<void**>(pointers), static_cast<void**>(nullptr));
    }
    template <class... T>
    void launch(const char* name, unsigned grid, unsigned block, unsigned shared, T... arguments) const {
        must(try_launch(name, grid, block, shared, arguments...), name);
    }
};

inline std::vector<float> random_values(std::size_t count, unsigned seed) {
    std::vector<float> values(count);
    for (float& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(seed >> 8) / (1 << 23) - 1.0f;
    }
    return values;
}

inline std::vector<std::uint16_t> rounded(const std::vector<float>& values) {
    std::vector<std::uint16_t> result;
    for (float value : values) result.push_back(bf16(value));
    return result;
}

inline bool close(float a, float b, float tolerance = 1e-4f) {
    return std::fabs(a - b) <= tolerance * (1 + std::fabs(b));
}

// kernels.cpp
void basics();
void matrices();
// products.cpp
void all_products();
// interface.cpp
void refusals();
void events();
void pitched_copies();
void delays();
// mistakes.cpp
void races();
void wrong(const std::string& which);
