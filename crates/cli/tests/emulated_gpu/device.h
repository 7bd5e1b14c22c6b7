// The language that NVRTC gives to kernels, for g++: put in front of every program. Only what the project's kernels
// use, and what one would expect beside it. There are no standard headers, since NVRTC has none either.
#pragma once
#include "abi.h"

#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

// Shared memory is thread-local: each operating-system thread runs one block at a time. A module has no other
// thread-local storage, so the driver knows all of it, and fills it before each block.
#define __shared__ static thread_local

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

register emulated::Thread* emulated_self asm("r15");

typedef emulated::Dim uint3;
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
#define threadIdx (emulated_self->thread_index)
#define blockIdx (emulated_self->block_index)
#define blockDim (emulated_self->block_dim)
#define gridDim (emulated_self->grid_dim)
constexpr int warpSize = 32;

// ---- vectors ----

#define EMULATED_VECTORS(type, name)                                                         \
    struct __align__(sizeof(type)) name##1 { type x; };                                      \
    struct __align__(2 * sizeof(type)) name##2 { type x, y; };                               \
    struct __align__(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name##4 { type x, y, z, w; }; \
    inline name##1 make_##name##1(type x) { return {x}; }                                    \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                         \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float)
EMULATED_VECTORS(double, double)
EMULATED_VECTORS(int, int)
EMULATED_VECTORS(unsigned, uint)
EMULATED_VECTORS(short, short)
EMULATED_VECTORS(unsigned short, ushort)
EMULATED_VECTORS(signed char, char)
EMULATED_VECTORS(unsigned char, uchar)
EMULATED_VECTORS(long long, longlong)
EMULATED_VECTORS(unsigned long long, ulonglong)
#undef EMULATED_VECTORS
struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

// ---- threads together ----

inline void __syncthreads(int line = __builtin_LINE()) {
    unsigned threads;
    emulated_self->runtime->block_barrier(emulated_self, false, &threads, line);
}
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
    unsigned threads;
    return (int)emulated_self->runtime->block_barrier(emulated_self, predicate != 0, &threads, line);
}
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
    return __syncthreads_count(predicate, line) != 0;
}
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
    unsigned threads;
    return emulated_self->runtime->block_barrier(emulated_self, predicate != 0, &threads, line) == threads;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, int line = __builtin_LINE()) {
    emulated_self->runtime->warp_barrier(emulated_self, mask, line);
}
inline unsigned __activemask() { return emulated_self->runtime->active_mask(emulated_self); }
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulated_self->runtime->ballot(emulated_self, mask, predicate != 0, line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, !predicate, line) == 0;
}

namespace emulated {
inline unsigned lane() {
    const Thread* self = emulated_self;
    return (self->thread_index.x +
            self->block_dim.x * (self->thread_index.y + self->block_dim.y * self->thread_index.z)) %
           32;
}
template <class T>
__forceinline__ T shuffle(unsigned mask, T value, unsigned source, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = emulated_self->runtime->shuffle(emulated_self, mask, bits, source, line);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}
}  // namespace emulated

// As PTX's shfl.sync: a lane whose source lies outside its segment of `width` lanes keeps its own value.
template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = emulated::lane(), segment = lane & ~(width - 1u);
    return emulated::shuffle(mask, value, segment + ((unsigned)source & (width - 1u)), line);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = emulated::lane(), inside = lane & (width - 1u);
    return emulated::shuffle(mask, value, inside >= delta ? lane - delta : lane, line);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                   int line = __builtin_LINE()) {
    unsigned lane = emulated::lane(), inside = lane & (width - 1u);
    return emulated::shuffle(mask, value, inside + delta < (unsigned)width ? lane + delta : lane, line);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = emulated::lane(), source = lane ^ (unsigned)lanes, end = (lane & ~(width - 1u)) + width;
    return emulated::shuffle(mask, value, source < end ? source : lane, line);
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __trap(int line = __builtin_LINE()) { emulated_self->runtime->trap(emulated_self, "__trap", line); }

// ---- atomics: blocks may run on different threads of the operating system ----

template <class T, class F>
__forceinline__ T emulated_atomic(T* address, F change) {
    T old, updated;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        updated = change(old);
    } while (!__atomic_compare_exchange(address, &old, &updated, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
#define EMULATED_ATOMICS(T)                                             \
    inline T atomicAdd(T* p, T v) {                                     \
        return emulated_atomic(p, [=](T old) { return (T)(old + v); }); \
    }                                                                   \
    inline T atomicSub(T* p, T v) {                                     \
        return emulated_atomic(p, [=](T old) { return (T)(old - v); }); \
    }                                                                   \
    inline T atomicExch(T* p, T v) {                                    \
        return emulated_atomic(p, [=](T) { return v; });                \
    }
#define EMULATED_INTEGER_ATOMICS(T)                                                  \
    EMULATED_ATOMICS(T)                                                              \
    inline T atomicMax(T* p, T v) {                                                  \
        return emulated_atomic(p, [=](T old) { return old > v ? old : v; });         \
    }                                                                                \
    inline T atomicMin(T* p, T v) {                                                  \
        return emulated_atomic(p, [=](T old) { return old < v ? old : v; });         \
    }                                                                                \
    inline T atomicAnd(T* p, T v) {                                                  \
        return emulated_atomic(p, [=](T old) { return (T)(old & v); });              \
    }                                                                                \
    inline T atomicOr(T* p, T v) {                                                   \
        return emulated_atomic(p, [=](T old) { return (T)(old | v); });              \
    }                                                                                \
    inline T atomicXor(T* p, T v) {                                                  \
        return emulated_atomic(p, [=](T old) { return (T)(old ^ v); });              \
    }                                                                                \
    inline T atomicCAS(T* p, T expected, T v) {                                      \
        return emulated_atomic(p, [=](T old) { return old == expected ? v : old; }); \
    }
EMULATED_INTEGER_ATOMICS(int)
EMULATED_INTEGER_ATOMICS(unsigned)
EMULATED_INTEGER_ATOMICS(unsigned long long)
EMULATED_ATOMICS(float)
EMULATED_ATOMICS(double)
#undef EMULATED_INTEGER_ATOMICS
#undef EMULATED_ATOMICS

// ---- integers and bits ----

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long bytes = (unsigned long long)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= (unsigned)(bytes >> (selector >> 4 * i & 7u) * 8 & 0xFFu) << 8 * i;
    return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31u));
}

template <class To, class From>
__forceinline__ To emulated_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To y;
    __builtin_memcpy(&y, &x, sizeof(To));
    return y;
}
// The sum of two floats that are not negative, rounded down: a double holds it exactly unless one is far smaller.
inline float __fadd_rz(float a, float b) {
    const double sum = (double)a + (double)b;
    const float nearest = (float)sum;
    return nearest > sum ? emulated_bits<float>(emulated_bits<unsigned>(nearest) - 1) : nearest;
}
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }

template <class T>
__forceinline__ T __ldg(const T* p) {
    return *p;
}
template <class T>
__forceinline__ T __ldcs(const T* p) {
    return *p;
}
template <class T>
__forceinline__ void __stcs(T* p, T value) {
    *p = value;
}

// ---- mathematics ----

#define EMULATED_MINMAX(T)                           \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
EMULATED_MINMAX(int)
EMULATED_MINMAX(unsigned)
EMULATED_MINMAX(long)
EMULATED_MINMAX(unsigned long)
EMULATED_MINMAX(long long)
EMULATED_MINMAX(unsigned long long)
#undef EMULATED_MINMAX
inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }

// Of a number and a NaN, the number.
inline float emulated_fmin(float a, float b) { return a != a ? b : b != b ? a : b < a ? b : a; }
inline float emulated_fmax(float a, float b) { return a != a ? b : b != b ? a : a < b ? b : a; }
inline double emulated_fmin(double a, double b) { return a != a ? b : b != b ? a : b < a ? b : a; }
inline double emulated_fmax(double a, double b) { return a != a ? b : b != b ? a : a < b ? b : a; }
#define fminf(a, b) emulated_fmin((float)(a), (float)(b))
#define fmaxf(a, b) emulated_fmax((float)(a), (float)(b))
#define fmin(a, b) emulated_fmin((double)(a), (double)(b))
#define fmax(a, b) emulated_fmax((double)(a), (double)(b))
inline float min(float a, float b) { return emulated_fmin(a, b); }
inline float max(float a, float b) { return emulated_fmax(a, b); }
inline double min(double a, double b) { return emulated_fmin(a, b); }
inline double max(double a, double b) { return emulated_fmax(a, b); }
inline double min(float a, double b) { return emulated_fmin((double)a, b); }
inline double min(double a, float b) { return emulated_fmin(a, (double)b); }
inline double max(float a, double b) { return emulated_fmax((double)a, b); }
inline double max(double a, float b) { return emulated_fmax(a, (double)b); }

// For each function of one argument its double form, its float form with an f, and the overload for floats.
#define EMULATED_FUNCTION(name)      \
    extern "C" double name(double);  \
    extern "C" float name##f(float); \
    __forceinline__ float name(float x) { return __builtin_##name##f(x); }
EMULATED_FUNCTION(sqrt)
EMULATED_FUNCTION(cbrt)
EMULATED_FUNCTION(exp)
EMULATED_FUNCTION(exp2)
EMULATED_FUNCTION(expm1)
EMULATED_FUNCTION(log)
EMULATED_FUNCTION(log2)
EMULATED_FUNCTION(log10)
EMULATED_FUNCTION(log1p)
EMULATED_FUNCTION(sin)
EMULATED_FUNCTION(cos)
EMULATED_FUNCTION(tan)
EMULATED_FUNCTION(tanh)
EMULATED_FUNCTION(erf)
EMULATED_FUNCTION(erfc)
EMULATED_FUNCTION(fabs)
EMULATED_FUNCTION(floor)
EMULATED_FUNCTION(ceil)
EMULATED_FUNCTION(trunc)
EMULATED_FUNCTION(rint)
EMULATED_FUNCTION(round)
#undef EMULATED_FUNCTION
#define EMULATED_FUNCTION(name)             \
    extern "C" double name(double, double); \
    extern "C" float name##f(float, float); \
    __forceinline__ float name(float x, float y) { return __builtin_##name##f(x, y); }
EMULATED_FUNCTION(pow)
EMULATED_FUNCTION(fmod)
EMULATED_FUNCTION(atan2)
EMULATED_FUNCTION(copysign)
#undef EMULATED_FUNCTION
extern "C" double fma(double, double, double);
extern "C" float fmaf(float, float, float);
__forceinline__ float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
extern "C" double ldexp(double, int);
extern "C" float ldexpf(float, int);
extern "C" int abs(int);
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline float abs(float x) { return __builtin_fabsf(x); }
inline double abs(double x) { return __builtin_fabs(x); }
template <class T>
__forceinline__ bool isnan(T x) {
    return __builtin_isnan(x);
}
template <class T>
__forceinline__ bool isinf(T x) {
    return __builtin_isinf(x);
}
template <class T>
__forceinline__ bool isfinite(T x) {
    return __builtin_isfinite(x);
}

inline float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float __expf(float x) { return __builtin_exp2f(x * 1.4426950408889634f); }
inline float __exp10f(float x) { return __builtin_exp2f(x * 3.3219280948873622f); }
inline float __log2f(float x) { return __builtin_log2f(x); }
inline float __logf(float x) { return __builtin_log2f(x) * 0.6931471805599453f; }
inline float __powf(float x, float y) { return __builtin_exp2f(y * __builtin_log2f(x)); }
inline float __sinf(float x) { return __builtin_sinf(x); }
inline float __cosf(float x) { return __builtin_cosf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __saturatef(float x) { return emulated_fmin(emulated_fmax(x, 0.0f), 1.0f); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
// These are never fused with what is done to their result: the empty instruction hides where it comes from.
__forceinline__ float emulated_opaque(float x) {
    asm("" : "+x"(x));
    return x;
}
inline float __fadd_rn(float a, float b) { return emulated_opaque(emulated_opaque(a) + emulated_opaque(b)); }
inline float __fsub_rn(float a, float b) { return emulated_opaque(emulated_opaque(a) - emulated_opaque(b)); }
inline float __fmul_rn(float a, float b) { return emulated_opaque(a * b); }
inline int __float2int_rn(float x) { return (int)__builtin_rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline unsigned __float2uint_rz(float x) { return (unsigned)x; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }

// ---- what g++ calls where a check that it has compiled in fails (EMULATED_GPU_CHECK=1) ----

namespace emulated {
struct SourceLocation {
    const char* file;
    unsigned line, column;
};
}  // namespace emulated
#define EMULATED_CHECK_FAILED(handler, reason)                                                                     \
    extern "C" __attribute__((used)) void __ubsan_handle_##handler##_abort(emulated::SourceLocation* at, size_t) { \
        emulated_self->runtime->trap(emulated_self, reason, (int)at->line);                                        \
    }
EMULATED_CHECK_FAILED(type_mismatch_v1, "an address is not aligned as its type must be")
EMULATED_CHECK_FAILED(out_of_bounds, "an index lies outside its array")
EMULATED_CHECK_FAILED(shift_out_of_bounds, "a shift by more bits than there are")
#undef EMULATED_CHECK_FAILED

// ---- how the driver calls a kernel: each argument is read from where the caller's array points ----

namespace emulated {
template <unsigned... I>
struct Indices {};
template <unsigned N, unsigned... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <unsigned... I>
struct MakeIndices<0, I...> {
    typedef Indices<I...> Type;
};
template <class T>
struct IsPointer {
    static constexpr unsigned long long value = 0;
};
template <class T>
struct IsPointer<T*> {
    static constexpr unsigned long long value = 1;
};
template <auto F>
struct Launcher;
template <class... T, void (*F)(T...)>
struct Launcher<F> {
    template <unsigned... I>
    static __forceinline__ void call(void** arguments, Indices<I...>) {
        F(*static_cast<T*>(arguments[I])...);
    }
    template <unsigned... I>
    static constexpr unsigned long long pointers(Indices<I...>) {
        return (0ULL | ... | (IsPointer<T>::value << I));
    }
    static void launch(void** arguments) { call(arguments, typename MakeIndices<sizeof...(T)>::Type()); }
    static constexpr unsigned SIZES[] = {sizeof(T)..., 0};
    static constexpr unsigned long long POINTERS = pointers(typename MakeIndices<sizeof...(T)>::Type());
};
constexpr unsigned bound(unsigned threads = 1024, unsigned = 0, unsigned = 0) { return threads; }
}  // namespace emulated
