// adam: m <- b1 m + (1-b1) g c; v <- b2 v + (1-b2) (g c)²; p <- p - lr (m / (sqrt(v) + eps) + decay p), in place.
//
// Every element is read and written once: p, g, m, v in, p, m, v out, 28 bytes, for some 45 instructions: bound by memory. All tensors go into a few
// launches: a launch takes the pointers of as many tensors as its parameters have room for, and its blocks take chunks of these in turn, so that a small
// tensor costs one block and a large one is spread evenly.
#include "cuda/adam.h"

#include "cuda/types.cuh"

namespace electra::cuda {
namespace {

struct LaunchParameters {
  int tensors;       // of a launch: 4096 bytes of kernel parameters hold 80
  int threads;       // of a block
  int64_t elements;  // of a block: 4 accesses of 16 bytes a thread for each of the 7 streams
};
constexpr LaunchParameters parameters = {80, 256, 4096};

// What fits the parameters of a kernel: structure of arrays, without padding.
struct Table {
  float* p[parameters.tensors];
  const float* g[parameters.tensors];
  float* m[parameters.tensors];
  float* v[parameters.tensors];
  int64_t count[parameters.tensors];
  float decay[parameters.tensors];
  int first_block[parameters.tensors];   // of the blocks that work on a tensor
  int tensors;
};

struct Coefficients {
  DeviceScalar learning_rate, grad_scale;
  float keep1, add1, keep2, add2, eps;
};
static_assert(sizeof(Table) + sizeof(Coefficients) <= 4096, "kernel parameters are limited to 4 KiB");

__device__ __forceinline__ float value_of(const DeviceScalar& x) {
  return x.is_double ? float(*static_cast<const double*>(x.data)) : *static_cast<const float*>(x.data);
}

template <int N>
__device__ __forceinline__ void update(const Coefficients& c, float rate, float scale, float decay, float* p, const float* g, float* m, float* v) {
  float value[N], gradient[N], first[N], second[N];
  load_vector<N>(p, value);
  load_vector<N>(g, gradient);
  load_vector<N>(m, first);
  load_vector<N>(v, second);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float scaled = gradient[i] * scale;
    first[i] = c.keep1 * first[i] + c.add1 * scaled;
    second[i] = c.keep2 * second[i] + c.add2 * (scaled * scaled);
    value[i] -= rate * (first[i] / (sqrtf(second[i]) + c.eps) + decay * value[i]);
  }
  store_vector<N>(p, value);
  store_vector<N>(m, first);
  store_vector<N>(v, second);
}

__global__ void __launch_bounds__(parameters.threads) adam_kernel(const __grid_constant__ Table table, const __grid_constant__ Coefficients c) {
  int t = 0, past = table.tensors;   // the last tensor that begins at this block or before
  while (past - t > 1) {
    const int middle = (t + past) / 2;
    if (table.first_block[middle] <= int(blockIdx.x)) t = middle;
    else past = middle;
  }
  const int64_t begin = (int64_t(blockIdx.x) - table.first_block[t]) * parameters.elements, end = min(begin + parameters.elements, table.count[t]);
  float *const p = table.p[t], *const m = table.m[t], *const v = table.v[t];
  const float* const g = table.g[t];
  const float rate = value_of(c.learning_rate), scale = value_of(c.grad_scale), decay = table.decay[t];
  if (scale != scale) return;   // NaN: nothing is updated
  constexpr int width = 4;
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(p) | reinterpret_cast<uintptr_t>(g) | reinterpret_cast<uintptr_t>(m) | reinterpret_cast<uintptr_t>(v);
  const int64_t whole = addresses % 16 == 0 ? begin + (end - begin) / width * width : begin;
#pragma unroll 2
  for (int64_t i = begin + int64_t(threadIdx.x) * width; i < whole; i += parameters.threads * width)
    update<width>(c, rate, scale, decay, p + i, g + i, m + i, v + i);
  for (int64_t i = whole + threadIdx.x; i < end; i += parameters.threads) update<1>(c, rate, scale, decay, p + i, g + i, m + i, v + i);
}

}  // namespace

cudaError_t adam_update(const std::vector<AdamTensor>& tensors, const AdamStep& step, cudaStream_t stream) {
  const Coefficients c = {step.learning_rate, step.grad_scale, float(step.beta1), float(1.0 - step.beta1), float(step.beta2), float(1.0 - step.beta2),
                          float(step.eps)};
  for (size_t i = 0; i < tensors.size();) {
    Table table = {};
    int64_t blocks = 0;
    for (; i < tensors.size() && table.tensors < parameters.tensors; ++i) {
      const AdamTensor& tensor = tensors[i];
      if (tensor.count == 0) continue;
      const int64_t more = (tensor.count + parameters.elements - 1) / parameters.elements;
      if (blocks > 0 && blocks + more > INT32_MAX) break;
      const int t = table.tensors++;
      table.p[t] = tensor.p;
      table.g[t] = tensor.g;
      table.m[t] = tensor.m;
      table.v[t] = tensor.v;
      table.count[t] = tensor.count;
      table.decay[t] = tensor.decay;
      table.first_block[t] = int(blocks);
      blocks += more;
    }
    if (blocks == 0) break;
    if (const cudaError_t error = ELECTRA_LAUNCH(adam_kernel, unsigned(blocks), parameters.threads, 0, stream, table, c); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace electra::cuda
