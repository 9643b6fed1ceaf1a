// Sums and maxima over a warp or a block, in an order fixed by the shape: the same bits in every run.
#pragma once
#include "cuda/portable.h"

namespace electra::cuda {

inline constexpr unsigned full_warp = 0xffffffffu;

// Over the `lanes` neighbouring lanes that hold this one (a power of two): every lane of the group gets the result.
template <int lanes = 32> __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(full_warp, x, offset);
  return x;
}

template <int lanes = 32> __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(full_warp, x, offset));
  return x;
}

// Over a block of `threads` (a multiple of 32, one-dimensional): every thread gets the result. `shared` holds threads/32 floats and may be reused after
// the call; all threads of the block must call.
template <int threads> __device__ __forceinline__ float block_sum(float x, float* shared) {
  static_assert(threads % 32 == 0);
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float total = 0.f;
#pragma unroll
  for (int warp = 0; warp < threads / 32; ++warp) total += shared[warp];
  __syncthreads();
  return total;
}

template <int threads> __device__ __forceinline__ float block_max(float x, float* shared) {
  static_assert(threads % 32 == 0);
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = shared[0];
#pragma unroll
  for (int warp = 1; warp < threads / 32; ++warp) largest = fmaxf(largest, shared[warp]);
  __syncthreads();
  return largest;
}

}  // namespace electra::cuda
