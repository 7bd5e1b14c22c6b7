// Goes through the three libraries as the program does: opens them by name, compiles, launches, compares.
#include "harness.h"

namespace {

// The text of the failure, or empty if there was none.
std::string output_of(const std::string& command) {
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    std::string text;
    char line[512];
    while (std::fgets(line, sizeof line, pipe)) text += line;
    return pclose(pipe) == 0 ? "" : text;
}

void* open_library(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        std::fprintf(stderr, "%s\n", dlerror());
        std::exit(1);
    }
    return library;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2) return 2;
    std::string folder = arguments[1];
    driver = open_library(folder + "/libcuda.so");
    compiler = open_library(folder + "/libnvrtc.so");
    products = open_library(folder + "/libcublasLt.so");
    int device = -1, major = 0;
    void* context = nullptr;
    std::uint64_t address = 0;
    expect(call(driver, "cuDeviceGet", &device, 0) == 3, "cuInit comes first");
    must(call(driver, "cuInit", 0u), "cuInit");
    must(call(driver, "cuDeviceGet", &device, 0), "cuDeviceGet");
    must(call(driver, "cuDeviceGetAttribute", &major, 75, device), "cuDeviceGetAttribute");
    expect(major == 9, "compute capability 9");
    must(call(driver, "cuDevicePrimaryCtxRetain", &context, device), "cuDevicePrimaryCtxRetain");
    expect(call(driver, "cuMemAlloc_v2", &address, std::size_t{16}) == 201, "nothing goes without a current context");
    must(call(driver, "cuCtxSetCurrent", context), "cuCtxSetCurrent");

    if (count > 2) {
        if (std::string(arguments[2]) == "delays") {
            delays();
        } else {
            wrong(arguments[2]);
        }
        return failures == 0 ? 0 : 1;
    }
    basics();
    matrices();
    all_products();
    refusals();
    events();
    pitched_copies();
    races();
    struct {
        const char *name, *message;
    } cases[] = {
        {"in_front", "was written 4 bytes in front of allocation 1 of 256 bytes"},
        {"far_behind", "4096 bytes behind allocation 1 of 256 bytes"},
        {"freed", "no memory of the device"},
        {"behind", "0 bytes behind allocation 1 of 256 bytes"},
        {"different_operations", "different operations"},
        {"never", "deadlock"},
        {"different_barriers", "different __syncthreads"},
        {"behind_shared", "dynamic shared memory"},
        {"host_pointer", "no memory of the device"},
        {"misaligned", "not aligned as its type"},
        {"outside_array", "outside its array"},
        {"no_memory", "which is no memory"},
        {"deep", "stack do not suffice"},
        {"kept", "ends with a context that it has not released"},
    };
    for (const auto& one : cases) {
        std::string text =
            output_of("EMULATED_GPU_CHECK=1 " + std::string(arguments[0]) + " " + folder + " " + one.name);
        expect(text.find(one.message) != std::string::npos,
               std::string(one.name) + " ends with a message, got: " + text);
    }
    std::string text = output_of("EMULATED_GPU_DELAY=1 " + std::string(arguments[0]) + " " + folder + " delays");
    expect(text.empty(), "delayed work: " + text);
    std::size_t free = 0, total = 0;
    must(call(driver, "cuMemGetInfo_v2", &free, &total), "cuMemGetInfo");
    expect(free == total, "all memory was given back");
    must(call(driver, "cuDevicePrimaryCtxRelease_v2", device), "cuDevicePrimaryCtxRelease");
    expect(call(driver, "cuDevicePrimaryCtxRelease_v2", device) == 201, "what is not retained is not released");
    if (failures == 0) std::printf("the emulated GPU passes its tests\n");
    return failures == 0 ? 0 : 1;
}
