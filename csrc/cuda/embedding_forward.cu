// embedding, forward: y = dropout(LN(word[id] + position[position id] + token_type[token type id])).
//
// One pass: three rows gathered, one written, nothing between goes to memory. A token takes N e bytes of y, as many bytes as N values of `word` have (the other
// tables stay in the caches) and 24 bytes of ids.
#include "cuda/embedding_block.h"
#include "cuda/embedding_rows.cuh"
#include "cuda/layer_norm_columns.h"

namespace electra::cuda {
namespace {

template <class T, class Table, int entry>
__global__ void __launch_bounds__(32 * EmbeddingLaunch<T>::forward[entry].warps, EmbeddingLaunch<T>::forward[entry].blocks)
embedding_forward_kernel(const EmbeddingForward call) {
  constexpr RowLaunch launch = EmbeddingLaunch<T>::forward[entry];
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int n = L::count(call.columns);
  T* const y = static_cast<T*>(call.y);
  float weight[L::vectors][L::width], bias[L::vectors][L::width];
  load_columns<T, L>(call.weight, n, weight);
  load_columns<T, L>(call.bias, n, bias);

  const int64_t warp = int64_t(blockIdx.x) * launch.warps + threadIdx.x / 32, warps = int64_t(gridDim.x) * launch.warps;
  for (int64_t first = warp * L::rows_per_warp; first < call.tokens; first += warps * L::rows_per_warp) {
    float s[L::rows][L::vectors][L::width];
    gather_rows<Table, L>(call.tables, first, call.tokens, n, s);
    const RowStatistics<L> statistics(s, n, call.eps);
    uint32_t bytes[L::rows][L::vectors][L::width / 4];
    if (call.dropout.rng) draw_rows<L>(random_stream(call.dropout), first, bytes);
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const int64_t token = L::row(first, r);
      if (token >= call.tokens) continue;
      if (L::lane() == 0) {
        call.mean[token] = statistics.mean[r];
        call.rstd[token] = statistics.rstd[r];
      }
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        if (!L::inside(v, n)) continue;
#pragma unroll
        for (int i = 0; i < L::width; ++i) s[r][v][i] = (s[r][v][i] * statistics.rstd[r] + statistics.shift[r]) * weight[v][i] + bias[v][i];
        if (call.dropout.rng) {
          keep_drawn(s[r][v], bytes[r][v], call.dropout.threshold);
#pragma unroll
          for (int i = 0; i < L::width; ++i) s[r][v][i] *= call.dropout.scale;
        }
        store_vector<L::width>(y + token * n + L::column(v), s[r][v]);
      }
    }
  }
}

template <class T, class Table, int entry = 0>
cudaError_t forward_rows(const EmbeddingForward& call, cudaStream_t stream) {
  constexpr RowLaunch launch = EmbeddingLaunch<T>::forward[entry];
  if constexpr (launch.exact) {
    if (call.columns != launch.columns) return forward_rows<T, Table, entry + 1>(call, stream);
  }
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int blocks = blocks_for(call.tokens, launch.warps * L::rows_per_warp, most_column_blocks * launch.blocks);
  return ELECTRA_LAUNCH((embedding_forward_kernel<T, Table, entry>), blocks, 32 * launch.warps, 0, stream, call);
}

}  // namespace

cudaError_t embedding_forward(const EmbeddingForward& call, cudaStream_t stream) {
  if (call.tokens == 0) return cudaSuccess;
  return dispatch_tables(call.type, call.table_type, [&](auto tag, auto table_tag) {
    using T = typename decltype(tag)::type;
    using Table = typename decltype(table_tag)::type;
    const bool fits = embedding_fits_registers<T>(EmbeddingLaunch<T>::forward, call.tables, call.weight, call.bias, call.y, call.columns);
    return fits ? forward_rows<T, Table>(call, stream) : embedding_forward_block(call, stream);
  });
}

}  // namespace electra::cuda
