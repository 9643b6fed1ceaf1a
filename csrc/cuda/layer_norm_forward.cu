// layer_norm, forward: sum = residual + dropout(x + x_bias); y = (sum - mean) rstd weight + bias.
//
// One pass, every tensor read or written once: x, residual -> sum, y (4 N e bytes a row for elements of e bytes; 2 N e when sum is x). Statistics come from the
// unrounded sum in float32 registers. Bound by memory: at 16 bits and N = 768, 6 kB a row and some 19 instructions an element.
#include "cuda/dropout.cuh"
#include "cuda/layer_norm.h"
#include "cuda/layer_norm_block.h"
#include "cuda/layer_norm_columns.h"
#include "cuda/layer_norm_launch.cuh"

namespace electra::cuda {
namespace {

template <class T, int entry, bool drops>
__global__ void __launch_bounds__(32 * LayerNormLaunch<T>::forward[entry].warps, LayerNormLaunch<T>::forward[entry].blocks)
layer_norm_forward_kernel(const LayerNormForward call) {
  constexpr RowLaunch launch = LayerNormLaunch<T>::forward[entry];
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int n = L::count(call.columns);
  const T *const x = static_cast<const T*>(call.x), *const residual = static_cast<const T*>(call.residual);
  T *const y = static_cast<T*>(call.y), *const sum = static_cast<T*>(call.sum);
  float weight[L::vectors][L::width], bias[L::vectors][L::width], x_bias[L::vectors][L::width];
  load_columns<T, L>(call.weight, n, weight);
  load_columns<T, L>(call.bias, n, bias);
  load_columns<T, L>(call.x_bias, n, x_bias);
  const float scale = drops ? call.dropout.scale : 1.f;   // dropout scales x + x_bias: one multiply-add, with x_bias scaled here
#pragma unroll
  for (int v = 0; v < L::vectors; ++v)
#pragma unroll
    for (int i = 0; i < L::width; ++i) x_bias[v][i] *= scale;

  const int64_t warp = int64_t(blockIdx.x) * launch.warps + threadIdx.x / 32, warps = int64_t(gridDim.x) * launch.warps;
  for (int64_t first = warp * L::rows_per_warp; first < call.rows; first += warps * L::rows_per_warp) {
    uint4 raw_x[L::rows][L::vectors], raw_residual[L::rows][L::vectors];
    load_rows<T, L>(x, first, call.rows, n, raw_x);
    if (residual) load_rows<T, L>(residual, first, call.rows, n, raw_residual);
    uint32_t bytes[L::rows][L::vectors][L::width / 4];
    // (Read here, not before the loop: the compiler would keep the keys of all seven rounds in registers.)
    if (drops) draw_rows<L>(random_stream(call.dropout), first, bytes);

    float s[L::rows][L::vectors][L::width];
#pragma unroll
    for (int r = 0; r < L::rows; ++r)
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        widen<T>(raw_x[r][v], s[r][v]);
#pragma unroll
        for (int i = 0; i < L::width; ++i) s[r][v][i] = s[r][v][i] * scale + x_bias[v][i];
        if (drops) keep_drawn(s[r][v], bytes[r][v], call.dropout.threshold);
        if (residual) {
          float other[L::width];
          widen<T>(raw_residual[r][v], other);
#pragma unroll
          for (int i = 0; i < L::width; ++i) s[r][v][i] += other[i];
        }
        const int64_t row = L::row(first, r);
        if (sum && row < call.rows && L::inside(v, n)) store_vector<L::width>(sum + row * n + L::column(v), s[r][v]);
      }

    const RowStatistics<L> statistics(s, n, call.eps);
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const int64_t row = L::row(first, r);
      if (row >= call.rows) continue;
      if (L::lane() == 0) {
        call.mean[row] = statistics.mean[r];
        call.rstd[row] = statistics.rstd[r];
      }
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        if (!L::inside(v, n)) continue;
#pragma unroll
        for (int i = 0; i < L::width; ++i) s[r][v][i] = (s[r][v][i] * statistics.rstd[r] + statistics.shift[r]) * weight[v][i] + bias[v][i];
        store_vector<L::width>(y + row * n + L::column(v), s[r][v]);
      }
    }
  }
}

template <class T, int entry = 0>
cudaError_t forward_rows(const LayerNormForward& call, cudaStream_t stream) {
  constexpr RowLaunch launch = LayerNormLaunch<T>::forward[entry];
  if constexpr (launch.exact) {
    if (call.columns != launch.columns) return forward_rows<T, entry + 1>(call, stream);
  }
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int blocks = blocks_for(call.rows, launch.warps * L::rows_per_warp, most_column_blocks * launch.blocks);
  if (call.dropout.rng) return ELECTRA_LAUNCH((layer_norm_forward_kernel<T, entry, true>), blocks, 32 * launch.warps, 0, stream, call);
  return ELECTRA_LAUNCH((layer_norm_forward_kernel<T, entry, false>), blocks, 32 * launch.warps, 0, stream, call);
}

template <class T> bool rows_fit_registers(const LayerNormForward& call) {
  return row_launch_serves<T>(LayerNormLaunch<T>::forward, call.columns) && aligned_16(call.x) && aligned_16(call.residual) && aligned_16(call.y) &&
         aligned_16(call.sum) && aligned_16(call.weight.data) && aligned_16(call.bias.data) && aligned_16(call.x_bias.data);
}

}  // namespace

cudaError_t layer_norm_forward(const LayerNormForward& call, cudaStream_t stream) {
  if (call.rows == 0) return cudaSuccess;
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return rows_fit_registers<T>(call) ? forward_rows<T>(call, stream) : layer_norm_forward_block(call, stream);
  });
}

}  // namespace electra::cuda
