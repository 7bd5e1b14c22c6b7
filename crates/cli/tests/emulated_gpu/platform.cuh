// Stands for the project's header of this name, which holds what is not plain CUDA C++: the same interface, emulated.
#pragma once

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
struct __align__(2) bf16 {
    u16 bits;
};

#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(emulated_self->dynamic_shared)

__forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Round to nearest, ties to even; a NaN becomes PTX's canonical one.
__forceinline__ bf16 to_bf16(float x) {
    u32 bits = __float_as_uint(x);
    u32 rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return bf16{(u16)(x != x ? 0x7FFFu : rounded)};
}

__forceinline__ u32 pack_bf16(float low, float high) { return to_bf16(low).bits | (u32)to_bf16(high).bits << 16; }

// ex2.approx.ftz: denormals in and out are zero.
__forceinline__ float reciprocal_fast(float x) { return 1.0f / x; }

__forceinline__ float exp2_fast(float x) {
    float y = __builtin_exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

__forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* shared_row, int line = __builtin_LINE()) {
    emulated_self->runtime->load_matrices(emulated_self, r, shared_row, false, line);
}

__forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* shared_row, int line = __builtin_LINE()) {
    emulated_self->runtime->load_matrices(emulated_self, r, shared_row, true, line);
}

__forceinline__ void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], int line = __builtin_LINE()) {
    emulated_self->runtime->multiply_matrices(emulated_self, d, a, b, line);
}

__forceinline__ void cp_async_16(void* shared, const void* global, bool valid, int line = __builtin_LINE()) {
    emulated_self->runtime->copy_async(emulated_self, shared, global, 16, valid, line);
}

__forceinline__ void cp_async_4(void* shared, const void* global, bool valid, int line = __builtin_LINE()) {
    emulated_self->runtime->copy_async(emulated_self, shared, global, 4, valid, line);
}

__forceinline__ void cp_async_commit() { emulated_self->runtime->commit_copies(emulated_self); }

template <int N>
__forceinline__ void cp_async_wait() {
    emulated_self->runtime->wait_copies(emulated_self, N);
}

// Here kernels run one after the other.
__forceinline__ void let_next_begin() {}

__forceinline__ void wait_for_kernel_before() {}
