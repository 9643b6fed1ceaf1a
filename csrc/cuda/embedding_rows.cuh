// Launch parameters of embedding, and the sum of three looked-up rows in registers.
#pragma once
#include "cuda/embedding.h"
#include "cuda/layer_norm_row.cuh"

namespace electra::cuda {

// Row lengths: ELECTRA's small, base and large embedding. Not measured on a GPU yet: rows in flight and warps follow from ptxas' register counts; a gather
// waits twice for memory (ids, then rows), so that there should be many rows under way.
struct EmbeddingLaunch16Bit {
  static constexpr RowLaunch forward[] = {
      {128, true, 2, 4, 6},
      {768, true, 1, 4, 4},
      {1024, true, 1, 4, 3},
      {1024, false, 1, 4, 3},
  };
  // Two sums a column stay in registers. One block a multiprocessor: the fewer blocks, the less is left to add up at the end.
  static constexpr RowLaunch backward[] = {
      {128, true, 2, 16, 1},
      {768, true, 1, 8, 1},
      {1024, true, 1, 8, 1},
      {1024, false, 1, 8, 1},
  };
};
struct EmbeddingLaunch32Bit {
  static constexpr RowLaunch forward[] = {
      {128, true, 4, 4, 5},
      {768, true, 1, 4, 3},
      {1024, true, 1, 4, 2},
      {1024, false, 1, 4, 2},
  };
  static constexpr RowLaunch backward[] = {
      {128, true, 4, 16, 1},
      {768, true, 1, 8, 1},
      {1024, true, 1, 8, 1},
      {1024, false, 1, 8, 1},
  };
};
template <class T> struct EmbeddingLaunch : EmbeddingLaunch16Bit {};
template <> struct EmbeddingLaunch<float> : EmbeddingLaunch32Bit {};

// Any other row: a block each, in shared memory.
constexpr int embedding_block_threads = 256, embedding_block_blocks = 4;

// Where a token finds its rows; `inside` if all of them exist.
template <class Table> struct TokenRows {
  const Table* row[embedding_tables];
  bool inside;

  __device__ __forceinline__ TokenRows(const EmbeddingTable (&tables)[embedding_tables], int64_t token, int n) : inside(true) {
#pragma unroll
    for (int t = 0; t < embedding_tables; ++t) {
      const int64_t id = tables[t].ids[token];
      inside = inside && id >= 0 && id < tables[t].rows;
      row[t] = static_cast<const Table*>(tables[t].data) + id * n;
    }
  }
};

__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }

// The sums of the tokens from `first` on; zeros past the last token and the last column.
template <class Table, class L>
__device__ __forceinline__ void gather_rows(const EmbeddingTable (&tables)[embedding_tables], int64_t first, int64_t tokens, int n,
                                            float (&s)[L::rows][L::vectors][L::width]) {
#pragma unroll
  for (int r = 0; r < L::rows; ++r) {
    const int64_t token = L::row(first, r);
#pragma unroll
    for (int v = 0; v < L::vectors; ++v)
#pragma unroll
      for (int i = 0; i < L::width; ++i) s[r][v][i] = 0.f;
    if (token >= tokens) continue;
    const TokenRows<Table> from(tables, token, n);
#pragma unroll
    for (int v = 0; v < L::vectors; ++v) {
      if (!L::inside(v, n)) continue;
      if (from.inside) {
#pragma unroll
        for (int t = 0; t < embedding_tables; ++t) {
          float part[L::width];
          load_vector<L::width>(from.row[t] + L::column(v), part);
#pragma unroll
          for (int i = 0; i < L::width; ++i) s[r][v][i] += part[i];
        }
      } else {
#pragma unroll
        for (int i = 0; i < L::width; ++i) s[r][v][i] = not_a_number();
      }
    }
  }
}

template <class T, int lines>
bool embedding_fits_registers(const RowLaunch (&table)[lines], const EmbeddingTable (&tables)[embedding_tables], const Parameter& weight, const Parameter& bias,
                              const void* activations, int columns) {
  bool aligned = aligned_16(weight.data) && aligned_16(bias.data) && aligned_16(activations);
  for (const EmbeddingTable& t : tables) aligned = aligned && aligned_16(t.data);
  return aligned && row_launch_serves<T>(table, columns);
}

// Call f(TypeTag<T>{}, TypeTag<Table>{}): the tables are in float32 or in the activations' type.
template <class F> auto dispatch_tables(DType type, DType table_type, F&& f) {
  return dispatch(type, [&](auto tag) { return table_type == DType::f32 ? f(tag, TypeTag<float>{}) : f(tag, tag); });
}

}  // namespace electra::cuda
