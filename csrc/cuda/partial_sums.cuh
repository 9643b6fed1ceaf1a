// The last step of a reduction over rows: partial sums [blocks, n] in float, written by a kernel whose number of blocks depends on the shape alone, are added in
// the order of the blocks and stored in the parameter's dtype. So a parameter's gradient has the same bits in every run.
//
// A block of 32 x 32 threads takes 32 columns: thread row s adds the blocks s, s + 32, …, then the 32 sums are added in order. Traffic: 4 · blocks · n bytes.
#pragma once
#include "cuda/types.cuh"

namespace electra::cuda {

inline constexpr int partial_columns = 32, partial_slices = 32;

template <class T> __global__ void __launch_bounds__(partial_columns * partial_slices)
sum_partials_kernel(const float* partial, int64_t blocks, int64_t n, ParameterGradient out) {
  __shared__ float sums[partial_slices][partial_columns];
  const int64_t column = int64_t(blockIdx.x) * partial_columns + threadIdx.x;
  float sum = 0.f;
  if (column < n)
#pragma unroll 4
    for (int64_t b = threadIdx.y; b < blocks; b += partial_slices) sum += partial[b * n + column];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= n) return;
  float total[1] = {0.f};
#pragma unroll
  for (int s = 0; s < partial_slices; ++s) total[0] += sums[s][threadIdx.x];
  store_parameter<T>(out, column, total);
}

// `type`: that of the activations. Nothing to do where n is 0.
inline cudaError_t sum_partials(const float* partial, int64_t blocks, int64_t n, const ParameterGradient& out, DType type, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const unsigned grid = unsigned((n + partial_columns - 1) / partial_columns);
  return dispatch(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ELECTRA_LAUNCH((sum_partials_kernel<T>), grid, dim3(partial_columns, partial_slices), 0, stream, partial, blocks, n, out);
  });
}

}  // namespace electra::cuda
