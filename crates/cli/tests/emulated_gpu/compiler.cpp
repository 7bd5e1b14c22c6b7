// libnvrtc: compiles a program with g++ into a shared library, whose bytes are called a cubin.
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "abi.h"
#include "kernels.h"

#define API extern "C" __attribute__((visibility("default")))

namespace fs = std::filesystem;

namespace {

enum Result {
    SUCCESS = 0,
    OUT_OF_MEMORY = 1,
    PROGRAM_CREATION_FAILURE = 2,
    INVALID_INPUT = 3,
    INVALID_PROGRAM = 4,
    INVALID_OPTION = 5,
    COMPILATION = 6,
    INTERNAL_ERROR = 11,
};

// Static shared memory of a kernel at most, in bytes.
constexpr std::size_t MAX_STATIC_SHARED = 48 << 10;

struct Program {
    std::string source, name;
    std::vector<std::pair<std::string, std::string>> headers;  // name, text
    std::string log, cubin;
};

struct Options {
    std::vector<std::string> arguments;  // for g++
    int architecture = 52;
    bool virtual_architecture = true;  // compute_XX: PTX, no cubin
};

const char* const FLAGS[] = {
    "-std=c++17",
    "-O2",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fvisibility=hidden",
    "-fPIC",
    "-ffixed-r15",
    "-w",
};

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

bool write(const fs::path& path, const std::string& text) {
    if (path.has_parent_path()) fs::create_directories(path.parent_path());
    std::ofstream file(path, std::ios::binary);
    file << text;
    return file.good();
}

// The folder of this library, where build.sh puts device.h and platform.cuh. Found when the library is loaded, since
// its name may be relative to the folder that the process is in at that time.
const fs::path& home() {
    static const fs::path folder = [] {
        Dl_info info;
        dladdr(reinterpret_cast<void*>(&home), &info);
        return fs::absolute(info.dli_fname).parent_path();
    }();
    return folder;
}
[[maybe_unused]] const fs::path& found_at_load = home();

// Runs g++ in a folder; what it prints goes to the file `log` there.
bool run_compiler(const fs::path& folder, const std::vector<std::string>& arguments) {
    std::vector<char*> argv;
    std::string program = "g++";
    argv.push_back(program.data());
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    posix_spawn_file_actions_addopen(&actions, 1, "log", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t process;
    int failure = posix_spawnp(&process, "g++", &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure) {
        write(folder / "log", "g++ cannot be run: " + std::string(std::strerror(failure)) + "\n");
        return false;
    }
    int status = 0;
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Two 64-bit FNV-1a sums, from different beginnings.
std::string fingerprint(const std::string& text) {
    unsigned long long a = 0xcbf29ce484222325ULL, b = 0x9e3779b97f4a7c15ULL;
    for (unsigned char byte : text) {
        a = (a ^ byte) * 0x100000001b3ULL;
        b = (b ^ byte) * 0x100000001b3ULL;
    }
    char digits[40];
    std::snprintf(digits, sizeof digits, "%016llx%016llx", a, b);
    return digits;
}

// EMULATED_GPU_CHECK=1
bool checking() {
    const char* value = std::getenv("EMULATED_GPU_CHECK");
    return value && !std::strcmp(value, "1");
}

// g++ is no small program: as many run at a time as there are processors.
class Turn {
  public:
    Turn() {
        std::unique_lock<std::mutex> lock(mutex);
        free.wait(lock, [] { return running < std::max(1u, std::thread::hardware_concurrency()); });
        ++running;
    }
    Turn(const Turn&) = delete;
    ~Turn() {
        std::lock_guard<std::mutex> lock(mutex);
        --running;
        free.notify_one();
    }

  private:
    inline static std::mutex& mutex = *new std::mutex;
    inline static std::condition_variable& free = *new std::condition_variable;
    inline static unsigned running = 0;
};

bool starts(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

// Understands NVRTC's options as far as they mean something here; false for what NVRTC does not know either.
bool parse(int count, const char* const* given, Options& options) {
    for (int i = 0; i < count; ++i) {
        std::string option = given[i];
        auto value_after = [&](const char* name) -> std::string {
            if (starts(option, (std::string(name) + "=").c_str())) return option.substr(std::strlen(name) + 1);
            return option == name && i + 1 < count ? given[++i] : "";
        };
        if (starts(option, "--gpu-architecture") || starts(option, "-arch")) {
            std::string name = value_after(starts(option, "-arch") ? "-arch" : "--gpu-architecture");
            std::size_t digits = name.find('_');
            if (digits == std::string::npos) return false;
            options.virtual_architecture = starts(name, "compute");
            options.architecture = std::atoi(name.c_str() + digits + 1);
        } else if (starts(option, "--define-macro") || option == "-D") {
            options.arguments.push_back("-D" + value_after(option == "-D" ? "-D" : "--define-macro"));
        } else if (starts(option, "-D") || starts(option, "-U") || starts(option, "-I")) {
            options.arguments.push_back(option);
        } else if (starts(option, "--include-path")) {
            options.arguments.push_back("-I" + value_after("--include-path"));
        } else if (starts(option, "--std") || starts(option, "-std")) {
            std::string standard = value_after(starts(option, "--") ? "--std" : "-std");
            options.arguments.push_back("-std=" + standard);
        } else {
            static const char* const WITHOUT_MEANING[] = {"--use_fast_math",
                                                          "-use_fast_math",
                                                          "--ftz",
                                                          "-ftz",
                                                          "--prec-sqrt",
                                                          "-prec-sqrt",
                                                          "--prec-div",
                                                          "-prec-div",
                                                          "--fmad",
                                                          "-fmad",
                                                          "--maxrregcount",
                                                          "-maxrregcount",
                                                          "--generate-line-info",
                                                          "-lineinfo",
                                                          "--device-debug",
                                                          "-G",
                                                          "--dopt",
                                                          "-dopt",
                                                          "--ptxas-options",
                                                          "-Xptxas",
                                                          "--restrict",
                                                          "-restrict",
                                                          "--extra-device-vectorization",
                                                          "-extra-device-vectorization",
                                                          "--device-as-default-execution-space",
                                                          "-default-device",
                                                          "--disable-warnings",
                                                          "-w",
                                                          "--split-compile",
                                                          "-split-compile",
                                                          "--minimal",
                                                          "-minimal",
                                                          "--diag-suppress",
                                                          "-diag-suppress",
                                                          "--dlcm",
                                                          "--no-cache",
                                                          "-no-cache"};
            bool known = false;
            for (const char* name : WITHOUT_MEANING) {
                std::string text = name;
                known = known || option == text || starts(option, (text + "=").c_str());
            }
            if (!known) return false;
            if (option == "-Xptxas" || option == "--ptxas-options") ++i;
        }
    }
    return true;
}

// Compiles in `folder`, or takes what an earlier run has compiled of the same text.
Result compile(Program& program, const Options& options, const fs::path& folder) {
    for (const auto& [name, text] : program.headers) {
        if (!write(folder / name, text)) return INTERNAL_ERROR;
    }
    for (const char* name : {"abi.h", "device.h", "platform.cuh"}) {
        fs::copy_file(home() / "include" / name, folder / name, fs::copy_options::overwrite_existing);
    }
    std::string name = fs::path(program.name).filename().string();
    if (!write(folder / name, program.source)) return INTERNAL_ERROR;

    std::vector<std::string> flags(std::begin(FLAGS), std::end(FLAGS));
    // Not for the processor at hand alone: compiled programs are kept, perhaps for another one.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) flags.push_back("-march=haswell");
    if (checking()) {
        flags.push_back("-fsanitize=alignment,bounds-strict,shift-exponent");
        flags.push_back("-fno-sanitize-recover=all");
    }
    flags.push_back("-D__CUDA_ARCH__=" + std::to_string(options.architecture * 10));
    flags.insert(flags.end(), options.arguments.begin(), options.arguments.end());
    std::vector<std::string> arguments = flags;
    for (const char* argument :
         {"-E", "-nostdinc", "-nostdinc++", "-I.", "-include", "device.h", "-x", "c++", "-o", "preprocessed.cpp"}) {
        arguments.push_back(argument);
    }
    arguments.push_back(name);
    bool good = run_compiler(folder, arguments);
    program.log = read(folder / "log");
    if (!good) return COMPILATION;

    std::string text = read(folder / "preprocessed.cpp");
    std::vector<emulated::Definition> kernels = emulated::find_kernels(text);
    text += emulated::table(kernels);
    std::string key = text + std::to_string(EMULATED_VERSION);
    for (const std::string& flag : flags) key += flag;
    fs::path cached = home() / "cache" / fingerprint(key);
    if (fs::exists(cached)) {
        program.cubin = read(cached);
        return SUCCESS;
    }
    if (!write(folder / "program.cpp", text)) return INTERNAL_ERROR;
    arguments = flags;
    for (const char* argument :
         {"-D__global__=", "-D__launch_bounds__(...)=", "-S", "-o", "program.s", "program.cpp"}) {
        arguments.push_back(argument);
    }
    good = run_compiler(folder, arguments) &&
           run_compiler(folder, {"-shared", "-Wl,--as-needed", "-Wl,-z,defs", "-o", "program.so", "program.s", "-lm"});
    program.log = read(folder / "log");
    if (!good) return COMPILATION;
    std::string kernel_lines;
    for (const auto& [kernel, bytes] : emulated::static_shared(read(folder / "program.s"), kernels)) {
        if (bytes > MAX_STATIC_SHARED) {
            char text[200];
            std::snprintf(text, sizeof text,
                          "ptxas error   : Entry function '%s' uses too much shared data (0x%zx bytes, 0x%zx max)\n",
                          kernel.c_str(), bytes, MAX_STATIC_SHARED);
            program.log += text;
            return COMPILATION;
        }
        kernel_lines += kernel + " " + std::to_string(bytes) + "\n";
    }
    std::string library = read(folder / "program.so");
    emulated::ImageHeader header = {{}, EMULATED_VERSION, library.size(), kernel_lines.size()};
    std::memcpy(header.magic, emulated::IMAGE_MAGIC, sizeof header.magic);
    program.cubin.assign(reinterpret_cast<const char*>(&header), sizeof header);
    program.cubin += library + kernel_lines;
    // Under a name of its own first: others may compile the same at the same time.
    std::error_code ignored;
    fs::create_directories(cached.parent_path(), ignored);
    fs::path fresh = cached;
    fresh += "." + std::to_string(getpid()) + folder.filename().string();
    if (write(fresh, program.cubin)) fs::rename(fresh, cached, ignored);
    return SUCCESS;
}

std::string ptx(const Program& program) {
    std::string text = "// emulated PTX\n";
    for (unsigned char byte : program.cubin) {
        text += "0123456789abcdef"[byte / 16];
        text += "0123456789abcdef"[byte % 16];
    }
    return text;
}

Program* from(void* handle) { return static_cast<Program*>(handle); }

}  // namespace

API int nvrtcVersion(int* major, int* minor) {
    // Whoever keeps what was compiled by the compiler's version is to notice another version of the emulator.
    *major = 13;
    *minor = static_cast<int>(EMULATED_VERSION % 1000000 * 2 + checking());
    return SUCCESS;
}

API int nvrtcCreateProgram(void** handle, const char* source, const char* name, int header_count,
                           const char* const* headers, const char* const* names) {
    if (!handle || !source) return INVALID_INPUT;
    Program* program = new Program;
    program->source = source;
    program->name = name && *name ? name : "default_program";
    for (int i = 0; i < header_count; ++i) program->headers.emplace_back(names[i], headers[i]);
    *handle = program;
    return SUCCESS;
}

API int nvrtcDestroyProgram(void** handle) {
    if (!handle || !*handle) return INVALID_PROGRAM;
    delete from(*handle);
    *handle = nullptr;
    return SUCCESS;
}

API int nvrtcCompileProgram(void* handle, int count, const char* const* given) {
    if (!handle) return INVALID_PROGRAM;
    Options options;
    if (!parse(count, given, options)) {
        from(handle)->log = "nvrtc: error: unrecognized option\n";
        return INVALID_OPTION;
    }
    const char* parent = std::getenv("TMPDIR");
    std::string folder = std::string(parent && *parent ? parent : "/tmp") + "/emulated_gpu_program_XXXXXX";
    if (!mkdtemp(folder.data())) return INTERNAL_ERROR;
    Result result;
    Turn turn;
    try {
        result = compile(*from(handle), options, folder);
    } catch (const std::exception& failure) {
        from(handle)->log = failure.what();
        result = INTERNAL_ERROR;
    }
    std::error_code ignored;
    if (!std::getenv("EMULATED_GPU_KEEP")) fs::remove_all(folder, ignored);
    return result;
}

API int nvrtcGetCUBINSize(void* handle, std::size_t* bytes) {
    if (!handle) return INVALID_PROGRAM;
    *bytes = from(handle)->cubin.size();
    return SUCCESS;
}

API int nvrtcGetCUBIN(void* handle, char* bytes) {
    if (!handle) return INVALID_PROGRAM;
    std::memcpy(bytes, from(handle)->cubin.data(), from(handle)->cubin.size());
    return SUCCESS;
}

API int nvrtcGetPTXSize(void* handle, std::size_t* bytes) {
    if (!handle) return INVALID_PROGRAM;
    *bytes = ptx(*from(handle)).size() + 1;
    return SUCCESS;
}

API int nvrtcGetPTX(void* handle, char* text) {
    if (!handle) return INVALID_PROGRAM;
    std::strcpy(text, ptx(*from(handle)).c_str());
    return SUCCESS;
}

API int nvrtcGetProgramLogSize(void* handle, std::size_t* bytes) {
    if (!handle) return INVALID_PROGRAM;
    *bytes = from(handle)->log.size() + 1;
    return SUCCESS;
}

API int nvrtcGetProgramLog(void* handle, char* text) {
    if (!handle) return INVALID_PROGRAM;
    std::strcpy(text, from(handle)->log.c_str());
    return SUCCESS;
}

API const char* nvrtcGetErrorString(int result) {
    switch (result) {
        case SUCCESS: return "NVRTC_SUCCESS";
        case OUT_OF_MEMORY: return "NVRTC_ERROR_OUT_OF_MEMORY";
        case PROGRAM_CREATION_FAILURE: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
        case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        case INTERNAL_ERROR: return "NVRTC_ERROR_INTERNAL_ERROR";
        default: return "NVRTC_ERROR unknown";
    }
}
