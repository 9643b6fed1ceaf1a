// Backward of generator_head. Logits are computed again, block by block; with d = (softmax - onehot) · grad, [columns][slots]:
//
//   dweight = d hidden      dbias = rowsum(d)      dhidden = dᵀ weight
//
// A split of the vocabulary owns its rows of dweight; for dhidden it has a partial of its own, and the partials are summed in order, wave by wave: how many
// splits make a wave changes what memory is needed, and no bit of the result.
#pragma once
#include "cpu/kernels/generator_head_blocks.h"

namespace electra {
namespace ELECTRA_ISA {

template <class O> struct GeneratorBackwardMemory {
  using A = operand_acc<O>;
  static constexpr bool paired = Operand<O>::depth == 2;
  int64_t depth, width;
  O *weight, *weight_depth;     // A of the logits, B of dhidden: [64][depth], [64 / depth of O][width]
  A *logits;                    // [64][64], d in place
  O *d_rows, *d_depth;          // A of dweight and, transposed, of dhidden
  A *dweight, *dbias;           // [64][width], [64][one vector]
  A *lse, *grad;                // [64], zero gradient behind the last slot
  mask_lane<A>* targets;        // [64]

  GeneratorBackwardMemory(Arena& arena, int64_t features) : depth(depth_of<O>(features)), width(whole_vectors<A>(features)) {
    weight = arena.take<O>(vocabulary_group * depth);
    weight_depth = arena.take<O>(vocabulary_group / Operand<O>::depth * width);
    logits = arena.take<A>((vocabulary_group + 1) * slot_block);
    if constexpr (paired) {
      d_rows = arena.take<O>((vocabulary_group + 1) * slot_block / 2);
      d_depth = arena.take<O>(vocabulary_group / 2 * slot_block);
    } else {
      d_rows = d_depth = logits;
    }
    dweight = arena.take<A>(vocabulary_group * width);
    dbias = arena.take<A>(vocabulary_group * lanes<A>);
    lse = arena.take<A>(slot_block);
    grad = arena.take<A>(slot_block);
    targets = arena.take<mask_lane<A>>(slot_block);
  }
};

// From logits [columns][slot_block] to d as operands; adds its row sums to m.dbias.
template <class O>
static void logit_gradients(const GeneratorBackwardMemory<O>& m, int64_t column, int64_t columns, int64_t count) {
  using A = operand_acc<O>;
  using V = vec<A>;
  constexpr int W = lanes<A>;
  const V log2e = splat(A(log2_e_)), one = splat(A(1));
  if (columns & 1)   // rows go in twos
    for (int64_t i = 0; i < slot_block; ++i) m.logits[columns * slot_block + i] = A(-INFINITY);
  for (int64_t j = 0; j < columns; j += 2) {
    V sum[2]{};
    for (int64_t lane = 0; lane < count; lane += W) {
      const V lse = load_vector(m.lse + lane), grad = load_vector(m.grad + lane);
      const vec<mask_lane<A>> target = load_vector(m.targets + lane);
      V d[2];
#pragma GCC unroll 2
      for (int s = 0; s < 2; ++s) {
        const V p = exp2_((load_vector(m.logits + (j + s) * slot_block + lane) - lse) * log2e);
        d[s] = (p - (target == splat(mask_lane<A>(column + j + s)) ? one : V{})) * grad;
        sum[s] += d[s];
      }
      const int64_t at = j * slot_block + lane;
      if constexpr (!GeneratorBackwardMemory<O>::paired) {
        store_vector(m.logits + at, d[0]);
        store_vector(m.logits + at + slot_block, d[1]);
      } else {
#if defined(__AVX512BF16__)
        uint16_t* rows = reinterpret_cast<uint16_t*>(m.d_rows);
        store_rounded(rows + at, d[0]);
        store_rounded(rows + at + slot_block, d[1]);
        store_vector(reinterpret_cast<uint32_t*>(m.d_depth) + j / 2 * slot_block + lane, round_to_pairs(d[0], d[1]));
#endif
      }
    }
    store_vector(m.dbias + j * W, load_vector(m.dbias + j * W) + sum[0]);
    if (j + 1 < columns) store_vector(m.dbias + (j + 1) * W, load_vector(m.dbias + (j + 1) * W) + sum[1]);
  }
}

template <class T, class O> static void pack_hidden_block(const GeneratorBackward& b, int64_t block) {
  const GeneratorProblem& p = b.problem;
  const int64_t first = block * slot_block, n = b.count - first < slot_block ? b.count - first : slot_block;
  const int64_t depth = depth_of<O>(p.features), width = whole_vectors<operand_acc<O>>(p.features);
  const T* rows = static_cast<const T*>(p.hidden) + (b.first + first) * p.features;
  pack_transposed(static_cast<O*>(b.hidden_transposed) + first * depth, slot_block, rows, p.features, n, p.features);
  pack_depth(static_cast<O*>(b.hidden_depth) + first / Operand<O>::depth * width, width, rows, p.features, n, p.features);
}

template <class W, class O> static void generator_backward(const GeneratorBackward& b, int64_t split, void* memory) {
  using A = operand_acc<O>;
  constexpr int64_t words = Operand<O>::depth;
  const GeneratorProblem& p = b.problem;
  Arena arena{static_cast<char*>(memory)};
  const GeneratorBackwardMemory<O> m(arena, p.features);
  A* dhidden = static_cast<A*>(b.dhidden_partials) + (1 + split - b.first_split) * b.count * m.width;
  const bool first_pass = b.first == 0, last_pass = b.first + b.count == p.slots;
  A *dweight_sum = static_cast<A*>(b.dweight_sum), *dbias_sum = static_cast<A*>(b.dbias_sum), *dbias = static_cast<A*>(b.dbias);

  const int64_t first = split * p.split_columns, last = first + p.split_columns < p.columns ? first + p.split_columns : p.columns;
  for (int64_t column = first; column < last; column += vocabulary_group) {
    const int64_t columns = last - column < vocabulary_group ? last - column : vocabulary_group;
    const MatrixA<O> rows = weight_rows<O, W>(p, column, columns, m.weight);
    const W* weight = static_cast<const W*>(p.weight) + column * p.features;
    const O* weight_depth = m.weight_depth;
    if (words == 1 && rows_serve<O, W>(p.features) && m.width == p.features) weight_depth = reinterpret_cast<const O*>(weight);
    else pack_depth(m.weight_depth, m.width, weight, p.features, columns, p.features);
    memset(m.dweight, 0, columns * m.width * sizeof(A));
    memset(m.dbias, 0, columns * vector_bytes);

    for (int64_t i = 0; i < b.count; i += slot_block) {
      const int64_t n = b.count - i < slot_block ? b.count - i : slot_block, count = whole_vectors<A>(n), slot = b.first + i;
      for (int64_t r = 0; r < count; ++r) {
        m.lse[r] = r < n ? static_cast<const A*>(b.lse)[slot + r] : A(INFINITY);
        m.grad[r] = r < n ? static_cast<const A*>(b.grad)[slot + r] : A(0);
        m.targets[r] = r < n ? mask_lane<A>(p.targets[slot + r]) : -1;
      }
      multiply_logits<O>(p, column, columns, count, rows, static_cast<const O*>(b.hidden_transposed) + i * m.depth, m.logits);
      logit_gradients<O>(m, column, columns, count);
      multiply<O>(columns, m.width, depth_of<O>(n), {m.d_rows, slot_block / words, 1}, static_cast<const O*>(b.hidden_depth) + i / words * m.width, m.width, m.dweight, m.width,
                  Start::add);
      multiply<O>(n, m.width, depth_of<O>(columns), {m.d_depth, 1, slot_block}, weight_depth, m.width, dhidden + i * m.width, m.width,
                  column == first ? Start::zero : Start::add);
    }

    for (int64_t j = 0; j < columns; ++j) {
      A bias = 0;
      for (int i = 0; i < lanes<A>; ++i) bias += m.dbias[j * lanes<A> + i];
      A *row = m.dweight + j * m.width, *sum = dweight_sum + (column + j) * p.features;
      if (!first_pass) {
        bias += dbias_sum[column + j];
        for (int64_t c = 0; c < p.features; ++c) row[c] += sum[c];
      }
      if (last_pass) {
        dbias[column + j] = bias;
        W* out = static_cast<W*>(b.dweight) + (column + j) * p.features;
        for (int64_t c = 0; c < p.features; ++c) store(out[c], row[c]);
      } else {
        dbias_sum[column + j] = bias;
        memcpy(sum, row, p.features * sizeof(A));
      }
    }
  }
}

template <class T> static void sum_dhidden_rows(const GeneratorBackward& b, int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const GeneratorProblem& p = b.problem;
  const int64_t width = whole_vectors<A>(p.features);
  const bool last_wave = b.first_split + b.wave == p.splits;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t c = 0; c < width; c += lanes<A>) {
      A* partial = static_cast<A*>(b.dhidden_partials) + i * width + c;
      vec<A> sum = b.first_split ? load_vector(partial) : vec<A>{};
      for (int64_t s = 1; s <= b.wave; ++s) sum += load_vector(partial + s * b.count * width);
      if (!last_wave) {
        store_vector(partial, sum);
        continue;
      }
      A wide[lanes<A>];
      store_vector(wide, sum);
      T* out = static_cast<T*>(b.dhidden) + (b.first + i) * p.features + c;
      for (int64_t l = 0; l < lanes<A> && c + l < p.features; ++l) store(out[l], wide[l]);
    }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
