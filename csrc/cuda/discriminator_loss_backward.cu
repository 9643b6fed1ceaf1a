// discriminator_loss, backward: d = grad (sigmoid(logit) - label), 0 where the mask is False; dhidden = d weight, dweight = Σ d hidden, dbias = Σ d.
//
// One pass in one launch: hidden read, dhidden written (2 N e bytes a row); sums stay in registers until layer_norm_columns.h adds them up.
#include "cuda/discriminator_loss.h"

#include "cuda/discriminator_loss_launch.cuh"
#include "cuda/layer_norm_columns.cuh"

namespace electra::cuda {
namespace {

// Gradient of a row's logit.
__device__ __forceinline__ float row_gradient(const DiscriminatorLossBackward& call, float grad, int64_t row) {
  if (call.mask && !call.mask[row]) return 0.f;
  const float logit = call.logits[row], e = expf(-fabsf(logit));
  return grad * ((logit < 0.f ? e : 1.f) / (1.f + e) - (call.labels[row] ? 1.f : 0.f));
}

template <class T> __device__ __forceinline__ void finish(const DiscriminatorLossBackward& call, const ColumnSums& sums) {
  finish_column_sums(sums, [&](int column, float total) {
    const bool is_weight = column < sums.columns - 1;
    store_element<T>(is_weight ? call.dweight : call.dbias, is_weight ? column : 0, total);
  });
}

template <class T, int entry>
__global__ void __launch_bounds__(32 * DiscriminatorLossLaunch<T>::backward[entry].warps, DiscriminatorLossLaunch<T>::backward[entry].blocks)
backward_kernel(const DiscriminatorLossBackward call, const ColumnSums sums) {
  constexpr RowLaunch launch = DiscriminatorLossLaunch<T>::backward[entry];
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  ELECTRA_DYNAMIC_SHARED(float, shared);   // [warps, L::columns]
  const int n = L::count(call.columns);
  const float grad = *call.grad;
  float weight[L::vectors][L::width], dweight[L::vectors][L::width], dbias = 0.f;
  load_columns<T, L>(call.weight, n, weight);
  load_columns<T, L>(Parameter{}, n, dweight);
  const int64_t warp = int64_t(blockIdx.x) * launch.warps + threadIdx.x / 32, warps = int64_t(gridDim.x) * launch.warps;
  for (int64_t first = warp * L::rows_per_warp; first < call.rows; first += warps * L::rows_per_warp) {
    uint4 raw[L::rows][L::vectors];
    load_rows<T, L>(static_cast<const T*>(call.hidden), first, call.rows, n, raw);
    const int64_t mine = row_of_lane<L>(first);
    const float d_mine = L::lane() < L::rows && mine < call.rows ? row_gradient(call, grad, mine) : 0.f;
    dbias += d_mine;
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const int64_t row = L::row(first, r);
      const float d = __shfl_sync(full_warp, d_mine, r, L::lanes);
      if (row >= call.rows) continue;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        if (!L::inside(v, n)) continue;
        float h[L::width], dh[L::width];
        widen<T>(raw[r][v], h);
#pragma unroll
        for (int i = 0; i < L::width; ++i) {
          dweight[v][i] += d * h[i];
          dh[i] = d * weight[v][i];
        }
        store_vector<L::width>(static_cast<T*>(call.dhidden) + row * n + L::column(v), dh);
      }
    }
  }

  float* const out = sums.blocks + int64_t(blockIdx.x) * sums.pitch;
  sum_over_warps<L, launch.warps>(dweight, n, shared, out);
  dbias = block_sum<32 * launch.warps>(dbias, shared);
  if (threadIdx.x == 0) out[n] = dbias;
  finish<T>(call, sums);
}

// A thread for each column, and the block's rows one after another; the columns' sums need no company.
template <class T>
__global__ void __launch_bounds__(discriminator_loss_any_threads) backward_any_kernel(const DiscriminatorLossBackward call, const ColumnSums sums) {
  const int n = call.columns;
  const float grad = *call.grad;
  float* const out = sums.blocks + int64_t(blockIdx.x) * sums.pitch;
  for (int column = threadIdx.x; column <= n; column += discriminator_loss_any_threads) {   // column n: the bias
    float weight[1] = {0.f}, total = 0.f;
    if (column < n) load_parameter<T>(call.weight, column, weight);
    for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
      const float d = row_gradient(call, grad, row);
      if (column < n) {
        static_cast<T*>(call.dhidden)[row * n + column] = from_float<T>(d * weight[0]);
        total += d * to_float(static_cast<const T*>(call.hidden)[row * n + column]);
      } else {
        total += d;
      }
    }
    out[column] = total;
  }
  finish<T>(call, sums);
}

template <class T, int entry = 0> cudaError_t backward_rows(const DiscriminatorLossBackward& call, cudaStream_t stream) {
  constexpr RowLaunch launch = DiscriminatorLossLaunch<T>::backward[entry];
  if constexpr (launch.exact) {
    if (call.columns != launch.columns) return backward_rows<T, entry + 1>(call, stream);
  }
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int blocks = blocks_for(call.rows, launch.warps * L::rows_per_warp, most_column_blocks);
  Workspace memory(call.workspace);
  const ColumnSums sums(memory, blocks, int64_t(call.columns) + 1);
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  const size_t shared = size_t(launch.warps) * L::columns * sizeof(float);
  return ELECTRA_LAUNCH((backward_kernel<T, entry>), blocks, 32 * launch.warps, shared, stream, call, sums);
}

template <class T> cudaError_t backward_any(const DiscriminatorLossBackward& call, cudaStream_t stream) {
  const int blocks = blocks_for(call.rows, 8, most_column_blocks);
  Workspace memory(call.workspace);
  const ColumnSums sums(memory, blocks, int64_t(call.columns) + 1);
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH((backward_any_kernel<T>), blocks, discriminator_loss_any_threads, 0, stream, call, sums);
}

}  // namespace

int64_t discriminator_loss_backward_workspace(int64_t rows, int columns) {
  Workspace memory(nullptr);
  ColumnSums(memory, blocks_for(rows, 1, most_column_blocks), int64_t(columns) + 1);
  return memory.bytes();
}

cudaError_t discriminator_loss_backward(const DiscriminatorLossBackward& call, cudaStream_t stream) {
  return dispatch(call.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool fits = row_launch_serves<T>(DiscriminatorLossLaunch<T>::backward, call.columns) && aligned_16(call.hidden) && aligned_16(call.weight.data) &&
                      aligned_16(call.dhidden);
    return fits ? backward_rows<T>(call, stream) : backward_any<T>(call, stream);
  });
}

}  // namespace electra::cuda
