#include "modules.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vector>

namespace emulated {
namespace {

// A PTX text of the emulated NVRTC is its image in hexadecimal.
std::vector<char> from_text(const char* text) {
    std::vector<char> bytes;
    for (; text[0] && text[1] && text[0] != '\n'; text += 2) {
        char digits[3] = {text[0], text[1], 0};
        bytes.push_back(static_cast<char>(std::strtoul(digits, nullptr, 16)));
    }
    return bytes;
}

void* open_library(const char* bytes, std::size_t count) {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder && *folder ? folder : "/tmp") + "/emulated_gpu_module_XXXXXX";
    int file = mkstemp(path.data());
    if (file < 0) {
        std::perror(path.c_str());
        return nullptr;
    }
    while (count > 0) {
        ssize_t written = write(file, bytes, count);
        if (written <= 0) break;
        bytes += written;
        count -= static_cast<std::size_t>(written);
    }
    close(file);
    void* library = count == 0 ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library) std::fprintf(stderr, "emulated GPU: %s\n", count == 0 ? dlerror() : "no room for a module");
    unlink(path.c_str());
    return library;
}

// How much thread-local storage, which is to say static shared memory, a library has.
struct TlsSearch {
    ElfW(Addr) base;
    std::size_t bytes;
};

int find_tls(dl_phdr_info* info, std::size_t, void* data) {
    auto search = static_cast<TlsSearch*>(data);
    if (info->dlpi_addr != search->base) return 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        if (info->dlpi_phdr[i].p_type == PT_TLS) search->bytes = info->dlpi_phdr[i].p_memsz;
    }
    return 1;
}

}  // namespace

Module::~Module() {
    if (library) dlclose(library);
}

Module* load_module(const void* image) {
    if (!image) return nullptr;
    constexpr char TEXT[] = "// emulated PTX\n";
    std::vector<char> decoded;
    if (!std::memcmp(image, "// ", 3)) {
        if (std::strncmp(static_cast<const char*>(image), TEXT, sizeof TEXT - 1) != 0) return nullptr;
        decoded = from_text(static_cast<const char*>(image) + sizeof TEXT - 1);
        image = decoded.data();
    }
    auto header = static_cast<const ImageHeader*>(image);
    if (std::memcmp(header->magic, IMAGE_MAGIC, sizeof header->magic) != 0) return nullptr;
    if (header->version != EMULATED_VERSION) {
        std::fprintf(stderr, "emulated GPU: an image of another version of the emulator\n");
        return nullptr;
    }
    auto bytes = reinterpret_cast<const char*>(header + 1);

    Module* module = new Module;
    module->library = open_library(bytes, header->library_bytes);
    if (!module->library) {
        delete module;
        return nullptr;
    }
    link_map* map = nullptr;
    dlinfo(module->library, RTLD_DI_LINKMAP, &map);
    TlsSearch search = {map->l_addr, 0};
    dl_iterate_phdr(find_tls, &search);
    if (search.bytes) {
        dlinfo(module->library, RTLD_DI_TLS_MODID, &module->tls_module);
        module->static_shared = search.bytes;
    }
    auto kernels = static_cast<const Kernel*>(dlsym(module->library, "emulated_kernels"));
    for (const Kernel* kernel = kernels; kernel->name; ++kernel) {
        module->functions[kernel->name] = Function{kernel, module, 0, 0};
    }
    std::istringstream text(std::string(bytes + header->library_bytes, header->text_bytes));
    std::string name;
    for (int shared; text >> name >> shared;) module->functions.at(name).static_shared = shared;
    return module;
}

}  // namespace emulated
