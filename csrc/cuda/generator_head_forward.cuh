// What the kernels of generator_head's forward hand to each other: partial results, and where they lie in the workspace.
#pragma once
#include "cuda/generator_head.h"
#include "cuda/generator_head_launch.h"
#include "cuda/portable.h"
#include "cuda/workspace.h"

namespace electra::cuda {

// In (0, 1], as the sampler draws it.
__device__ __forceinline__ float sampler_uniform(uint32_t word) { return (float(word) + 0.5f) * 0x1p-32f; }

// Of each slot and each part of the vocabulary. Arrays [parts][rows], rows: slots, up to whole blocks. A slot's entries are written if its block (or cluster) has any used slot.
struct GeneratorPartials {
  int64_t parts, rows;
  float *top, *mass;                    // largest logit, sum of e^(logit - top)
  float* score;                         // of the best group, in base 2
  int *top_group, *score_group;
  float *top_logits, *score_logits;     // [parts][rows][64]: the logits of those groups; written if top, or score, is more than -inf
};

// What a sweep reads, and where it writes.
struct SweepArguments {
  const void *hidden, *weight;
  const float* bias;                    // whole steps of columns, -inf behind the last
  const int64_t *targets, *rng;
  int64_t site;
  int slots, columns, features;
  int tiles, tiles_per_part;            // a block's part of the vocabulary: the second dimension of the grid
  float sharpness;                      // log2(e) / temperature
  bool disallow_correct;
  GeneratorPartials partials;
};

struct ForwardLayout {
  bool hopper;
  int64_t blocks, block_rows;                                    // along the slots
  int64_t parts, tiles, tiles_per_part, padded_columns, bytes;   // along the vocabulary
  float* bias;
  GeneratorPartials partials;
};

inline ForwardLayout forward_layout(const GeneratorProblem& p, void* memory) {
  const int variant = sweep_variant(p.features, p.device.shared_limit);
  ForwardLayout l{};
  l.hopper = p.device.major == 9;
  l.block_rows = l.hopper ? hopper_rows : sweep_rows(variant);
  l.blocks = l.hopper ? blocks_of(p.slots, hopper_cluster * hopper_rows) * hopper_cluster : blocks_of(p.slots, l.block_rows);
  if (l.hopper) {
    l.tiles = blocks_of(p.columns, hopper_columns);
    l.tiles_per_part = steps_per_part(l.blocks, l.tiles, 2 * forward_part_steps, hopper_multiprocessors, most_forward_parts);
    l.padded_columns = l.tiles * hopper_columns;
  } else {
    const int64_t steps = blocks_of(p.columns, step_columns), at_once = multiprocessors_assumed * sweep_launches[variant].blocks_per_multiprocessor;
    // The last step ends with the first half's last group that has a column.
    const int64_t last_groups = blocks_of(p.columns - (steps - 1) * step_columns, group_columns);
    l.tiles = (steps - 1) * groups_per_draw + (last_groups < groups_per_draw ? last_groups : groups_per_draw);
    l.tiles_per_part = steps_per_part(l.blocks, steps, forward_part_steps, at_once, most_forward_parts) * groups_per_draw;
    l.padded_columns = steps * step_columns;
  }
  l.parts = blocks_of(l.tiles, l.tiles_per_part);

  Workspace w(memory);
  l.bias = w.take<float>(l.padded_columns);
  GeneratorPartials& g = l.partials;
  g.parts = l.hopper ? l.parts : 2 * l.parts;   // elsewhere each column half of a block is a part of its own
  g.rows = l.blocks * l.block_rows;
  const int64_t n = g.parts * g.rows;
  g.top = w.take<float>(n);
  g.mass = w.take<float>(n);
  g.score = w.take<float>(n);
  g.top_group = w.take<int>(n);
  g.score_group = w.take<int>(n);
  g.top_logits = w.take<float>(n * group_columns);
  g.score_logits = w.take<float>(n * group_columns);
  l.bytes = w.bytes();
  return l;
}

// Whether any of so many slots is used. All threads of the block call, and get the same.
template <int rows, int threads> __device__ __forceinline__ bool any_used(const SweepArguments& call, int first) {
  bool used = false;
  for (int r = int(threadIdx.x); r < rows; r += threads) used |= first + r < call.slots && call.targets[first + r] != unused_target;
  return __syncthreads_or(used);
}

// The sweep with wgmma and TMA. plain: temperature 1 and every column allowed, so that the exponentials of the log-sum-exp are the sampler's.
cudaError_t launch_hopper_sweep(const SweepArguments& call, DType type, bool plain, dim3 grid, cudaStream_t stream);

// bias in float, -inf from `columns` to `padded`: the columns behind the vocabulary drop out of every sum by themselves.
cudaError_t pad_bias(const Parameter& bias, DType type, float* out, int64_t columns, int64_t padded, cudaStream_t stream);

// From partials to results: one warp a slot.
cudaError_t finish_forward(const GeneratorForward& call, const ForwardLayout& layout, cudaStream_t stream);

}  // namespace electra::cuda
