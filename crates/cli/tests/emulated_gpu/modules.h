// Compiled programs, loaded.
#pragma once
#include <cstddef>
#include <map>
#include <string>

#include "abi.h"

namespace emulated {

struct Module;

struct Function {
    const Kernel* kernel;
    const Module* module;
    int static_shared, max_dynamic;
};

struct Module {
    Module() = default;
    Module(const Module&) = delete;
    ~Module();

    void* library = nullptr;
    std::map<std::string, Function> functions;
    std::size_t tls_module = 0, static_shared = 0;
};

// Null if the image is not one that the emulated NVRTC made.
Module* load_module(const void* image);

}  // namespace emulated
