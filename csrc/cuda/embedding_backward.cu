// embedding, backward. Rows first: with dy = dropout(grad), xhat = (sum - mean) rstd, g = dy weight,
//   dsum = rstd (g - mean(g) - xhat mean(g xhat)) for every token, dweight = Σ dy xhat, dbias = Σ dy;
// then the gradient of a table's row is the sum of dsum over the tokens that looked it up (embedding_scatter.h).
//
// The sum of the three rows is gathered again rather than kept. A token takes N e bytes of grad, its row of `word`, and 16 N of dsum: written once in float32,
// read once for each table (mostly from L2).
#include "cuda/embedding_block.h"
#include "cuda/embedding_rows.cuh"
#include "cuda/embedding_scatter.h"
#include "cuda/layer_norm_columns.cuh"

namespace electra::cuda {
namespace {

template <class T, class Table, int entry>
__global__ void __launch_bounds__(32 * EmbeddingLaunch<T>::backward[entry].warps, EmbeddingLaunch<T>::backward[entry].blocks)
embedding_backward_kernel(const EmbeddingBackward call, float* const dsum, const ColumnSums sums) {
  constexpr RowLaunch launch = EmbeddingLaunch<T>::backward[entry];
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  ELECTRA_DYNAMIC_SHARED(float, shared);   // [warps, L::columns]
  const int n = L::count(call.columns);
  const float inverse_n = 1.f / float(n);
  float weight[L::vectors][L::width], dweight[L::vectors][L::width], dbias[L::vectors][L::width];
  load_columns<T, L>(call.weight, n, weight);
  load_columns<T, L>(Parameter{}, n, dweight);
  load_columns<T, L>(Parameter{}, n, dbias);

  const int64_t warp = int64_t(blockIdx.x) * launch.warps + threadIdx.x / 32, warps = int64_t(gridDim.x) * launch.warps;
  for (int64_t first = warp * L::rows_per_warp; first < call.tokens; first += warps * L::rows_per_warp) {
    uint4 raw[L::rows][L::vectors];
    load_rows<T, L>(static_cast<const T*>(call.grad), first, call.tokens, n, raw);
    float xhat[L::rows][L::vectors][L::width];
    gather_rows<Table, L>(call.tables, first, call.tokens, n, xhat);
    uint32_t bytes[L::rows][L::vectors][L::width / 4];
    if (call.dropout.rng) draw_rows<L>(random_stream(call.dropout), first, bytes);

    float rstd[L::rows], c1[L::rows], c2[L::rows];
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const int64_t token = L::row(first, r);
      const float mean = token < call.tokens ? call.mean[token] : 0.f;
      rstd[r] = token < call.tokens ? call.rstd[token] : 0.f;
      c1[r] = c2[r] = 0.f;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        float dy[L::width], part1 = 0.f, part2 = 0.f;
        widen<T>(raw[r][v], dy);
        if (call.dropout.rng) keep_drawn(dy, bytes[r][v], call.dropout.threshold);
#pragma unroll
        for (int i = 0; i < L::width; ++i) {
          dy[i] *= call.dropout.scale;
          xhat[r][v][i] = (xhat[r][v][i] - mean) * rstd[r];
          const float g = dy[i] * weight[v][i];
          part1 += g;
          part2 += g * xhat[r][v][i];
          dweight[v][i] += dy[i] * xhat[r][v][i];
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
      const int64_t token = L::row(first, r);
      if (token >= call.tokens) continue;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        if (!L::inside(v, n)) continue;
        float d[L::width];
        forget(raw[r][v]);
        widen<T>(raw[r][v], d);
        if (call.dropout.rng) keep_drawn(d, bytes[r][v], call.dropout.threshold);
#pragma unroll
        for (int i = 0; i < L::width; ++i) d[i] = rstd[r] * (d[i] * call.dropout.scale * weight[v][i] - c1[r] - xhat[r][v][i] * c2[r]);
        store_vector<L::width>(dsum + token * n + L::column(v), d);
      }
    }
  }

  float* const out = sums.blocks + int64_t(blockIdx.x) * sums.pitch;
  sum_over_warps<L, launch.warps>(dweight, n, shared, out);
  sum_over_warps<L, launch.warps>(dbias, n, shared, out + n);
  finish_column_sums(sums, [&](int column, float total) { store_element<T>(column < n ? call.dweight : call.dbias, column % n, total); });
}

template <class T, class Table, int entry = 0>
cudaError_t backward_rows(const EmbeddingBackward& call, float* dsum, Workspace& memory, cudaStream_t stream) {
  constexpr RowLaunch launch = EmbeddingLaunch<T>::backward[entry];
  if constexpr (launch.exact) {
    if (call.columns != launch.columns) return backward_rows<T, Table, entry + 1>(call, dsum, memory, stream);
  }
  using L = RowLayout<T, launch.columns, launch.exact, launch.rows>;
  const int blocks = blocks_for(call.tokens, launch.warps * L::rows_per_warp, most_column_blocks);
  const ColumnSums sums(memory, blocks, 2 * int64_t(call.columns));
  if (const cudaError_t error = sums.clear(stream); error != cudaSuccess) return error;
  const size_t shared = size_t(launch.warps) * L::columns * sizeof(float);
  return ELECTRA_LAUNCH((embedding_backward_kernel<T, Table, entry>), blocks, 32 * launch.warps, shared, stream, call, dsum, sums);
}

// dsum has rows of whole 16-byte pieces, so that the scatter may read it in those.
int pitch_of(int columns) { return (columns + 3) / 4 * 4; }

}  // namespace

int64_t embedding_backward_workspace(const EmbeddingBackward& call) {
  Workspace memory(nullptr);
  memory.take<float>(call.tokens * pitch_of(call.columns));
  EmbeddingScatter(memory, call, nullptr, pitch_of(call.columns));
  ColumnSums(memory, blocks_for(call.tokens, 1, most_column_blocks), 2 * int64_t(call.columns));
  return memory.bytes();
}

cudaError_t embedding_backward(const EmbeddingBackward& call, cudaStream_t stream) {
  const int pitch = pitch_of(call.columns);
  Workspace memory(call.workspace);
  float* const dsum = memory.take<float>(call.tokens * pitch);
  const EmbeddingScatter scatter(memory, call, dsum, pitch);
  const cudaError_t error = dispatch_tables(call.type, call.table_type, [&](auto tag, auto table_tag) {
    using T = typename decltype(tag)::type;
    using Table = typename decltype(table_tag)::type;
    const bool fits = embedding_fits_registers<T>(EmbeddingLaunch<T>::backward, call.tables, call.weight, {}, call.grad, call.columns);
    return fits ? backward_rows<T, Table>(call, dsum, memory, stream) : embedding_backward_block(call, dsum, pitch, memory, stream);
  });
  return error == cudaSuccess ? embedding_scatter(scatter, stream) : error;
}

}  // namespace electra::cuda
