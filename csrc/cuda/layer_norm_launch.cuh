// Launch parameters of layer_norm, one line a row length. The limits they answer to, per multiprocessor of sm_80 and sm_90: 65536 registers, 64 warps, and
// some 25 kB (H100) to 35 kB (H200) under way to keep the memory busy at a latency of 0.8 us.
//
// Not measured on a GPU yet: rows in flight and warps follow from the register counts of ptxas (docs/notes/cuda-memory-bound-ops.md).
#pragma once
#include "cuda/layer_norm_row.cuh"

namespace electra::cuda {

template <class T> struct LayerNormLaunch;

struct LayerNormLaunch16Bit {
  // A lane holds 8 values of a row of 256, 24 of 768, 32 of 1024, and as many of weight, bias and x_bias: the longer the row, the fewer warps fit.
  static constexpr RowLaunch forward[] = {
      {128, true, 2, 4, 6},    // half a warp a row: 4 rows a warp
      {256, true, 4, 4, 4},
      {768, true, 1, 4, 3},
      {1024, true, 1, 4, 3},
      {1024, false, 1, 4, 2},
  };
  // Three sums a column stay in registers. One block a multiprocessor: the fewer blocks, the less is left to add up at the end.
  static constexpr RowLaunch backward[] = {
      {128, true, 2, 20, 1},
      {256, true, 2, 20, 1},
      {768, true, 1, 12, 1},
      {1024, true, 1, 8, 1},
      {1024, false, 1, 8, 1},
  };
};

struct LayerNormLaunch32Bit {
  static constexpr RowLaunch forward[] = {
      {128, true, 4, 4, 5},
      {256, true, 2, 4, 5},
      {768, true, 1, 4, 3},
      {1024, true, 1, 4, 2},
      {1024, false, 1, 4, 2},
  };
  static constexpr RowLaunch backward[] = {
      {128, true, 4, 16, 1},
      {256, true, 2, 16, 1},
      {768, true, 1, 8, 1},
      {1024, true, 1, 8, 1},
      {768, false, 1, 8, 1},
  };
};

template <> struct LayerNormLaunch<float> : LayerNormLaunch32Bit {};
template <> struct LayerNormLaunch<__nv_bfloat16> : LayerNormLaunch16Bit {};
template <> struct LayerNormLaunch<__half> : LayerNormLaunch16Bit {};

// Any other row: a block each, the row (forward) or the sums of its columns (backward) in shared memory.
constexpr int layer_norm_block_threads = 256, layer_norm_block_threads_backward = 512;
constexpr int layer_norm_block_blocks = 4;   // that a multiprocessor holds of the forward: 32 kB of shared memory each at most

}  // namespace electra::cuda
