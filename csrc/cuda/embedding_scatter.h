// The transpose of the three look-ups: row `id` of a table's gradient is the sum of the rows of all tokens with that id. Plain C++ half.
//
// Without float atomics, and with shapes that depend on the shapes of the inputs alone, so that a graph may hold it and every run gives the same bits:
//   1. tokens are sorted by id, stably (embedding_sort.cu): a radix sort, 8 bits a pass, all tables at once;
//   2. the sorted tokens are cut into windows of 64, whose rows are added up in order (embedding_scatter.cu): an id that lies within a window is done, one that
//      crosses its ends leaves a sum there;
//   3. the sums of an id that spans windows are added up in their order: quick also where half the tokens share an id, as token types do.
#pragma once
#include <cuda_runtime_api.h>

#include "cuda/embedding.h"
#include "cuda/workspace.h"

namespace electra::cuda {

constexpr int radix_bits = 8, radix = 1 << radix_bits;
constexpr int scatter_window = 64;
constexpr int most_sort_tiles = 64;       // of the tokens, one to a block; every block reads the counts of all
constexpr int least_sort_tile = 1024;     // tokens

struct ScatterTable {
  const int64_t* ids;   // [tokens]
  int rows;             // of the table. A token whose id is outside, or `skip`, gets key `rows`: it sorts last and is left out
  int skip;             // -1: none
  int passes;           // of the sort
  int *keys[2], *order[2];   // [tokens]: sorted by the digits so far, and where each came from. Pass p writes [p % 2]
  const int *sorted_keys, *sorted_order;
  int* counts;          // [tiles, radix] tokens of a tile with each digit
  float *heads, *tails; // [windows, pitch]: sums of ids that came from the window before, or go on into the next
  void* gradient;       // [rows, columns]
};

struct EmbeddingScatter {
  ScatterTable tables[embedding_tables];
  const float* dsum;   // [tokens, pitch]
  DType type;          // of the gradients
  int tokens, columns, pitch;
  int tile, tiles, windows;

  EmbeddingScatter(Workspace& memory, const EmbeddingBackward& call, const float* dsum_, int pitch_)
      : dsum(dsum_), type(call.table_type), tokens(int(call.tokens)), columns(call.columns), pitch(pitch_) {
    tile = (tokens + most_sort_tiles - 1) / most_sort_tiles;
    tile = tile < least_sort_tile ? least_sort_tile : (tile + radix - 1) / radix * radix;
    tiles = (tokens + tile - 1) / tile;
    windows = (tokens + scatter_window - 1) / scatter_window;
    for (int t = 0; t < embedding_tables; ++t) {
      ScatterTable& table = tables[t];
      table.ids = call.tables[t].ids;
      table.rows = int(call.tables[t].rows);
      table.skip = t == 0 ? int(call.padding_idx) : -1;
      table.gradient = call.dtables[t];
      table.passes = 1;
      while (int64_t(table.rows) >> radix_bits * table.passes) ++table.passes;   // `rows` itself is a key
      for (int side = 0; side < 2; ++side) {
        table.keys[side] = memory.take<int>(tokens);
        table.order[side] = memory.take<int>(tokens);
      }
      table.sorted_keys = table.keys[(table.passes - 1) % 2];
      table.sorted_order = table.order[(table.passes - 1) % 2];
      table.counts = memory.take<int>(int64_t(tiles) * radix);
      table.heads = memory.take<float>(int64_t(windows) * pitch);
      table.tails = memory.take<float>(int64_t(windows) * pitch);
    }
  }
};

cudaError_t embedding_sort(const EmbeddingScatter& scatter, cudaStream_t stream);
cudaError_t embedding_scatter(const EmbeddingScatter& scatter, cudaStream_t stream);   // sorts as well

}  // namespace electra::cuda
