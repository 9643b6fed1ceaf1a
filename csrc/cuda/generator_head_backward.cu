// Backward of generator_head: the order of its kernels, and the small ones around the large: what each slot's gradient is made with, and the sums of partial results.
#include "cuda/exponent.cuh"
#include "cuda/generator_head_backward.cuh"
#include "cuda/generator_head_forward.cuh"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {
namespace {

constexpr int measure_threads = 1024, slot_threads = 256;
constexpr int half_exponent = 13;   // d's largest factor is brought to [2^13, 2^14): a softmax of 1 stays finite in float16, one of 4e-12 is not yet 0

// One block: the last used slot and, for float16, the largest gradient.
__global__ void __launch_bounds__(measure_threads) measure_kernel(const int64_t* targets, const float* grad, int slots, bool scaled, BackwardState* state) {
  __shared__ float largest[measure_threads / 32];
  __shared__ unsigned ends[measure_threads / 32];
  float most = 0.f;
  unsigned end = 0;
  for (int i = int(threadIdx.x); i < slots; i += measure_threads) {
    if (targets[i] == unused_target) continue;
    end = unsigned(i) + 1;
    if (scaled) most = fmaxf(most, fabsf(grad[i]));
  }
  end = __reduce_max_sync(full_warp, end);
  if (threadIdx.x % 32 == 0) ends[threadIdx.x / 32] = end;
  most = block_max<measure_threads>(most, largest);   // its barriers also serve `ends`
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < measure_threads / 32; ++warp) end = ends[warp] > end ? ends[warp] : end;
  float scale = 1.f, inverse = 1.f;
  if (most > 0.f && most < INFINITY) {   // an infinite gradient, or NaN, goes its way as it is
    const int exponent = half_exponent - ilogbf(most), inside = exponent < -126 ? -126 : exponent > 126 ? 126 : exponent;
    scale = ldexpf(1.f, inside);
    inverse = ldexpf(1.f, -inside);
  }
  *state = {int(end), scale, inverse};
}

__global__ void __launch_bounds__(slot_threads)
describe_kernel(const int64_t* targets, const float* lse, const float* grad, int slots, int padded, const BackwardState* state, SlotGradient* out) {
  const int i = int(blockIdx.x) * slot_threads + int(threadIdx.x);
  if (i >= padded) return;
  const int64_t target = i < slots ? targets[i] : unused_target;
  out[i] = target == unused_target ? SlotGradient{INFINITY, 0.f, -1, 0} : SlotGradient{lse[i] * log2_e, grad[i] * state->scale, int(target), 0};
}

template <class T>
__global__ void __launch_bounds__(slot_threads) sum_dbias_kernel(const float* partials, int parts, int64_t stride, const BackwardState* state, ParameterGradient out, int columns) {
  const int i = int(blockIdx.x) * slot_threads + int(threadIdx.x);
  if (i >= columns) return;
  float sum[1] = {0.f};
  for (int part = 0; part < parts; ++part) sum[0] += partials[part * stride + i];
  sum[0] *= state->inverse;
  store_parameter<T>(out, i, sum);
}

// Four features a thread. Slots behind the last used one have no partial sums.
template <class T>
__global__ void __launch_bounds__(slot_threads)
sum_dhidden_kernel(const float* partials, int parts, int64_t stride, const BackwardState* state, T* out, int first, int count, int features) {
  const int64_t i = (int64_t(blockIdx.x) * slot_threads + threadIdx.x) * 4, row = i / features;
  if (row >= count) return;
  float sum[4] = {};
  if (first + row < state->end) {
    for (int part = 0; part < parts; ++part) {
      float x[4];
      load_vector<4>(partials + part * stride * features + i, x);
#pragma unroll
      for (int k = 0; k < 4; ++k) sum[k] += x[k];
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] *= state->inverse;
  }
  store_vector<4>(out + int64_t(first) * features + i, sum);
}

cudaError_t first_error(std::initializer_list<cudaError_t> errors) {
  for (const cudaError_t e : errors)
    if (e != cudaSuccess) return e;
  return cudaSuccess;
}

}  // namespace

cudaError_t describe_slots(const GeneratorBackward& call, BackwardState* state, SlotGradient* slots, int64_t padded_slots, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  return first_error({ELECTRA_LAUNCH(measure_kernel, dim3(1), dim3(measure_threads), 0, stream, p.targets, call.grad, int(p.slots), p.type == DType::f16, state),
                      ELECTRA_LAUNCH(describe_kernel, dim3(unsigned(blocks_of(padded_slots, slot_threads))), dim3(slot_threads), 0, stream, p.targets, call.lse, call.grad,
                                     int(p.slots), int(padded_slots), state, slots)});
}

cudaError_t sum_dbias(const GeneratorBackward& call, const BackwardState* state, const float* partials, int64_t parts, int64_t stride, cudaStream_t stream) {
  return dispatch_16_bit(call.problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ELECTRA_LAUNCH((sum_dbias_kernel<T>), dim3(unsigned(blocks_of(call.problem.columns, slot_threads))), dim3(slot_threads), 0, stream, partials, int(parts), stride, state,
                          call.dbias, int(call.problem.columns));
  });
}

cudaError_t sum_dhidden(const GeneratorBackward& call, const BackwardState* state, const float* partials, int64_t parts, int64_t stride, int64_t first, int64_t count,
                        cudaStream_t stream) {
  const int features = call.problem.features;
  if (count <= 0) return cudaSuccess;
  return dispatch_16_bit(call.problem.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ELECTRA_LAUNCH((sum_dhidden_kernel<T>), dim3(unsigned(blocks_of(count * features, 4 * slot_threads))), dim3(slot_threads), 0, stream, partials, int(parts), stride, state,
                          static_cast<T*>(call.dhidden), int(first), int(count), features);
  });
}

namespace {

cudaError_t backward_in_chunks(const GeneratorBackward& call, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  const ChunkLayout l = chunk_layout(p, call.dweight.type, call.workspace);
  cudaError_t error = first_error({pad_bias(p.bias, p.type, l.bias, p.columns, l.padded_columns, stream), describe_slots(call, l.state, l.described, l.chunks * l.slots, stream)});
  for (int64_t chunk = 0; chunk < l.chunks && error == cudaSuccess; ++chunk) {
    const int64_t first = chunk * l.slots, count = p.slots - first < l.slots ? p.slots - first : l.slots;
    error = first_error({store_gradients(call, l, chunk, stream), multiply_dhidden(call, l, chunk, stream),
                         sum_dhidden(call, l.state, l.dhidden_partials, l.parts, l.slots, first, count, stream), multiply_dweight(call, l, chunk, stream)});
  }
  return error != cudaSuccess ? error : sum_dbias(call, l.state, l.dbias_partials, 2 * l.chunks, l.padded_columns, stream);
}

cudaError_t backward_recomputing(const GeneratorBackward& call, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  const RecomputeLayout l = recompute_layout(p, call.workspace);
  return first_error({pad_bias(p.bias, p.type, l.bias, p.columns, l.padded_columns, stream), describe_slots(call, l.state, l.described, l.padded_slots, stream),
                      recompute_dhidden(call, l, stream), sum_dhidden(call, l.state, l.dhidden_partials, l.parts, l.padded_slots, 0, p.slots, stream),
                      recompute_dweight(call, l, stream), sum_dbias(call, l.state, l.dbias, 1, l.padded_columns, stream)});
}

bool recomputes(const GeneratorProblem& p) { return p.features <= recompute_most_features; }

}  // namespace

int64_t generator_backward_workspace(const GeneratorProblem& problem, DType dweight_type) {
  return recomputes(problem) ? recompute_layout(problem, nullptr).bytes : chunk_layout(problem, dweight_type, nullptr).bytes;
}

cudaError_t generator_backward(const GeneratorBackward& call, cudaStream_t stream) {
  return recomputes(call.problem) ? backward_recomputing(call, stream) : backward_in_chunks(call, stream);
}

}  // namespace electra::cuda
