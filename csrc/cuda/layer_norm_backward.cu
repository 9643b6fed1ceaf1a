// layer_norm, backward. With dy = grad, xhat = (sum - mean) rstd, g = dy weight, c1 = mean(g), c2 = mean(g xhat) over a row:
//   dresidual = rstd (g - c1 - xhat c2), dx = dropout(dresidual), dweight = Σ dy xhat, dbias = Σ dy, dx_bias = Σ dx over the rows.
//
// One launch: grad, sum -> dresidual, dx (4 N e bytes a row; 3 N e without dropout), and the sums of the parameters stay in registers until the end
// (layer_norm_columns.h adds them up). Rows wait unconverted in registers between the two sweeps over them: converting twice is cheaper than room for both.
#include "cuda/dropout.cuh"
#include "cuda/layer_norm.h"
#include "cuda/layer_norm_block.h"
#include "cuda/layer_norm_columns.cuh"
#include "cuda/layer_norm_launch.cuh"

namespace electra::cuda {
namespace {

template <class T, int entry, bool drops>
__global__ void __launch_bounds__(32 * LayerNormLaunch<T>::backward[entry].warps, LayerNormLaunch<T>::backward[entry].blocks)
layer_norm_backward_kernel(const LayerNormBackward call, const ColumnSums sums) {
  constexpr RowLaunch launch = LayerNormLaunch<T>::backward[entry];
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int n = L::count(call.columns);
  const float inverse_n = 1.f / float(n);
  const T *const grad = static_cast<const T*>(call.grad), *const sum = static_cast<const T*>(call.sum);
  T *const dx = static_cast<T*>(call.dx), *const dresidual = static_cast<T*>(call.dresidual);
  float weight[L::vectors][L::width], dweight[L::vectors][L::width], dbias[L::vectors][L::width], dx_bias[L::vectors][L::width];
  load_columns<T, L>(call.weight, n, weight);
  load_columns<T, L>(Parameter{}, n, dweight);
  load_columns<T, L>(Parameter{}, n, dbias);
  load_columns<T, L>(Parameter{}, n, dx_bias);

  const int64_t warp = int64_t(blockIdx.x) * launch.warps + threadIdx.x / 32, warps = int64_t(gridDim.x) * launch.warps;
  for (int64_t first = warp * L::rows_per_warp; first < call.rows; first += warps * L::rows_per_warp) {
    uint4 raw_grad[L::rows][L::vectors], raw_sum[L::rows][L::vectors];
    load_rows<T, L>(grad, first, call.rows, n, raw_grad);
    load_rows<T, L>(sum, first, call.rows, n, raw_sum);
    float mean[L::rows], rstd[L::rows];
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const int64_t row = L::row(first, r);
      mean[r] = row < call.rows ? call.mean[row] : 0.f;
      rstd[r] = row < call.rows ? call.rstd[row] : 0.f;
    }
    uint32_t bytes[L::rows][L::vectors][L::width / 4];
    // (Read here, not before the loop: the compiler would keep the keys of all seven rounds in registers.)
    if (drops) draw_rows<L>(random_stream(call.dropout), first, bytes);

    float c1[L::rows], c2[L::rows];
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      c1[r] = c2[r] = 0.f;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        float dy[L::width], s[L::width], part1 = 0.f, part2 = 0.f;
        widen<T>(raw_grad[r][v], dy);
        widen<T>(raw_sum[r][v], s);
#pragma unroll
        for (int i = 0; i < L::width; ++i) {
          const float xhat = (s[i] - mean[r]) * rstd[r], g = dy[i] * weight[v][i];
          part1 += g;
          part2 += g * xhat;
          dweight[v][i] += dy[i] * xhat;
          dbias[v][i] += dy[i];
        }
        c1[r] += part1;
        c2[r] += part2;
      }
    }
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      c1[r] = warp_sum<L::lanes>(c1[r]) * inverse_n;
      c2[r] = warp_sum<L::lanes>(c2[r]) * inverse_n;
    }

#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const int64_t row = L::row(first, r);
      if (row >= call.rows) continue;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        if (!L::inside(v, n)) continue;
        const int64_t at = row * n + L::column(v);
        float d[L::width], s[L::width];
        forget(raw_grad[r][v]);
        forget(raw_sum[r][v]);
        widen<T>(raw_grad[r][v], d);
        widen<T>(raw_sum[r][v], s);
#pragma unroll
        for (int i = 0; i < L::width; ++i) d[i] = rstd[r] * (d[i] * weight[v][i] - c1[r] - (s[i] - mean[r]) * rstd[r] * c2[r]);
        store_vector<L::width>(dresidual + at, d);
        if (drops) {
          // (Not keep_drawn, whose shifted bytes would be kept beside the bytes: 12 warps leave 168 registers each.)
#pragma unroll
          for (int i = 0; i < L::width; ++i) d[i] = int(bytes[r][v][i / 4] >> 8 * (i % 4) & 255u) < call.dropout.threshold ? d[i] * call.dropout.scale : 0.f;
          store_vector<L::width>(dx + at, d);
        }
#pragma unroll
        for (int i = 0; i < L::width; ++i) dx_bias[v][i] += d[i];
      }
    }
  }

  ELECTRA_DYNAMIC_SHARED(float, shared);   // [warps, L::columns]
  float* const out = sums.blocks + int64_t(blockIdx.x) * sums.pitch;
  sum_over_warps<L, launch.warps>(dweight, n, shared, out);
  sum_over_warps<L, launch.warps>(dbias, n, shared, out + n);
  if (call.dx_bias.data) sum_over_warps<L, launch.warps>(dx_bias, n, shared, out + 2 * n);
  finish_column_sums(sums, [&](int column, float total) {
    const ParameterGradient& to = column < n ? call.dweight : column < 2 * n ? call.dbias : call.dx_bias;
    store_element<T>(to, column % n, total);
  });
}

template <class T, int entry = 0>
cudaError_t backward_rows(const LayerNormBackward& call, cudaStream_t stream) {
  constexpr RowLaunch launch = LayerNormLaunch<T>::backward[entry];
  if constexpr (launch.exact) {
    if (call.columns != launch.columns) return backward_rows<T, entry + 1>(call, stream);
  }
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int blocks = blocks_for(call.rows, launch.warps * L::rows_per_warp, most_column_blocks);
  Workspace memory(call.workspace);
  const ColumnSums sums(memory, blocks, int64_t(call.dx_bias.data ? 3 : 2) * call.columns);
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  const size_t shared = size_t(launch.warps) * L::columns * sizeof(float);
  if (call.dx) return ELECTRA_LAUNCH((layer_norm_backward_kernel<T, entry, true>), blocks, 32 * launch.warps, shared, stream, call, sums);
  return ELECTRA_LAUNCH((layer_norm_backward_kernel<T, entry, false>), blocks, 32 * launch.warps, shared, stream, call, sums);
}

template <class T> bool rows_fit_registers(const LayerNormBackward& call) {
  return row_launch_serves<T>(LayerNormLaunch<T>::backward, call.columns) && aligned_16(call.grad) && aligned_16(call.sum) && aligned_16(call.weight.data) &&
         aligned_16(call.dx) && aligned_16(call.dresidual);
}

}  // namespace

int64_t layer_norm_backward_workspace(int64_t rows, int columns, bool has_x_bias) {
  Workspace count(nullptr);
  ColumnSums(count, blocks_for(rows, 1, most_column_blocks), int64_t(has_x_bias ? 3 : 2) * columns);
  return count.bytes();
}

cudaError_t layer_norm_backward(const LayerNormBackward& call, cudaStream_t stream) {
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return rows_fit_registers<T>(call) ? backward_rows<T>(call, stream) : layer_norm_backward_block(call, stream);
  });
}

}  // namespace electra::cuda
