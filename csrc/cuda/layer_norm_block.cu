// layer_norm with a block for each row: any N up to 8192, any alignment. The forward keeps the row in shared memory in float32 and reads and writes each
// tensor once; the backward reads grad and sum twice (the second time from the caches) and keeps the parameters' sums in shared memory.
#include "cuda/dropout.cuh"
#include "cuda/layer_norm_block.h"
#include "cuda/layer_norm_columns.cuh"
#include "cuda/layer_norm_launch.cuh"

namespace electra::cuda {
namespace {

constexpr int forward_threads = layer_norm_block_threads, backward_threads = layer_norm_block_threads_backward;

// width: values of an access, 16 bytes or one value. A thread comes back to the columns it wrote, so that no barrier guards them.
template <class T, int width, bool drops>
__global__ void __launch_bounds__(forward_threads) layer_norm_forward_block_kernel(const LayerNormForward call) {
  ELECTRA_DYNAMIC_SHARED(float, row_values);   // [columns]
  __shared__ float shared[forward_threads / 32];
  const int n = call.columns, step = forward_threads * width, begin = threadIdx.x * width;
  const float inverse_n = 1.f / float(n);
  const T *const x = static_cast<const T*>(call.x), *const residual = static_cast<const T*>(call.residual);
  const PhiloxStream stream = drops ? random_stream(call.dropout) : PhiloxStream{};
  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    float total = 0.f;
    for (int column = begin; column < n; column += step) {
      float s[width], other[width];
      load_vector<width>(x + row * n + column, s);
      if (call.x_bias.data) {
        load_parameter<T>(call.x_bias, column, other);
#pragma unroll
        for (int i = 0; i < width; ++i) s[i] += other[i];
      }
      if (drops) drop(s, call.dropout, stream, uint32_t(row), uint32_t(column));
      if (residual) {
        load_vector<width>(residual + row * n + column, other);
#pragma unroll
        for (int i = 0; i < width; ++i) s[i] += other[i];
      }
      if (call.sum) store_vector<width>(static_cast<T*>(call.sum) + row * n + column, s);
      store_vector<width>(row_values + column, s);
#pragma unroll
      for (int i = 0; i < width; ++i) total += s[i];
    }
    float mean = block_sum<forward_threads>(total, shared) * inverse_n;
    float deviation = 0.f, square = 0.f;
    for (int column = begin; column < n; column += step) {
      float s[width];
      load_vector<width>(row_values + column, s);
#pragma unroll
      for (int i = 0; i < width; ++i) {
        deviation += s[i] - mean;
        square += (s[i] - mean) * (s[i] - mean);
      }
    }
    const float correction = block_sum<forward_threads>(deviation, shared) * inverse_n;   // see row_statistics
    const float variance = block_sum<forward_threads>(square, shared) * inverse_n - correction * correction;
    const float rstd = rsqrtf(fmaxf(variance, 0.f) + call.eps);
    mean += correction;
    if (threadIdx.x == 0) {
      call.mean[row] = mean;
      call.rstd[row] = rstd;
    }
    for (int column = begin; column < n; column += step) {
      float s[width], weight[width], bias[width];
      load_vector<width>(row_values + column, s);
      load_parameter<T>(call.weight, column, weight);
      load_parameter<T>(call.bias, column, bias);
#pragma unroll
      for (int i = 0; i < width; ++i) s[i] = (s[i] - mean) * rstd * weight[i] + bias[i];
      store_vector<width>(static_cast<T*>(call.y) + row * n + column, s);
    }
  }
}

// Adds `width` values to a thread's own columns of a sum in shared memory.
template <int width> __device__ __forceinline__ void add_to(float* sums, const float (&x)[width]) {
  float total[width];
  load_vector<width>(sums, total);
#pragma unroll
  for (int i = 0; i < width; ++i) total[i] += x[i];
  store_vector<width>(sums, total);
}

template <class T, int width, bool drops>
__global__ void __launch_bounds__(backward_threads, 1) layer_norm_backward_block_kernel(const LayerNormBackward call, const ColumnSums sums) {
  ELECTRA_DYNAMIC_SHARED(float, totals);   // [sums.columns]: dweight, dbias, dx_bias
  __shared__ float shared[backward_threads / 32];
  const int n = call.columns, step = backward_threads * width, begin = threadIdx.x * width;
  const float inverse_n = 1.f / float(n);
  const T *const grad = static_cast<const T*>(call.grad), *const sum = static_cast<const T*>(call.sum);
  const PhiloxStream stream = drops ? random_stream(call.dropout) : PhiloxStream{};
  for (int column = threadIdx.x; column < sums.columns; column += backward_threads) totals[column] = 0.f;
  __syncthreads();
  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    const float mean = call.mean[row], rstd = call.rstd[row];
    float c1 = 0.f, c2 = 0.f;
    for (int column = begin; column < n; column += step) {
      float dy[width], xhat[width], weight[width];
      load_vector<width>(grad + row * n + column, dy);
      load_vector<width>(sum + row * n + column, xhat);
      load_parameter<T>(call.weight, column, weight);
#pragma unroll
      for (int i = 0; i < width; ++i) {
        xhat[i] = (xhat[i] - mean) * rstd;
        c1 += dy[i] * weight[i];
        c2 += dy[i] * weight[i] * xhat[i];
        xhat[i] *= dy[i];
      }
      add_to<width>(totals + column, xhat);
      add_to<width>(totals + n + column, dy);
    }
    c1 = block_sum<backward_threads>(c1, shared) * inverse_n;
    c2 = block_sum<backward_threads>(c2, shared) * inverse_n;
    for (int column = begin; column < n; column += step) {
      float d[width], s[width], weight[width];
      load_vector<width>(grad + row * n + column, d);
      load_vector<width>(sum + row * n + column, s);
      load_parameter<T>(call.weight, column, weight);
#pragma unroll
      for (int i = 0; i < width; ++i) d[i] = rstd * (d[i] * weight[i] - c1 - (s[i] - mean) * rstd * c2);
      store_vector<width>(static_cast<T*>(call.dresidual) + row * n + column, d);
      if (drops) {
        drop(d, call.dropout, stream, uint32_t(row), uint32_t(column));
        store_vector<width>(static_cast<T*>(call.dx) + row * n + column, d);
      }
      if (call.dx_bias.data) add_to<width>(totals + 2 * n + column, d);
    }
  }
  __syncthreads();
  for (int column = threadIdx.x; column < sums.columns; column += backward_threads) sums.blocks[int64_t(blockIdx.x) * sums.pitch + column] = totals[column];
  finish_column_sums(sums, [&](int column, float total) {
    const ParameterGradient& to = column < n ? call.dweight : column < 2 * n ? call.dbias : call.dx_bias;
    store_element<T>(to, column % n, total);
  });
}

template <class T, int width> cudaError_t forward(const LayerNormForward& call, cudaStream_t stream) {
  const int blocks = blocks_for(call.rows, 1, most_column_blocks * layer_norm_block_blocks);
  const size_t shared = size_t(call.columns) * sizeof(float);
  if (call.dropout.rng) return ELECTRA_LAUNCH((layer_norm_forward_block_kernel<T, width, true>), blocks, forward_threads, shared, stream, call);
  return ELECTRA_LAUNCH((layer_norm_forward_block_kernel<T, width, false>), blocks, forward_threads, shared, stream, call);
}

template <class T, int width> cudaError_t backward(const LayerNormBackward& call, cudaStream_t stream) {
  const int blocks = blocks_for(call.rows, 1, most_column_blocks);
  Workspace memory(call.workspace);
  const ColumnSums sums(memory, blocks, int64_t(call.dx_bias.data ? 3 : 2) * call.columns);
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  const size_t shared = size_t(sums.columns) * sizeof(float);
  if (call.dx) return ELECTRA_LAUNCH((layer_norm_backward_block_kernel<T, width, true>), blocks, backward_threads, shared, stream, call, sums);
  return ELECTRA_LAUNCH((layer_norm_backward_block_kernel<T, width, false>), blocks, backward_threads, shared, stream, call, sums);
}

}  // namespace

cudaError_t layer_norm_forward_block(const LayerNormForward& call, cudaStream_t stream) {
  if (call.columns > layer_norm_most_columns) return cudaErrorInvalidValue;
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int width = values_per_16_bytes<T>;
    const bool vectors = call.columns % width == 0 && aligned_16(call.x) && aligned_16(call.residual) && aligned_16(call.y) && aligned_16(call.sum) &&
                         aligned_16(call.weight.data) && aligned_16(call.bias.data) && aligned_16(call.x_bias.data);
    return vectors ? forward<T, width>(call, stream) : forward<T, 1>(call, stream);
  });
}

cudaError_t layer_norm_backward_block(const LayerNormBackward& call, cudaStream_t stream) {
  if (call.columns > layer_norm_most_columns) return cudaErrorInvalidValue;
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int width = values_per_16_bytes<T>;
    const bool vectors = call.columns % width == 0 && aligned_16(call.grad) && aligned_16(call.sum) && aligned_16(call.weight.data) && aligned_16(call.dx) &&
                         aligned_16(call.dresidual);
    return vectors ? backward<T, width>(call, stream) : backward<T, 1>(call, stream);
  });
}

}  // namespace electra::cuda
