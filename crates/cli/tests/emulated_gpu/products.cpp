// libcublasLt: matrix products. What this does not compute exactly as cuBLASLt documents it, it refuses as not
// supported.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <utility>

#include "gemm.h"

#define API extern "C" __attribute__((visibility("default")))

// Of the emulated driver.
extern "C" int emulated_on_device(const void* address, std::size_t bytes);
extern "C" void emulated_check_after(const char* what);
extern "C" void emulated_enqueue(const void* stream, std::function<void()> work);

namespace {

using emulated::Matrix;
using emulated::Type;

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_32F_FAST_TF32 = 77 };
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };

struct Description {
    std::int32_t compute_type, scale_type, pointer_mode = 0, transpose_a = 0, transpose_b = 0, transpose_c = 0;
    std::int32_t fill_mode = 2, multiprocessors = 0, bias_type = -1;
    std::uint32_t epilogue = EPILOGUE_DEFAULT;
    void* bias = nullptr;
    std::int64_t bias_step = 0;
};

struct Layout {
    std::int32_t type, order = 0, batches = 1;
    std::uint64_t rows, columns;
    std::int64_t ld, batch_step = 0, plane_offset = 0;
};

struct Preference {
    std::uint32_t search_mode = 0, reduction_schemes = ~0u, alignment_a = 256, alignment_b = 256, alignment_c = 256,
                  alignment_d = 256;
    std::uint64_t max_workspace = 0, implementations = ~0ULL;
    float max_waves = 0;
};

// cublasLtMatmulAlgo_t, of which callers know only the size. Holds what the caller promised of its pointers.
struct Algorithm {
    char magic[8];
    std::uint32_t alignment_a, alignment_b, alignment_c, alignment_d;
    std::uint64_t workspace;
    std::uint64_t rest[4];
};
static_assert(sizeof(Algorithm) == 64, "as cublasLtMatmulAlgo_t");
constexpr char ALGORITHM[] = "emulate";

struct HeuristicResult {
    Algorithm algorithm;
    std::size_t workspace;
    std::int32_t state;
    float waves;
    std::int32_t reserved[4];
};

Status refuse(Status status, const char* why) {
    std::fprintf(stderr, "emulated cuBLASLt: %s: %s\n", status == NOT_SUPPORTED ? "not supported" : "invalid value",
                 why);
    return status;
}

template <class T>
Status store(T& attribute, const void* value, std::size_t bytes) {
    if (bytes != sizeof(T)) return refuse(INVALID_VALUE, "size of an attribute");
    std::memcpy(&attribute, value, bytes);
    return SUCCESS;
}

bool type_of(std::int32_t code, Type& type) {
    type = code == CUDA_R_32F ? Type::f32 : Type::bf16;
    return code == CUDA_R_32F || code == CUDA_R_16BF;
}

// Whether the product can be computed; the heuristic and the product itself ask.
Status check(const Description& what, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    Type type;
    for (const Layout* layout : {&a, &b, &c, &d}) {
        if (!type_of(layout->type, type)) return refuse(NOT_SUPPORTED, "a type other than f32 and bf16");
        if (layout->order != 0) return refuse(NOT_SUPPORTED, "an order other than by columns");
        if (layout->ld < static_cast<std::int64_t>(layout->rows))
            return refuse(INVALID_VALUE, "a leading dimension below the rows");
        if (layout->batches != d.batches) return refuse(INVALID_VALUE, "different numbers of batches");
        if (layout->plane_offset != 0) return refuse(NOT_SUPPORTED, "complex planes");
    }
    if (a.type != b.type || c.type != d.type || (a.type == CUDA_R_32F && d.type != CUDA_R_32F)) {
        return refuse(NOT_SUPPORTED, "this combination of types");
    }
    bool tf32 = what.compute_type == COMPUTE_32F_FAST_TF32;
    if (what.compute_type != COMPUTE_32F && what.compute_type != COMPUTE_32F_PEDANTIC && !tf32) {
        return refuse(NOT_SUPPORTED, "this compute type");
    }
    if (tf32 && a.type != CUDA_R_32F) return refuse(NOT_SUPPORTED, "TF32 of bf16");
    if (what.scale_type != CUDA_R_32F) return refuse(NOT_SUPPORTED, "a scale type other than f32");
    if (what.pointer_mode != 0) return refuse(NOT_SUPPORTED, "alpha and beta on the device");
    // 0 no, 1 transposed, 2 conjugate, which is as transposed for reals
    if (what.transpose_a < 0 || what.transpose_a > 2 || what.transpose_b < 0 || what.transpose_b > 2) {
        return refuse(INVALID_VALUE, "an operation on A or B");
    }
    if (what.transpose_c != 0 || what.fill_mode != 2) return refuse(NOT_SUPPORTED, "an operation on C, or part of it");
    std::uint64_t m = what.transpose_a ? a.columns : a.rows, k = what.transpose_a ? a.rows : a.columns;
    std::uint64_t b_rows = what.transpose_b ? b.columns : b.rows, n = what.transpose_b ? b.rows : b.columns;
    if (b_rows != k || c.rows != m || d.rows != m || c.columns != n || d.columns != n) {
        return refuse(INVALID_VALUE, "shapes that do not fit");
    }
    if (m == 0 || n == 0 || k == 0) return refuse(INVALID_VALUE, "an empty matrix");
    switch (what.epilogue) {
        case EPILOGUE_DEFAULT: return SUCCESS;
        case EPILOGUE_BIAS: break;
        default: return refuse(NOT_SUPPORTED, "this epilogue");
    }
    if (what.bias_type != -1 && !type_of(what.bias_type, type)) return refuse(NOT_SUPPORTED, "this type of bias");
    return SUCCESS;
}

Matrix matrix(const void* values, const Layout& layout, bool transposed) {
    Matrix result;
    result.values = const_cast<void*>(values);
    type_of(layout.type, result.type);
    result.row_step = transposed ? layout.ld : 1;
    result.column_step = transposed ? 1 : layout.ld;
    result.batch_step = layout.batch_step;
    return result;
}

void need_on_device(const char* name, const void* values, std::size_t bytes) {
    if (emulated_on_device(values, bytes)) return;
    std::fprintf(stderr,
                 "emulated cuBLASLt: %s of %zu bytes at %p is not, or not wholly, in one allocation of the device\n",
                 name, bytes, values);
    std::abort();
}

void need_on_device(const char* name, const void* values, const Layout& layout) {
    Type type;
    type_of(layout.type, type);
    std::size_t elements = (layout.columns - 1) * layout.ld + layout.rows + (layout.batches - 1) * layout.batch_step;
    need_on_device(name, values, elements * emulated::bytes_of(type));
}

bool aligned(const void* pointer, std::size_t to) { return reinterpret_cast<std::uintptr_t>(pointer) % to == 0; }

}  // namespace

API int cublasLtCreate(void** handle) {
    *handle = new int;
    return SUCCESS;
}

API int cublasLtDestroy(void* handle) {
    if (!handle) return INVALID_VALUE;
    delete static_cast<int*>(handle);
    return SUCCESS;
}

API std::size_t cublasLtGetVersion() { return 130000; }
API std::size_t cublasLtGetCudartVersion() { return 13000; }

API int cublasLtMatmulDescCreate(Description** description, int compute_type, int scale_type) {
    *description = new Description;
    (*description)->compute_type = compute_type;
    (*description)->scale_type = scale_type;
    return SUCCESS;
}

API int cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return SUCCESS;
}

API int cublasLtMatmulDescSetAttribute(Description* what, int attribute, const void* value, std::size_t bytes) {
    if (!what || !value) return INVALID_VALUE;
    switch (attribute) {
        case 0: return store(what->compute_type, value, bytes);
        case 1: return store(what->scale_type, value, bytes);
        case 2: return store(what->pointer_mode, value, bytes);
        case 3: return store(what->transpose_a, value, bytes);
        case 4: return store(what->transpose_b, value, bytes);
        case 5: return store(what->transpose_c, value, bytes);
        case 6: return store(what->fill_mode, value, bytes);
        case 7: return store(what->epilogue, value, bytes);
        case 8: return store(what->bias, value, bytes);
        case 10: return store(what->bias_step, value, bytes);
        case 15: return store(what->multiprocessors, value, bytes);
        case 26: return store(what->bias_type, value, bytes);
        default: return refuse(NOT_SUPPORTED, "this attribute of a product");
    }
}

API int cublasLtMatrixLayoutCreate(Layout** layout, int type, std::uint64_t rows, std::uint64_t columns,
                                   std::int64_t ld) {
    *layout = new Layout;
    (*layout)->type = type;
    (*layout)->rows = rows;
    (*layout)->columns = columns;
    (*layout)->ld = ld;
    return SUCCESS;
}

API int cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return SUCCESS;
}

API int cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, std::size_t bytes) {
    if (!layout || !value) return INVALID_VALUE;
    switch (attribute) {
        case 0: return store(layout->type, value, bytes);
        case 1: return store(layout->order, value, bytes);
        case 2: return store(layout->rows, value, bytes);
        case 3: return store(layout->columns, value, bytes);
        case 4: return store(layout->ld, value, bytes);
        case 5: return store(layout->batches, value, bytes);
        case 6: return store(layout->batch_step, value, bytes);
        case 7: return store(layout->plane_offset, value, bytes);
        default: return refuse(NOT_SUPPORTED, "this attribute of a layout");
    }
}

API int cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return SUCCESS;
}

API int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return SUCCESS;
}

API int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value,
                                             std::size_t bytes) {
    if (!preference || !value) return INVALID_VALUE;
    switch (attribute) {
        case 0: return store(preference->search_mode, value, bytes);
        case 1: return store(preference->max_workspace, value, bytes);
        case 3: return store(preference->reduction_schemes, value, bytes);
        case 5: return store(preference->alignment_a, value, bytes);
        case 6: return store(preference->alignment_b, value, bytes);
        case 7: return store(preference->alignment_c, value, bytes);
        case 8: return store(preference->alignment_d, value, bytes);
        case 9: return store(preference->max_waves, value, bytes);
        case 12: return store(preference->implementations, value, bytes);
        default: return refuse(NOT_SUPPORTED, "this attribute of a preference");
    }
}

API int cublasLtMatmulAlgoGetHeuristic(void* handle, const Description* what, const Layout* a, const Layout* b,
                                       const Layout* c, const Layout* d, const Preference* preference, int requested,
                                       HeuristicResult* results, int* found) {
    if (!handle) return NOT_INITIALIZED;
    if (!what || !a || !b || !c || !d || !preference || requested < 1 || !results || !found) return INVALID_VALUE;
    *found = 0;
    if (Status status = check(*what, *a, *b, *c, *d)) return status;
    HeuristicResult& result = results[0];
    std::memset(&result, 0, sizeof result);
    std::memcpy(result.algorithm.magic, ALGORITHM, sizeof ALGORITHM);
    result.algorithm.alignment_a = preference->alignment_a;
    result.algorithm.alignment_b = preference->alignment_b;
    result.algorithm.alignment_c = preference->alignment_c;
    result.algorithm.alignment_d = preference->alignment_d;
    // Not that it needs any: a caller that gives none, or not enough, is to be found out.
    result.algorithm.workspace = result.workspace = preference->max_workspace < 4096 ? preference->max_workspace : 4096;
    result.state = SUCCESS;
    result.waves = 1;
    *found = 1;
    return SUCCESS;
}

API int cublasLtMatmul(void* handle, const Description* what, const float* alpha, const void* a, const Layout* a_layout,
                       const void* b, const Layout* b_layout, const float* beta, const void* c, const Layout* c_layout,
                       void* d, const Layout* d_layout, const Algorithm* algorithm, void* workspace,
                       std::size_t workspace_bytes, void* stream) {
    if (!handle) return NOT_INITIALIZED;
    if (!what || !alpha || !beta || !a || !b || !d || !a_layout || !b_layout || !c_layout || !d_layout)
        return INVALID_VALUE;
    if (*beta != 0 && !c) return INVALID_VALUE;
    if (Status status = check(*what, *a_layout, *b_layout, *c_layout, *d_layout)) return status;
    if (c == d && (c_layout->ld != d_layout->ld || c_layout->batch_step != d_layout->batch_step)) {
        return refuse(INVALID_VALUE, "C and D at the same place in different layouts");
    }
    if (algorithm) {
        if (std::memcmp(algorithm->magic, ALGORITHM, sizeof ALGORITHM) != 0)
            return refuse(INVALID_VALUE, "an unknown algorithm");
        if (!aligned(a, algorithm->alignment_a) || !aligned(b, algorithm->alignment_b) ||
            (*beta != 0 && !aligned(c, algorithm->alignment_c)) || !aligned(d, algorithm->alignment_d)) {
            return refuse(NOT_SUPPORTED, "a pointer less aligned than the heuristic was told (256 bytes if nothing)");
        }
        if (algorithm->workspace > workspace_bytes ||
            (algorithm->workspace && (!workspace || !aligned(workspace, 16)))) {
            return refuse(INVALID_VALUE, "less workspace than the algorithm needs, or not aligned");
        }
        if (algorithm->workspace) need_on_device("the workspace", workspace, workspace_bytes);
    }
    need_on_device("A", a, *a_layout);
    need_on_device("B", b, *b_layout);
    if (*beta != 0) need_on_device("C", c, *c_layout);
    need_on_device("D", d, *d_layout);

    emulated::Product p;
    p.m = d_layout->rows;
    p.n = d_layout->columns;
    p.k = what->transpose_a ? a_layout->rows : a_layout->columns;
    p.batches = d_layout->batches;
    p.a = matrix(a, *a_layout, what->transpose_a != 0);
    p.b = matrix(b, *b_layout, what->transpose_b != 0);
    p.c = matrix(c, *c_layout, false);
    p.d = matrix(d, *d_layout, false);
    p.alpha = *alpha;
    p.beta = *beta;
    p.tf32 = what->compute_type == COMPUTE_32F_FAST_TF32;
    p.bias = what->epilogue == EPILOGUE_BIAS ? what->bias : nullptr;
    p.bias_step = what->bias_step;
    type_of(what->bias_type == -1 ? d_layout->type : what->bias_type, p.bias_type);
    if (what->epilogue != EPILOGUE_DEFAULT) {
        if (!what->bias) return refuse(INVALID_VALUE, "an epilogue with a bias, but no pointer");
        need_on_device("the bias", what->bias, (p.m + (p.batches - 1) * p.bias_step) * emulated::bytes_of(p.bias_type));
    }
    std::size_t workspace_used = algorithm ? algorithm->workspace : 0;
    emulated_enqueue(stream, [p, workspace, workspace_used] {
        if (workspace_used) std::memset(workspace, 0xFF, workspace_used);
        emulated::multiply(p);
        emulated_check_after("a product of cuBLASLt");
    });
    return SUCCESS;
}
