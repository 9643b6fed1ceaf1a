// What the kernels of generator_head's backward hand to each other. With d = (softmax - onehot) · grad, [slots, columns]:
//
//   dhidden = d weight      dweight = dᵀ hidden      dbias = column sums of d
//
// d is rounded to 16 bits as an operand, after it has been multiplied by a power of two that uses float16's narrow range (1 for bfloat16); sums are in float.
#pragma once
#include "cuda/generator_head.h"
#include "cuda/generator_head_launch.h"
#include "cuda/workspace.h"

namespace electra::cuda {

// What the logits of one slot are turned into d with. Unused slots: lse +inf, grad 0, target -1, so that d is 0.
struct alignas(16) SlotGradient {
  float lse;    // in base 2
  float grad;   // times `scale`
  int target;
  int padding;
};

// Found on the device before the rest.
struct BackwardState {
  int end;                // 1 + the last used slot: nothing behind it is computed
  float scale, inverse;   // of d
};

// All slots' SlotGradient, those behind the last one unused, and the state.
cudaError_t describe_slots(const GeneratorBackward& call, BackwardState* state, SlotGradient* slots, int64_t padded_slots, cudaStream_t stream);

// dbias from `parts` partial sums of d, [parts][stride], in their order.
cudaError_t sum_dbias(const GeneratorBackward& call, const BackwardState* state, const float* partials, int64_t parts, int64_t stride, cudaStream_t stream);

// dhidden of `count` slots from slot `first` on, from `parts` partial sums, [parts][stride][features], in their order. scaled: they hold d's scale still.
cudaError_t sum_dhidden(const GeneratorBackward& call, const BackwardState* state, const float* partials, int64_t parts, int64_t stride, int64_t first, int64_t count,
                        cudaStream_t stream);

// --- backward in chunks of slots

struct ChunkLayout {
  int64_t padded_columns, slots, chunks;   // slots of a chunk; both in whole blocks of the products
  int64_t depth_per_part, parts;           // of dhidden's sum over the vocabulary
  int64_t bytes;
  BackwardState* state;
  SlotGradient* described;                 // [chunks * slots]
  float* bias;                             // [padded_columns], -inf behind the last
  void* gradients;                         // d of a chunk, transposed: [padded_columns, slots] of the activations' type
  float* dbias_partials;                   // [chunks * 2][padded_columns]
  float* dhidden_partials;                 // [parts][slots][features]
  float* dweight_sum;                      // [columns, features] between chunks; null where there is one chunk, or dweight is float itself
};

inline ChunkLayout chunk_layout(const GeneratorProblem& p, DType dweight_type, void* memory) {
  static_assert(product_rows % sweep_rows(0) == 0 && product_rows % sweep_rows(1) == 0 && product_rows % sweep_rows(2) == 0 && product_rows % sweep_columns == 0);
  ChunkLayout l{};
  l.padded_columns = blocks_of(p.columns, product_rows) * product_rows;
  const int64_t fit = chunk_bytes / (2 * l.padded_columns) / product_rows * product_rows, most = fit > product_rows ? fit : product_rows;
  l.chunks = blocks_of(p.slots, most);
  l.slots = blocks_of(blocks_of(p.slots, l.chunks), product_rows) * product_rows;
  const int64_t tiles = l.slots / product_rows * blocks_of(p.features, product_columns), steps = l.padded_columns / product_depth;
  l.depth_per_part = steps_per_part(tiles, steps, product_part_steps, multiprocessors_assumed, most_product_parts) * product_depth;
  l.parts = blocks_of(l.padded_columns, l.depth_per_part);

  Workspace w(memory);
  l.state = w.take<BackwardState>(1);
  l.described = w.take<SlotGradient>(l.chunks * l.slots);
  l.bias = w.take<float>(l.padded_columns);
  l.gradients = w.take<uint16_t>(l.padded_columns * l.slots);
  l.dbias_partials = w.take<float>(2 * l.chunks * l.padded_columns);
  l.dhidden_partials = w.take<float>(l.parts * l.slots * p.features);
  if (l.chunks > 1 && dweight_type != DType::f32) l.dweight_sum = w.take<float>(p.columns * p.features);
  l.bytes = w.bytes();
  return l;
}

// d of chunk `chunk`, and its two partial sums over slots.
cudaError_t store_gradients(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk, cudaStream_t stream);

// From the stored d of a chunk: dhidden's partial sums; and dweight, added to what the chunks before have left.
cudaError_t multiply_dhidden(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk, cudaStream_t stream);
cudaError_t multiply_dweight(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk, cudaStream_t stream);

// --- backward by computing the logits twice more

struct RecomputeLayout {
  int64_t padded_columns, padded_slots;     // to whole blocks
  int64_t columns_per_part, parts;          // of dhidden's sum over the vocabulary
  int64_t bytes;
  BackwardState* state;
  SlotGradient* described;                  // [padded_slots]
  float* bias;                              // [padded_columns], -inf behind the last
  float* dbias;                             // [padded_columns]
  float* dhidden_partials;                  // [parts][padded_slots][features]
};

inline RecomputeLayout recompute_layout(const GeneratorProblem& p, void* memory) {
  RecomputeLayout l{};
  l.padded_columns = blocks_of(p.columns, recompute_rows) * recompute_rows;
  l.padded_slots = blocks_of(p.slots, recompute_rows) * recompute_rows;
  const int64_t fit = recompute_bytes / (l.padded_slots * p.features * 4), most = fit < 1 ? 1 : fit < most_recompute_parts ? fit : most_recompute_parts;
  l.columns_per_part = steps_per_part(l.padded_slots / recompute_rows, blocks_of(p.columns, recompute_passing), recompute_part_steps, 2 * multiprocessors_assumed, most) *
                       recompute_passing;
  l.parts = blocks_of(p.columns, l.columns_per_part);

  Workspace w(memory);
  l.state = w.take<BackwardState>(1);
  l.described = w.take<SlotGradient>(l.padded_slots);
  l.bias = w.take<float>(l.padded_columns);
  l.dbias = w.take<float>(l.padded_columns);
  l.dhidden_partials = w.take<float>(l.parts * l.padded_slots * p.features);
  l.bytes = w.bytes();
  return l;
}

// dhidden's partial sums; dweight and, times d's scale, dbias.
cudaError_t recompute_dhidden(const GeneratorBackward& call, const RecomputeLayout& layout, cudaStream_t stream);
cudaError_t recompute_dweight(const GeneratorBackward& call, const RecomputeLayout& layout, cudaStream_t stream);

}  // namespace electra::cuda
