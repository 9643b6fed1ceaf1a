// generator_head: of logits = hidden weightᵀ + bias, per slot the log-sum-exp, the target's logit, the argmax and one sample; and the gradients of
// loss = lse - logit[target]. The logits exist only as blocks of 64 columns x 64 slots.
//
// Slots without a target have been left out: everything here is indexed by the used slots, end to end.
#pragma once
#include <stdint.h>

#include "common/philox.h"
#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

constexpr int64_t vocabulary_group = 64;                  // columns of one draw of the sampler, and of one block of logits
constexpr int64_t slot_block = 64;                        // slots of one block of logits
constexpr int64_t columns_per_call = 4 * vocabulary_group;   // one Philox call serves four groups

// "Accumulated" is float, or double where the hidden rows are.
struct GeneratorProblem {
  DType type, weight_type;
  const void *hidden, *weight;   // [slots, features], [columns, features], contiguous
  const void* bias;              // [columns], accumulated
  int64_t slots, columns, features;
  const int64_t* targets;        // [slots]
  // The vocabulary in `splits` parts of `split_columns` (a multiple of columns_per_call).
  int64_t splits, split_columns;
};

// What one split found out, per slot: arrays [splits, slots]; `target` [slots] is written by the one split that holds it.
struct GeneratorPartials {
  void *top, *mass, *score, *target;   // accumulated: largest logit, sum of e^(logit - top), best group's score, the target's logit
  int32_t *predicted, *sampled;
};

struct GeneratorForward {
  GeneratorProblem problem;
  double temperature;
  bool disallow_correct;
  PhiloxStream stream;
  const int64_t* slot;           // [slots]: the index that a slot draws under
  GeneratorPartials partials;
  void *loss, *lse;              // accumulated, and by slot index, as the rest
  int64_t *sampled, *predicted;
};

struct GeneratorBackward {
  GeneratorProblem problem;
  const void *lse, *grad;        // [slots], accumulated
  // The slots [first, first + count) of this pass; hidden as operands, made by `pack_hidden`.
  int64_t first, count;
  void *hidden_transposed, *hidden_depth;
  // The splits [first_split, first_split + wave) of this wave. The first row of partials is what earlier waves summed up.
  int64_t first_split, wave;
  void* dhidden_partials;        // [1 + wave, count, hidden_width], accumulated
  void *dweight_sum, *dbias_sum; // [columns, features], [columns], accumulated, between passes
  void *dweight, *dbias;         // of weight_type and accumulated: written by the last pass
  void* dhidden;                 // [slots, features]
};

struct GeneratorHeadKernels {
  // Bytes of working memory of one call, aligned to 64.
  int64_t (*forward_bytes)(const GeneratorProblem&, int64_t slots);
  int64_t (*backward_bytes)(const GeneratorProblem&);
  // Columns of a row of dhidden_partials; bytes of hidden_transposed and hidden_depth of a block of slots.
  int64_t (*hidden_width)(const GeneratorProblem&);
  int64_t (*transposed_bytes)(const GeneratorProblem&);
  int64_t (*depth_bytes)(const GeneratorProblem&);

  // One split of the vocabulary for the slots [begin, end); `begin` is a multiple of slot_block.
  void (*forward)(const GeneratorForward&, int64_t split, int64_t begin, int64_t end, void* memory);
  // The partials of the slots [begin, end), in the order of the splits, to results.
  void (*combine)(const GeneratorForward&, int64_t begin, int64_t end);

  void (*pack_hidden)(const GeneratorBackward&, int64_t block);
  // One split: its part of dweight and dbias, and its partial of dhidden.
  void (*backward)(const GeneratorBackward&, int64_t split, void* memory);
  // Adds the partials of the rows [begin, end) of this pass, in the order of the splits, to what earlier waves summed up; the last wave's go to dhidden.
  void (*sum_dhidden)(const GeneratorBackward&, int64_t begin, int64_t end);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(GeneratorHeadKernels, generator_head_kernels)
