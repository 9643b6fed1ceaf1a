// What the kernels of generator_head's forward hand to each other: partial results, and where they lie in the workspace.
#pragma once
#include "cuda/generator_head.h"
#include "cuda/generator_head_launch.h"
#include "cuda/portable.h"
#include "cuda/workspace.h"

namespace electra::cuda {

// In (0, 1], as the sampler draws it.
__device__ __forceinline__ float sampler_uniform(uint32_t word) { return (float(word) + 0.5f) * 0x1p-32f; }

// Of each slot and each part of the vocabulary; a part is what one column half of one block has swept. Arrays [parts][rows], rows: slots, up to whole blocks.
// A slot's entries are written if its block has any used slot.
struct GeneratorPartials {
  int64_t parts, rows;
  float *top, *mass;                    // largest logit, sum of e^(logit - top)
  float* score;                         // of the best group, in base 2
  int *top_group, *score_group;
  float *top_logits, *score_logits;     // [parts][rows][64]: the logits of those groups; written if top, or score, is more than -inf
};

struct ForwardLayout {
  int64_t tiles, tiles_per_part, parts, padded_columns, bytes;   // parts: blocks along the vocabulary
  float* bias;
  GeneratorPartials partials;
};

inline ForwardLayout forward_layout(const GeneratorProblem& p, void* memory) {
  const int variant = sweep_variant(p.features);
  const int64_t row_blocks = blocks_of(p.slots, sweep_rows(variant)), steps = blocks_of(p.columns, step_columns);
  const int64_t each = steps_per_part(row_blocks, steps, forward_part_steps, multiprocessors_assumed * sweep_launches[variant].blocks_per_multiprocessor, most_forward_parts);
  ForwardLayout l{};
  l.parts = blocks_of(steps, each);
  l.tiles_per_part = each * groups_per_draw;
  // The last step ends with the first half's last group that has a column.
  const int64_t last_groups = blocks_of(p.columns - (steps - 1) * step_columns, group_columns);
  l.tiles = (steps - 1) * groups_per_draw + (last_groups < groups_per_draw ? last_groups : groups_per_draw);
  l.padded_columns = steps * step_columns;

  Workspace w(memory);
  l.bias = w.take<float>(l.padded_columns);
  GeneratorPartials& g = l.partials;
  g.parts = 2 * l.parts;
  g.rows = row_blocks * sweep_rows(variant);
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

// bias in float, -inf from `columns` to `padded`: the columns behind the vocabulary drop out of every sum by themselves.
cudaError_t pad_bias(const Parameter& bias, DType type, float* out, int64_t columns, int64_t padded, cudaStream_t stream);

// From partials to results: one warp a slot.
cudaError_t finish_forward(const GeneratorForward& call, const ForwardLayout& layout, cudaStream_t stream);

}  // namespace electra::cuda
