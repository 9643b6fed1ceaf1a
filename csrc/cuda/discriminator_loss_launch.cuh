// Launch parameters of discriminator_loss, one line a row length: ELECTRA's small, base and large hidden size. Not measured on a GPU yet: rows in flight and
// warps follow from ptxas' register counts, so that 50 kB and more are under way on a multiprocessor.
#pragma once
#include "cuda/layer_norm_row.cuh"

namespace electra::cuda {

struct DiscriminatorLossLaunch16Bit {
  static constexpr RowLaunch forward[] = {
      {256, true, 4, 4, 8},
      {768, true, 2, 4, 5},
      {1024, true, 2, 4, 4},
      {1024, false, 1, 4, 4},
  };
  // One block a multiprocessor: the fewer blocks, the less is left to add up at the end.
  static constexpr RowLaunch backward[] = {
      {256, true, 4, 24, 1},
      {768, true, 2, 16, 1},
      {1024, true, 2, 12, 1},
      {1024, false, 1, 12, 1},
  };
};
struct DiscriminatorLossLaunch32Bit {
  static constexpr RowLaunch forward[] = {
      {256, true, 4, 4, 6},
      {768, true, 1, 4, 5},
      {1024, true, 1, 4, 4},
      {1024, false, 1, 4, 4},
  };
  static constexpr RowLaunch backward[] = {
      {256, true, 2, 24, 1},
      {768, true, 1, 16, 1},
      {1024, true, 1, 12, 1},
      {1024, false, 1, 12, 1},
  };
};
template <class T> struct DiscriminatorLossLaunch : DiscriminatorLossLaunch16Bit {};
template <> struct DiscriminatorLossLaunch<float> : DiscriminatorLossLaunch32Bit {};

// Any other row: a value an access. Forward a warp a row, backward a thread a column.
constexpr int discriminator_loss_any_threads = 256, discriminator_loss_any_blocks = 4;

// The row of a lane group that this lane looks after: row `lane` of its `rows`. Others have none.
template <class L> __device__ __forceinline__ int64_t row_of_lane(int64_t first) { return L::row(first, L::lane()); }

}  // namespace electra::cuda
