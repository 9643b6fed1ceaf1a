// gelu: y = z Φ(z), dx = grad (Φ(z) + z φ(z)), z = x + bias.
//
// Bound by memory: forward reads and writes every element once (4 bytes an element in bfloat16), backward reads two and writes one (6 bytes). The bias stays in
// registers: a thread keeps to its columns. dbias is summed in registers over a thread's rows, in shared memory over a block's, and over the blocks by
// sum_partials; there are at most `backward_blocks` of them, so that this adds 1 % to the traffic at 65536 x 1024.
#include "cuda/gelu.h"

#include "cuda/normal_cdf.cuh"
#include "cuda/partial_sums.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {
namespace {

struct LaunchParameters {
  int threads;            // a block
  int vectors;            // accesses of 8 values that a thread has in flight
  int backward_blocks;    // at most, where dbias is wanted: 4 blocks of 256 threads on each of 132 multiprocessors
};
constexpr LaunchParameters parameters = {256, 4, 528};   // 4 x 16 bytes x 2048 threads cover the latency of HBM3e (25 KiB a multiprocessor) five times

__device__ __forceinline__ float forward_value(float z) { return z * normal_cdf(z).cdf; }

__device__ __forceinline__ float derivative(float z) {
  const NormalCdf normal = normal_cdf(z);
  return fmaf(z, normal.density, normal.cdf);
}

// Element-wise over `total` accesses of N values. Thread t takes the accesses t, t + stride, …; with a bias the stride is a multiple of a row, `units` accesses.
template <class T, int N> __global__ void __launch_bounds__(parameters.threads)
forward_kernel(const T* x, Parameter bias, T* y, int64_t total, uint32_t units, uint32_t stride) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= stride) return;
  float b[N] = {};
  if (bias.data) load_parameter<T>(bias, int64_t(thread % units) * N, b);
  for (int64_t first = thread; first < total; first += int64_t(parameters.vectors) * stride) {
    float values[parameters.vectors][N];
#pragma unroll
    for (int v = 0; v < parameters.vectors; ++v)
      if (const int64_t i = first + int64_t(v) * stride; i < total) load_vector(x + i * N, values[v]);
#pragma unroll
    for (int v = 0; v < parameters.vectors; ++v) {
      const int64_t i = first + int64_t(v) * stride;
      if (i >= total) break;
#pragma unroll
      for (int j = 0; j < N; ++j) values[v][j] = forward_value(values[v][j] + b[j]);
      store_vector(y + i * N, values[v]);
    }
  }
}

template <class T, int N> __global__ void __launch_bounds__(parameters.threads)
backward_kernel(const T* grad, const T* x, T* dx, int64_t total, uint32_t stride) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= stride) return;
  for (int64_t i = thread; i < total; i += stride) {
    float g[N], z[N];
    load_vector(grad + i * N, g);
    load_vector(x + i * N, z);
#pragma unroll
    for (int j = 0; j < N; ++j) g[j] *= derivative(z[j]);
    store_vector(dx + i * N, g);
  }
}

// With a bias. A block has `lanes` threads beside each other, each on N columns, and threads / lanes of these rows; it takes every gridDim.y-th group of rows.
template <class T, int N> __global__ void __launch_bounds__(parameters.threads)
backward_columns_kernel(const T* grad, const T* x, Parameter bias, T* dx, float* partial, int64_t rows, int64_t n) {
  ELECTRA_DYNAMIC_SHARED(float, shared);   // [blockDim.y][blockDim.x * N]
  const int64_t column = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  float sum[N] = {};
  if (column < n) {
    float b[N];
    load_parameter<T>(bias, column, b);
    const int64_t step = int64_t(gridDim.y) * blockDim.y;
#pragma unroll 2
    for (int64_t row = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) {
      float g[N], z[N];
      load_vector(grad + row * n + column, g);
      load_vector(x + row * n + column, z);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        g[j] *= derivative(z[j] + b[j]);
        sum[j] += g[j];
      }
      store_vector(dx + row * n + column, g);
    }
  }
  float* mine = shared + threadIdx.y * blockDim.x * N + threadIdx.x;   // [N][blockDim.x]: neighbours in neighbouring banks
#pragma unroll
  for (int j = 0; j < N; ++j) mine[j * blockDim.x] = sum[j];
  __syncthreads();
  if (threadIdx.y != 0 || column >= n) return;
  for (int y = 1; y < int(blockDim.y); ++y)
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] += mine[(y * N + j) * blockDim.x];
  store_vector(partial + blockIdx.y * n + column, sum);
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How backward with a bias covers [rows, n]: fixed by the shape alone.
struct ColumnGrid {
  unsigned lanes, rows_per_block, columns, blocks;   // blocks: the partial sums of a column
  ColumnGrid(int64_t rows, int64_t n, int values) {
    const int64_t units = divide_up(n, values);
    lanes = 32;
    while (lanes < units && lanes < unsigned(parameters.threads)) lanes *= 2;
    rows_per_block = parameters.threads / lanes;
    columns = unsigned(divide_up(units, lanes));
    const int64_t wanted = divide_up(rows, int64_t(rows_per_block) * parameters.vectors), most = divide_up(parameters.backward_blocks, columns);
    blocks = unsigned(wanted < 1 ? 1 : wanted < most ? wanted : most);
  }
};

template <class T, int N> cudaError_t forward(const GeluForward& call, cudaStream_t stream) {
  const int64_t units = call.bias.data ? call.n / N : 1, total = call.rows * call.n / N;
  const int64_t stride = divide_up(total, units * parameters.vectors) * units;
  return ELECTRA_LAUNCH((forward_kernel<T, N>), unsigned(divide_up(stride, parameters.threads)), parameters.threads, 0, stream,
                        static_cast<const T*>(call.x), call.bias, static_cast<T*>(call.y), total, uint32_t(units), uint32_t(stride));
}

template <class T, int N> cudaError_t backward(const GeluBackward& call, cudaStream_t stream) {
  const T *grad = static_cast<const T*>(call.grad), *x = static_cast<const T*>(call.x);
  T* dx = static_cast<T*>(call.dx);
  if (!call.bias.data) {
    const int64_t total = call.rows * call.n / N, stride = divide_up(total, 2);
    return ELECTRA_LAUNCH((backward_kernel<T, N>), unsigned(divide_up(stride, parameters.threads)), parameters.threads, 0, stream, grad, x, dx, total, uint32_t(stride));
  }
  const ColumnGrid grid(call.rows, call.n, N);
  float* partial = static_cast<float*>(call.workspace);
  const size_t shared = sizeof(float) * parameters.threads * N;
  const cudaError_t error = ELECTRA_LAUNCH((backward_columns_kernel<T, N>), dim3(grid.columns, grid.blocks), dim3(grid.lanes, grid.rows_per_block), shared, stream,
                                           grad, x, call.bias, dx, partial, call.rows, call.n);
  return error == cudaSuccess ? sum_partials(partial, grid.blocks, call.n, call.dbias, call.type, stream) : error;
}

constexpr int wide = 8;

}  // namespace

size_t gelu_backward_workspace(int64_t rows, int64_t n) {
  const unsigned wide_blocks = ColumnGrid(rows, n, wide).blocks, narrow_blocks = ColumnGrid(rows, n, 1).blocks;
  return sizeof(float) * n * (wide_blocks > narrow_blocks ? wide_blocks : narrow_blocks);
}

cudaError_t gelu_forward(const GeluForward& call, cudaStream_t stream) {
  if (call.rows == 0 || call.n == 0) return cudaSuccess;
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool fits = vectors_fit<T>(call.x, call.n, wide) && vectors_fit<T>(call.y, call.n, wide) && parameter_fits<T>(call.bias, call.n, wide);
    return fits ? forward<T, wide>(call, stream) : forward<T, 1>(call, stream);
  });
}

cudaError_t gelu_backward(const GeluBackward& call, cudaStream_t stream) {
  if (call.n == 0 || (call.rows == 0 && !call.bias.data)) return cudaSuccess;
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool fits = vectors_fit<T>(call.grad, call.n, wide) && vectors_fit<T>(call.x, call.n, wide) && vectors_fit<T>(call.dx, call.n, wide) &&
                      parameter_fits<T>(call.bias, call.n, wide);
    return fits ? backward<T, wide>(call, stream) : backward<T, 1>(call, stream);
  });
}

}  // namespace electra::cuda
