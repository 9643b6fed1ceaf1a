// embedding with a block for each row: any N up to 8192, any alignment, a value an access. Rows and the sums of their columns lie in shared memory.
#include "cuda/embedding_block.h"
#include "cuda/embedding_rows.cuh"
#include "cuda/layer_norm_columns.cuh"

namespace electra::cuda {
namespace {

constexpr int threads = embedding_block_threads;

template <class Table> __device__ __forceinline__ float sum_at(const TokenRows<Table>& from, int column) {
  float s = 0.f;
#pragma unroll
  for (int t = 0; t < embedding_tables; ++t) s += to_float(from.row[t][column]);
  return s;
}

template <class T, class Table> __global__ void __launch_bounds__(threads) embedding_forward_block_kernel(const EmbeddingForward call) {
  ELECTRA_DYNAMIC_SHARED(float, row);   // [columns]
  __shared__ float shared[threads / 32];
  const int n = call.columns;
  const float inverse_n = 1.f / float(n);
  for (int64_t token = blockIdx.x; token < call.tokens; token += gridDim.x) {
    const TokenRows<Table> from(call.tables, token, n);
    float total = 0.f, deviation = 0.f, square = 0.f;
    for (int column = threadIdx.x; column < n; column += threads) {
      const float s = from.inside ? sum_at(from, column) : not_a_number();
      row[column] = s;
      total += s;
    }
    float mean = block_sum<threads>(total, shared) * inverse_n;
    for (int column = threadIdx.x; column < n; column += threads) {
      const float d = row[column] - mean;
      deviation += d;
      square += d * d;
    }
    const float correction = block_sum<threads>(deviation, shared) * inverse_n;   // see row_statistics
    const float variance = block_sum<threads>(square, shared) * inverse_n - correction * correction;
    const float rstd = rsqrtf(fmaxf(variance, 0.f) + call.eps);
    mean += correction;
    if (threadIdx.x == 0) {
      call.mean[token] = mean;
      call.rstd[token] = rstd;
    }
    for (int column = threadIdx.x; column < n; column += threads) {
      float weight[1], bias[1];
      load_parameter<T>(call.weight, column, weight);
      load_parameter<T>(call.bias, column, bias);
      float y[1] = {(row[column] - mean) * rstd * weight[0] + bias[0]};
      if (call.dropout.rng) drop(y, call.dropout, random_stream(call.dropout), uint32_t(token), uint32_t(column));
      static_cast<T*>(call.y)[token * n + column] = from_float<T>(y[0]);
    }
  }
}

template <class T, class Table>
__global__ void __launch_bounds__(threads)
embedding_backward_block_kernel(const EmbeddingBackward call, float* const dsum, const int pitch, const ColumnSums sums) {
  ELECTRA_DYNAMIC_SHARED(float, totals);   // [2, columns]: dweight, dbias
  __shared__ float shared[threads / 32];
  const int n = call.columns;
  const float inverse_n = 1.f / float(n);
  for (int column = threadIdx.x; column < 2 * n; column += threads) totals[column] = 0.f;
  __syncthreads();
  for (int64_t token = blockIdx.x; token < call.tokens; token += gridDim.x) {
    const TokenRows<Table> from(call.tables, token, n);
    const float mean = call.mean[token], rstd = call.rstd[token];
    const auto dy_at = [&](int column) {
      float dy[1] = {to_float(static_cast<const T*>(call.grad)[token * n + column])};
      if (call.dropout.rng) drop(dy, call.dropout, random_stream(call.dropout), uint32_t(token), uint32_t(column));
      return dy[0];
    };
    float c1 = 0.f, c2 = 0.f;
    for (int column = threadIdx.x; column < n; column += threads) {
      float weight[1];
      load_parameter<T>(call.weight, column, weight);
      const float xhat = ((from.inside ? sum_at(from, column) : not_a_number()) - mean) * rstd, dy = dy_at(column);
      totals[column] += dy * xhat;
      totals[n + column] += dy;
      dsum[token * pitch + column] = xhat;   // until the second sweep
      c1 += dy * weight[0];
      c2 += dy * weight[0] * xhat;
    }
    c1 = block_sum<threads>(c1, shared) * inverse_n;
    c2 = block_sum<threads>(c2, shared) * inverse_n;
    for (int column = threadIdx.x; column < n; column += threads) {
      float weight[1];
      load_parameter<T>(call.weight, column, weight);
      float& d = dsum[token * pitch + column];
      d = rstd * (dy_at(column) * weight[0] - c1 - d * c2);
    }
    for (int column = n + threadIdx.x; column < pitch; column += threads) dsum[token * pitch + column] = 0.f;
  }
  __syncthreads();
  for (int column = threadIdx.x; column < 2 * n; column += threads) sums.blocks[int64_t(blockIdx.x) * sums.pitch + column] = totals[column];
  finish_column_sums(sums, [&](int column, float total) { store_element<T>(column < n ? call.dweight : call.dbias, column % n, total); });
}

}  // namespace

cudaError_t embedding_forward_block(const EmbeddingForward& call, cudaStream_t stream) {
  if (call.columns > embedding_most_columns) return cudaErrorInvalidValue;
  return dispatch_tables(call.type, call.table_type, [&](auto tag, auto table_tag) {
    using T = typename decltype(tag)::type;
    using Table = typename decltype(table_tag)::type;
    const int blocks = blocks_for(call.tokens, 1, most_column_blocks * embedding_block_blocks);
    return ELECTRA_LAUNCH((embedding_forward_block_kernel<T, Table>), blocks, threads, size_t(call.columns) * sizeof(float), stream, call);
  });
}

cudaError_t embedding_backward_block(const EmbeddingBackward& call, float* dsum, int pitch, Workspace& memory, cudaStream_t stream) {
  if (call.columns > embedding_most_columns) return cudaErrorInvalidValue;
  return dispatch_tables(call.type, call.table_type, [&](auto tag, auto table_tag) {
    using T = typename decltype(tag)::type;
    using Table = typename decltype(table_tag)::type;
    const int blocks = blocks_for(call.tokens, 1, most_column_blocks);
    const ColumnSums sums(memory, blocks, 2 * int64_t(call.columns));
    if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
    const size_t shared = 2 * size_t(call.columns) * sizeof(float);
    return ELECTRA_LAUNCH((embedding_backward_block_kernel<T, Table>), blocks, threads, shared, stream, call, dsum, pitch, sums);
  });
}

}  // namespace electra::cuda
