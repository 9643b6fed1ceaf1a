// The ends of generator_head's forward: the bias as the sweep reads it, and, from the sweep's partial results, each slot's loss, sample and argmax.
//
// One warp a slot: a slot's partials are a few hundred bytes, the two stored groups 256 bytes each, and the target's row of the weight is multiplied once more (K
// products; looking for the target in the sweep would cost a comparison a logit). Memory: about P (4 K + 1024) bytes, a few microseconds.
#include "common/philox.h"
#include "cuda/dropout.cuh"
#include "cuda/exponent.cuh"
#include "cuda/generator_head_forward.cuh"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {
namespace {

constexpr int bias_threads = 256, finish_warps = 8;
constexpr uint32_t inside_block = uint32_t(1) << 31;   // the Philox block of the draw inside the winning group

template <class T> __global__ void pad_bias_kernel(Parameter bias, float* out, int64_t columns, int64_t padded) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= padded) return;
  float x[1] = {-INFINITY};
  if (i < columns) load_parameter<T>(bias, i, x);
  out[i] = x[0];
}

// The best of a slot's parts: highest value, lowest group of equals. All lanes get it.
struct Best { float value; int group, part; };

__device__ __forceinline__ bool beats(const Best& a, const Best& b) { return a.value > b.value || (a.value == b.value && a.group < b.group); }

__device__ __forceinline__ Best best_part(const float* values, const int* groups, const GeneratorPartials& p, int64_t slot) {
  const int lane = int(threadIdx.x) % 32;
  Best best = {-INFINITY, 0, 0};
  for (int part = lane; part < p.parts; part += 32) {
    const Best other = {values[part * p.rows + slot], groups[part * p.rows + slot], part};
    if (part == lane || beats(other, best)) best = other;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Best other = {__shfl_xor_sync(full_warp, best.value, offset), __shfl_xor_sync(full_warp, best.group, offset), __shfl_xor_sync(full_warp, best.part, offset)};
    if (beats(other, best)) best = other;
  }
  return best;
}

// The two logits of a stored group that this lane looks at: columns 2 * lane and the next.
__device__ __forceinline__ float2 stored_logits(const float* logits, const GeneratorPartials& p, int part, int64_t slot) {
  float x[2];
  load_vector<2>(logits + (part * p.rows + slot) * group_columns + 2 * (int(threadIdx.x) % 32), x);
  return {x[0], x[1]};
}

// Number of the first lane of those that say yes, and which of its two columns it is; `none` if there is none.
__device__ __forceinline__ int first_column(bool even, bool odd, int none) {
  const uint32_t lanes = __ballot_sync(full_warp, even || odd), evens = __ballot_sync(full_warp, even);
  if (lanes == 0) return none;
  const int lane = __ffs(int(lanes)) - 1;
  return 2 * lane + ((evens >> lane & 1) ? 0 : 1);
}

__device__ __forceinline__ int last_column(bool even, bool odd) {
  const uint32_t lanes = __ballot_sync(full_warp, even || odd), odds = __ballot_sync(full_warp, odd);
  if (lanes == 0) return 0;
  const int lane = 31 - __clz(int(lanes));
  return 2 * lane + int(odds >> lane & 1);
}

// The column of a group, by the inverse of its cumulative distribution: the first whose running sum of weights exceeds the uniform's share of the whole.
__device__ __forceinline__ int pick_column(float2 logits, float sharpness, int without, uint32_t word) {
  const int lane = int(threadIdx.x) % 32;
  const float x = 2 * lane == without ? -INFINITY : logits.x * sharpness, y = 2 * lane + 1 == without ? -INFINITY : logits.y * sharpness;
  const float peak = warp_max(fmaxf(x, y)), base = peak == -INFINITY ? 0.f : peak;
  const float a = exp2f(x - base), b = exp2f(y - base);
  float upto = a + b;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const float below = __shfl_up_sync(full_warp, upto, offset);
    if (lane >= offset) upto += below;
  }
  const float sum = __shfl_sync(full_warp, upto, 31), before = __shfl_up_sync(full_warp, upto, 1);
  const float threshold = sampler_uniform(word) * sum, start = lane == 0 ? 0.f : before;
  return first_column(start + a > threshold, upto > threshold, last_column(a > 0.f, b > 0.f));
}

template <class T> __device__ __forceinline__ float dot(const T* a, const T* b, int n) {
  float sum = 0.f;
  for (int i = int(threadIdx.x) % 32 * 8; i < n; i += 256) {
    float x[8], y[8];
    load_vector<8>(a + i, x);
    load_vector<8>(b + i, y);
#pragma unroll
    for (int k = 0; k < 8; ++k) sum = fmaf(x[k], y[k], sum);
  }
  return warp_sum(sum);
}

template <class T> __global__ void __launch_bounds__(32 * finish_warps) finish_kernel(GeneratorForward call, GeneratorPartials p, const float* bias) {
  const int64_t slot = int64_t(blockIdx.x) * finish_warps + threadIdx.x / 32;
  const int lane = int(threadIdx.x) % 32;
  const GeneratorProblem& problem = call.problem;
  if (slot >= problem.slots) return;
  const int64_t target = problem.targets[slot];
  float loss = 0.f, lse = 0.f;
  int64_t sampled = 0, predicted = 0;
  if (target != unused_target) {
    const Best top = best_part(p.top, p.top_group, p, slot);
    const float base = exponent_base(top.value);
    float mass = 0.f;
    for (int part = lane; part < p.parts; part += 32) mass += p.mass[part * p.rows + slot] * exp2f(p.top[part * p.rows + slot] * log2_e - base);
    lse = (base + log2f(warp_sum(mass))) * ln_2;
    if (top.value > -INFINITY) {
      const float2 x = stored_logits(p.top_logits, p, top.part, slot);
      predicted = int64_t(top.group) * group_columns + first_column(x.x == top.value, x.y == top.value, 0);
    }

    const Best best = best_part(p.score, p.score_group, p, slot);
    if (best.value > -INFINITY) {
      const int64_t first = int64_t(best.group) * group_columns, without = call.disallow_correct ? target - first : -1;
      const uint32_t word = philox_draw(random_stream(call.rng, call.site), uint32_t(slot), inside_block).c0;
      sampled = first + pick_column(stored_logits(p.score_logits, p, best.part, slot), float(double(log2_e) / call.temperature),
                                    without >= 0 && without < group_columns ? int(without) : -1, word);
    }

    const T *hidden = static_cast<const T*>(problem.hidden), *weight = static_cast<const T*>(problem.weight);
    const bool exists = target >= 0 && target < problem.columns;   // the host cannot look; NaN says that something is wrong
    loss = exists ? lse - (dot(hidden + slot * problem.features, weight + target * problem.features, problem.features) + bias[target]) : NAN;
  }
  if (lane == 0) {
    call.loss[slot] = loss;
    call.lse[slot] = lse;
    call.sampled[slot] = sampled;
    call.predicted[slot] = predicted;
  }
}

}  // namespace

cudaError_t pad_bias(const Parameter& bias, DType type, float* out, int64_t columns, int64_t padded, cudaStream_t stream) {
  return dispatch_16_bit(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ELECTRA_LAUNCH((pad_bias_kernel<T>), dim3(unsigned(blocks_of(padded, bias_threads))), dim3(bias_threads), 0, stream, bias, out, columns, padded);
  });
}

cudaError_t finish_forward(const GeneratorForward& call, const ForwardLayout& layout, cudaStream_t stream) {
  return dispatch_16_bit(call.problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ELECTRA_LAUNCH((finish_kernel<T>), dim3(unsigned(blocks_of(call.problem.slots, finish_warps))), dim3(32 * finish_warps), 0, stream, call, layout.partials,
                          layout.bias);
  });
}

}  // namespace electra::cuda
