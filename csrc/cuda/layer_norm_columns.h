// Sums over all rows for every column (gradients of parameters), finished in the launch that makes them: plain C++ half. Device half: layer_norm_columns.cuh.
//
// Every block writes its sums; the last block of a group of about sqrt(blocks) to do so adds the group's up, and the last group the groups'. Who comes last
// decides who adds, never in which order: that is the order of the blocks, whose number depends on the shape alone. Two levels, because one block draws some
// 50 GB/s: alone it would be at it for 30 us (132 blocks, 3 x 1024 columns), where the groups, side by side, take a tenth of that.
#pragma once
#include <cuda_runtime_api.h>

#include "cuda/workspace.h"

namespace electra::cuda {

// Blocks of a kernel that keeps sums over rows: one for each multiprocessor of an H100 or H200, so that few sums are left to add. On a device with fewer,
// some blocks run after others; that costs little, since alone they draw several times their share of the memory's bandwidth.
constexpr int most_column_blocks = 132;

struct ColumnSums {
  float* blocks;       // [blocks, pitch]
  float* groups;       // [groups, pitch]
  unsigned* arrived;   // [1 + groups], zero at the start: groups, then blocks of each group
  int columns, pitch;  // pitch: columns rounded up to 16 bytes
  int group_size;      // blocks of a group
  int group_count;

  // `memory` null: only counts its bytes.
  ColumnSums(Workspace& memory, int block_count, int64_t columns_) : columns(int(columns_)), pitch(int((columns_ + 3) / 4 * 4)), group_size(1) {
    while (group_size * group_size < block_count) ++group_size;
    group_count = (block_count + group_size - 1) / group_size;
    blocks = memory.take<float>(int64_t(block_count) * pitch);
    groups = memory.take<float>(int64_t(group_count) * pitch);
    arrived = memory.take<unsigned>(1 + group_count);
  }
  cudaError_t clear(cudaStream_t stream) const { return cudaMemsetAsync(arrived, 0, size_t(1 + group_count) * sizeof(unsigned), stream); }
};

}  // namespace electra::cuda
