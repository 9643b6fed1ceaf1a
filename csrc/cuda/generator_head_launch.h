// How generator_head is cut into blocks: one table for the sweeps, one line each for the products, and how many parts a long loop is cut into.
//
// Everything here follows from the shapes and the kind of device (its shared memory, Hopper or not), never from how many multiprocessors it has: results are the same
// on every GPU of a kind. Not measured on a GPU yet; the reasons are counts (docs/notes/cuda-generator-head.md).
#pragma once
#include "cuda/portable.h"

namespace electra::cuda {

constexpr int group_columns = 64;      // of the sampler, and of a warp's tile of logits
constexpr int chunk_features = 64;     // of a stage of the pipeline: a row of 128 bytes, eight 16-byte units that are permuted against bank conflicts
constexpr int groups_per_draw = 4;     // words of a Philox call

// A sweep multiplies 64 * warps_m rows, which stay, with all the rows of the other matrix, 128 at a time; a warp has a tile of 64 x 64.
struct SweepLaunch {
  int most_features;
  int warps_m;
  bool resident;   // the rows that stay are kept in shared memory whole; else they are read again (from L2) for each tile
  int stages;
  int blocks_per_multiprocessor;
};

constexpr SweepLaunch sweep_launches[] = {
    // Rows 32 KiB at 128 features, stages 48 KiB, 81 KiB in all: two blocks fit an A100 exactly, and one computes exponentials while the other multiplies.
    {256, 2, true, 3, 2},
    // Too many features to keep: 256 rows a block instead, which halves what the other matrix costs in L2; 144 KiB.
    {1 << 30, 4, false, 3, 1},
    // The same where shared memory is 99 KiB (sm_86, sm_89, sm_120); 64 KiB.
    {1 << 30, 2, false, 2, 1},
};
constexpr int sweep_variants = 3, sweep_columns = 2 * group_columns;

// A row of data goes beside each passing row (a bias, say) for as long as its tile lives: in as many places as there can be tiles between the first request and the last use.
__host__ __device__ constexpr int sides_in_flight(int stages, int chunks) { return 1 + (stages - 1 + chunks - 1) / chunks; }

// Bytes of shared memory of a sweep.
constexpr int64_t sweep_shared_bytes(int variant, int features, int64_t side_bytes) {
  const SweepLaunch l = sweep_launches[variant];
  const int chunks = (features + chunk_features - 1) / chunk_features, row_bytes = 64 * l.warps_m * 128;   // of a chunk of the rows that stay
  return (l.resident ? chunks : l.stages) * row_bytes + l.stages * sweep_columns * 128 + sides_in_flight(l.stages, chunks) * sweep_columns * side_bytes;
}

// The first line that the shape and the device's shared memory allow.
constexpr int sweep_variant(int features, int64_t shared_limit) {
  for (int v = 0; v < sweep_variants - 1; ++v)
    if (features <= sweep_launches[v].most_features && sweep_shared_bytes(v, features, 16) <= shared_limit) return v;
  return sweep_variants - 1;
}
constexpr int sweep_rows(int variant) { return 64 * sweep_launches[variant].warps_m; }

// A line of the table as kernels see it.
template <int variant> struct Sweep {
  static constexpr SweepLaunch launch = sweep_launches[variant];
  static constexpr bool resident = launch.resident;
  static constexpr int warps_m = launch.warps_m, stages = launch.stages, blocks_per_multiprocessor = launch.blocks_per_multiprocessor;
  static constexpr int rows = sweep_rows(variant), threads = 64 * warps_m, row_bytes = rows * 128;   // bytes: of a chunk of all rows
  static constexpr int stage_bytes = (resident ? 0 : row_bytes) + sweep_columns * 128;
};

#ifdef ELECTRA_EMULATION   // small enough that a test's shapes are cut as those of a training step are on a GPU
constexpr int64_t multiprocessors_assumed = 2, hopper_multiprocessors = 4, chunk_bytes = int64_t(128) << 10, recompute_bytes = int64_t(128) << 10;
#else
constexpr int64_t multiprocessors_assumed = 132;          // H100, H200: what waves of blocks are counted with
constexpr int64_t hopper_multiprocessors = 132;           // the same for blocks in clusters of two
constexpr int64_t chunk_bytes = int64_t(128) << 20;       // of stored gradients in backward: more slots a chunk make longer sums, and fewer passes over dweight
constexpr int64_t recompute_bytes = int64_t(64) << 20;    // of dhidden's partial sums where nothing else is stored
#endif

constexpr int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// A loop of `steps` over which `rows` blocks each would go alone is cut into parts of this many steps, for the fewest waves. A part costs so many steps more: to
// begin, and to write and read again what it has summed up.
constexpr int64_t steps_per_part(int64_t rows, int64_t steps, int64_t part_steps, int64_t blocks_at_once, int64_t most_parts) {
  int64_t best = steps, least = INT64_MAX;
  for (int64_t parts = 1; parts <= steps && parts <= most_parts; ++parts) {
    const int64_t each = blocks_of(steps, parts), cost = blocks_of(rows * blocks_of(steps, each), blocks_at_once) * (each + part_steps);
    if (cost < least) {
      least = cost;
      best = each;
    }
  }
  return best;
}

// --- forward: a step is the columns that four tiles of each column half take, so that a Philox call (four groups) is made once and used up by the warp that made it.
constexpr int64_t step_columns = int64_t(groups_per_draw) * sweep_columns;
constexpr int64_t most_forward_parts = 64, forward_part_steps = 1;   // 32 KiB of rows to read, against 128 x 512 logits

// --- forward on Hopper: two groups of four warps with 64 slots each and tiles of 256 columns, one Philox call; one multiplies while the other computes exponentials. A
// producer warp fetches the weight ahead in chunks of 256 rows: four of 32 KiB are two tiles at 128 features. One block a multiprocessor; two, which share the weight,
// a cluster: alone each would need 64 KiB in the 2048 clocks of a tile at 128 features, and L2 gives some 24 bytes a clock.
constexpr int hopper_rows = 128, hopper_columns = 256, hopper_stages = 4, hopper_threads = 3 * 128, hopper_cluster = 2;
// Whose rows stay in shared memory, 64 KiB. Those of more features are fetched again for every tile, 16 KiB more a chunk: 192 KiB of stages.
constexpr int hopper_resident_features = 256;

// --- backward in chunks: the gradients of the logits of some slots are stored, 16-bit, and multiplied twice.
// 256 x 128 results a block, 8 warps of 64 x 64: 12 bytes from L2 for 1024 FLOP, where 128 x 128 would take 16. Three stages of 48 KiB, two where shared memory is
// 99 KiB; one block a multiprocessor.
constexpr int product_rows = 256, product_columns = 128, product_depth = 64, product_threads = 256, product_stage_bytes = product_depth * (product_rows + product_columns) * 2;
constexpr int product_stages(int64_t shared_limit) { return 3 * product_stage_bytes <= shared_limit ? 3 : 2; }
constexpr int64_t most_product_parts = 32, product_part_steps = 8;   // 128 KiB of floats out and in, against 64 terms of 256 x 128 results

// --- backward without storing: each block computes the logits it needs again.
constexpr int recompute_most_features = 128;   // the block's own rows of the gradient stay in registers: 128 x 128 floats of four warps
constexpr int recompute_rows = 128, recompute_passing = 64, recompute_threads = 128;
constexpr int recompute_stages = 2;            // 66 KiB: two blocks on an A100 too; a tile of 64 rows takes some 1700 clocks, longer than its loads
constexpr int64_t most_recompute_parts = 32, recompute_part_steps = 4;   // of dhidden: 64 KiB of floats out and in, against a tile's two products

}  // namespace electra::cuda
