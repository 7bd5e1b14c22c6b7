// InfoNCE from cosines [B, P], with its gradient.
#include "common.cuh"

constexpr int THREADS = 256;

__device__ __forceinline__ float excluded_logit() {
    return __uint_as_float(0xFF800000);
}

extern "C" __global__ void __launch_bounds__(THREADS) info_nce_logits(
    const float* scores, float temperature, float* logits, size_t count) {
    for (size_t i = size_t(blockIdx.x) * THREADS + threadIdx.x; i < count; i += size_t(gridDim.x) * THREADS)
        logits[i] = scores[i] / temperature;
}

// Pairs of query and candidate that are not contrasted.
extern "C" __global__ void __launch_bounds__(THREADS) info_nce_exclude(
    const u32* pairs, float* logits, int count, int candidates) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < count) logits[size_t(pairs[2 * i]) * candidates + pairs[2 * i + 1]] = excluded_logit();
}

// -log softmax over `count` logits `stride` apart of the one at `target`, and weight times its gradient: stored, or
// added to what is there.
__device__ void cross_entropy(
    const float* logits, int count, size_t stride, int target, float weight, bool add, float* gradient, float* loss) {
    float largest = excluded_logit();
    for (int i = threadIdx.x; i < count; i += THREADS) largest = fmaxf(largest, logits[i * stride]);
    largest = block_max(largest);
    float sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += expf(logits[i * stride] - largest);
    sum = block_sum(sum);
    for (int i = threadIdx.x; i < count; i += THREADS) {
        const float d = weight * (expf(logits[i * stride] - largest) / sum - (i == target ? 1.0f : 0.0f));
        gradient[i * stride] = add ? gradient[i * stride] + d : d;
    }
    if (threadIdx.x == 0) *loss = logf(sum) + (largest - logits[target * stride]);
}

// A block for each query.
extern "C" __global__ void __launch_bounds__(THREADS) info_nce_rows(
    const float* logits, float weight, float* dscores, float* losses, int candidates) {
    const size_t begin = size_t(blockIdx.x) * candidates;
    cross_entropy(logits + begin, candidates, 1, blockIdx.x, weight, false, dscores + begin, losses + blockIdx.x);
}

// A block for each query's positive.
extern "C" __global__ void __launch_bounds__(THREADS) info_nce_columns(
    const float* logits, float weight, float* dscores, float* losses, int queries, int candidates) {
    cross_entropy(
        logits + blockIdx.x, queries, candidates, blockIdx.x, weight, true, dscores + blockIdx.x, losses + blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS) info_nce_total(
    const float* losses, float weight, float* loss, int count) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += losses[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = float(sum * weight);
}
