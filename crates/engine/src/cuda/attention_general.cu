// Softmax attention for any head dimension and either kind of activations, a warp for each row. The kernels of
// attention.cu are for what is common; these are for everything else.
#include "random.cuh"

constexpr int WARPS = 4;
// Head dimensions up to this one.
constexpr int WIDEST = 512;
constexpr int PER_LANE = WIDEST / WARP;

template <typename T>
struct Heads {
    const T* data;
    int stride;

    __device__ __forceinline__ const T* row(u32 token, int head, int d) const {
        return data + size_t(token) * stride + head * d;
    }
};

// Each gene of this lane: its place in the lane's registers, and in the head.
#define EACH_GENE(i, g)                                                      \
    _Pragma("unroll") for (int i = 0, g = lane_of(); i < PER_LANE; i++, g += WARP) if (g < d)

template <typename T>
__device__ __forceinline__ float dot(const T* a, const T* b, int d) {
    float sum = 0;
    for (int i = 0; i < d; i++) sum += to_float(a[i]) * to_float(b[i]);
    return sum;
}

// The row's place: its token, its sequence's bounds.
struct Place {
    u32 token, begin, end, id;
    bool valid;

    __device__ __forceinline__ Place(const u32* owners, const u32* begins, const u32* ids, int tokens) {
        token = blockIdx.x * WARPS + warp_of();
        valid = token < u32(tokens);
        if (!valid) return;
        const u32 sequence = owners[token];
        begin = begins[sequence], end = begins[sequence + 1], id = ids[sequence];
    }
};

// 0, or what is left of 1: of the draw that names query and key.
__device__ __forceinline__ float mask(const Dropout& dropout, const Stream& stream, u32 query, u32 key, u32 length) {
    if (!dropout.threshold) return 1;
    const uint4 draw = block_of(stream, query * ((length + 3) / 4) + key / 4);
    const u32 bits = key % 4 == 0 ? draw.x : key % 4 == 1 ? draw.y : key % 4 == 2 ? draw.z : draw.w;
    return bits < dropout.threshold ? 0.0f : dropout.kept;
}

// sums[g] += weight of each lane's row . rows first..first + count
template <typename T>
__device__ __forceinline__ void add_weighted(
    float (&sums)[PER_LANE], float weight, Heads<T> heads, u32 first, int count, int head, int d) {
    for (int lane = 0; lane < count; lane++) {
        const float w = __shfl_sync(ALL_LANES, weight, lane);
        const T* row = heads.row(first + lane, head, d);
        EACH_GENE(i, g) sums[i] += w * to_float(row[g]);
    }
}

template <typename T>
__device__ void forward(
    Heads<T> q, Heads<T> k, Heads<T> v, Place place, int group, int causal, Dropout dropout, int d, T* out, float* lse) {
    if (!place.valid) return;
    const int head = blockIdx.y, kv_head = head / group;
    const float scale = 1.0f / sqrtf(float(d));
    const u32 query = place.token - place.begin, length = place.end - place.begin;
    const u32 seen = causal ? query + 1 : length;
    const Stream stream = stream_of(dropout.site, place.id, head, 0);
    float sums[PER_LANE] = {}, largest = -1e30f, total = 0;
    for (u32 first = 0; first < seen; first += WARP) {
        const u32 key = first + lane_of();
        const bool valid = key < seen;
        const float score =
            valid ? scale * dot(q.row(place.token, head, d), k.row(place.begin + key, kv_head, d), d) : -1e30f;
        const float most = fmaxf(largest, warp_max(score)), shrink = expf(largest - most);
        const float p = valid ? expf(score - most) : 0.0f;
        largest = most;
        total = total * shrink + warp_sum(p);
        EACH_GENE(i, g) sums[i] *= shrink;
        const float weight = valid ? p * mask(dropout, stream, query, key, length) : 0.0f;
        add_weighted(sums, weight, v, place.begin + first, min(WARP, int(seen - first)), kv_head, d);
    }
    const size_t at = size_t(place.token) * gridDim.y + head;
    EACH_GENE(i, g) out[at * d + g] = from_float<T>(sums[i] / total);
    if (lane_of() == 0) lse[at] = largest + logf(total);
}

template <typename T>
__device__ void gradient_in_queries(
    Heads<T> q, Heads<T> k, Heads<T> v, Heads<T> dout, const float* lse, Place place, int group, int causal,
    Dropout dropout, int d, T* dq, int dq_stride, float* along) {
    if (!place.valid) return;
    const int head = blockIdx.y, kv_head = head / group;
    const float scale = 1.0f / sqrtf(float(d));
    const u32 query = place.token - place.begin, length = place.end - place.begin;
    const u32 seen = causal ? query + 1 : length;
    const size_t at = size_t(place.token) * gridDim.y + head;
    const Stream stream = stream_of(dropout.site, place.id, head, 0);
    const auto probability = [&](u32 key) {
        return expf(scale * dot(q.row(place.token, head, d), k.row(place.begin + key, kv_head, d), d) - lse[at]);
    };
    const auto through_dropout = [&](u32 key) {
        return mask(dropout, stream, query, key, length) *
               dot(dout.row(place.token, head, d), v.row(place.begin + key, kv_head, d), d);
    };
    float mean = 0;
    for (u32 key = lane_of(); key < seen; key += WARP) mean += probability(key) * through_dropout(key);
    mean = warp_sum(mean);
    if (lane_of() == 0) along[at] = mean;
    float sums[PER_LANE] = {};
    for (u32 first = 0; first < seen; first += WARP) {
        const u32 key = first + lane_of();
        const float weight = key < seen ? probability(key) * (through_dropout(key) - mean) : 0.0f;
        add_weighted(sums, weight, k, place.begin + first, min(WARP, int(seen - first)), kv_head, d);
    }
    EACH_GENE(i, g)
        dq[size_t(place.token) * dq_stride + head * d + g] = from_float<T>(scale * sums[i]);
}

template <typename T>
__device__ void gradient_in_keys(
    Heads<T> q, Heads<T> k, Heads<T> v, Heads<T> dout, const float* lse, const float* along, Place place, int group,
    int causal, Dropout dropout, int d, T* dk, int dk_stride, T* dv, int dv_stride) {
    if (!place.valid) return;
    const int kv_head = blockIdx.y, heads = gridDim.y * group;
    const float scale = 1.0f / sqrtf(float(d));
    const u32 key = place.token - place.begin, length = place.end - place.begin;
    float key_sums[PER_LANE] = {}, value_sums[PER_LANE] = {};
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const Stream stream = stream_of(dropout.site, place.id, head, 0);
        for (u32 first = 0; first < length; first += WARP) {
            const u32 query = first + lane_of(), token = place.begin + query;
            float of_key = 0, of_value = 0;
            if (query < length && !(causal && key > query)) {
                const size_t at = size_t(token) * heads + head;
                const float score = scale * dot(q.row(token, head, d), k.row(place.token, kv_head, d), d);
                const float p = expf(score - lse[at]), m = mask(dropout, stream, query, key, length);
                of_value = p * m;
                of_key = p * (m * dot(dout.row(token, head, d), v.row(place.token, kv_head, d), d) - along[at]);
            }
            const int count = min(WARP, int(length - first));
            add_weighted(value_sums, of_value, dout, place.begin + first, count, head, d);
            add_weighted(key_sums, of_key, q, place.begin + first, count, head, d);
        }
    }
    EACH_GENE(i, g) {
        dk[size_t(place.token) * dk_stride + kv_head * d + g] = from_float<T>(scale * key_sums[i]);
        dv[size_t(place.token) * dv_stride + kv_head * d + g] = from_float<T>(value_sums[i]);
    }
}

#define ATTENTION(T, kind)                                                                                            \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) attention_##kind(                                      \
        const T* q, int q_stride, const T* k, int k_stride, const T* v, int v_stride, const u32* owners,              \
        const u32* begins, const u32* ids, int tokens, int group, int causal, u32 seed_low, u32 seed_high, u32 step,  \
        u32 name, u32 threshold, float kept, int d, T* out, float* lse) {                                             \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                 \
        forward<T>(                                                                                                   \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, Place(owners, begins, ids, tokens), group, causal, dropout,  \
            d, out, lse);                                                                                             \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) attention_gradient_in_queries_##kind(                  \
        const T* q, int q_stride, const T* k, int k_stride, const T* v, int v_stride, const T* dout, int dout_stride, \
        const float* lse, const u32* owners, const u32* begins, const u32* ids, int tokens, int group, int causal,    \
        u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept, int d, T* dq, int dq_stride,      \
        float* along) {                                                                                               \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                 \
        gradient_in_queries<T>(                                                                                       \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride}, lse,                                    \
            Place(owners, begins, ids, tokens), group, causal, dropout, d, dq, dq_stride, along);                     \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP) attention_gradient_in_keys_##kind(                     \
        const T* q, int q_stride, const T* k, int k_stride, const T* v, int v_stride, const T* dout, int dout_stride, \
        const float* lse, const float* along, const u32* owners, const u32* begins, const u32* ids, int tokens,       \
        int group, int causal, u32 seed_low, u32 seed_high, u32 step, u32 name, u32 threshold, float kept, int d,     \
        T* dk, int dk_stride, T* dv, int dv_stride) {                                                                 \
        const Dropout dropout = {{seed_low, seed_high, step, name}, threshold, kept};                                 \
        gradient_in_keys<T>(                                                                                          \
            {q, q_stride}, {k, k_stride}, {v, v_stride}, {dout, dout_stride}, lse, along,                             \
            Place(owners, begins, ids, tokens), group, causal, dropout, d, dk, dk_stride, dv, dv_stride);             \
    }
ATTENTION(float, f32)
ATTENTION(bf16, bf16)
