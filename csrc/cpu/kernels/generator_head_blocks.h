// What the forward and the backward of generator_head share: a block of weight rows as operands.
//
// Logits are computed transposed, [columns][slots], with the slots across the lanes of a vector: the weight is read as it lies (its elements are broadcast), once
// for all slots, and every statistic of a slot stays in its lane.
#pragma once
#include "cpu/kernels/generator_head.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/philox_lanes.h"

namespace electra {
namespace ELECTRA_ISA {

constexpr double log2_e_ = 1.4426950408889634;

// Whether rows of W of this width can serve as operands of A where they lie.
template <class O, class W> static inline bool rows_serve(int64_t features) {
  if constexpr (Operand<O>::depth == 2) return sizeof(W) == 2 && features % 2 == 0;
  return sizeof(W) == sizeof(O);
}

// A [n][depth]: `n` rows of the weight from `row` on; packed into `memory` if they do not serve as they lie.
template <class O, class W> static inline MatrixA<O> weight_rows(const GeneratorProblem& p, int64_t row, int64_t n, O* memory) {
  const W* rows = static_cast<const W*>(p.weight) + row * p.features;
  const int64_t depth = depth_of<O>(p.features);
  if (rows_serve<O, W>(p.features)) return {reinterpret_cast<const O*>(rows), depth, 1};
  pack_rows(memory, depth, rows, p.features, n, p.features);
  return {memory, depth, 1};
}

// Logits [n][slot_block] of `n` columns from `column` on, of `count` slots (whole vectors).
template <class O>
static inline void multiply_logits(const GeneratorProblem& p, int64_t column, int64_t n, int64_t count, MatrixA<O> weight, const O* hidden, operand_acc<O>* logits) {
  using A = operand_acc<O>;
  const A* bias = static_cast<const A*>(p.bias) + column;
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < count; i += lanes<A>) store_vector(logits + j * slot_block + i, splat(bias[j]));
  multiply<O>(n, count, depth_of<O>(p.features), weight, hidden, slot_block, logits, slot_block, Start::add);
}

}  // namespace ELECTRA_ISA
}  // namespace electra
