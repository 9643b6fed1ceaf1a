// Forward of generator_head: one sweep over a split of the vocabulary, 64 columns at a time, keeping per slot the log-sum-exp, the argmax, and the best group of the
// sampler with the column drawn inside it. The exponentials of the log-sum-exp are those of the sampler (docs/design.md, Random numbers).
#pragma once
#include "cpu/kernels/generator_head_blocks.h"

namespace electra {
namespace ELECTRA_ISA {

template <class O> struct GeneratorForwardMemory {
  using A = operand_acc<O>;
  using Index = mask_lane<A>;
  int64_t depth;
  O *hidden, *weight;                       // [slots / 64][depth][64], [64][depth]
  A *logits;                                // [64][64]
  A *top, *mass, *score, *inside;           // [slots], as are the rest; inside: the uniform that picks within the winning group
  Index* targets;
  uint32_t* words[4];                       // the uniforms of four groups

  GeneratorForwardMemory(Arena& arena, int64_t features, int64_t slots) : depth(depth_of<O>(features)) {
    const int64_t whole = (slots + slot_block - 1) / slot_block * slot_block;
    hidden = arena.take<O>(whole * depth);
    weight = arena.take<O>(vocabulary_group * depth);
    logits = arena.take<A>(vocabulary_group * slot_block);
    top = arena.take<A>(whole);
    mass = arena.take<A>(whole);
    score = arena.take<A>(whole);
    inside = arena.take<A>(whole);
    targets = arena.take<Index>(whole);
    for (auto& w : words) w = arena.take<uint32_t>(whole);
  }
};

// (word + 1/2) / 2^32, rounded in A.
static inline vec<float> uniform(lane_words<float> w) { return (__builtin_convertvector(w, vec<float>) + splat(0.5f)) * splat(0x1p-32f); }
static inline vec<double> uniform(lane_words<double> w) { return (__builtin_convertvector(w, vec<double>) + splat(0.5)) * splat(0x1p-32); }

// Column of a group, given its weights [columns][slot_block] in one lane: the first whose running sum exceeds `threshold`, else the last of non-zero weight.
template <class A> static inline int64_t pick_column(const A* weights, int64_t columns, A threshold) {
  A sum = 0;
  int64_t last = 0;
  for (int64_t j = 0; j < columns; ++j) {
    const A w = weights[j * slot_block];
    sum += w;
    if (sum > threshold) return j;
    if (w > 0) last = j;
  }
  return last;
}

// One vector of slots of one group's logits [columns][slot_block], which become the sampler's weights. `at` is the vector's place in the slots' arrays.
template <class O, bool plain>
static void scan_group(const GeneratorForward& f, const GeneratorForwardMemory<O>& m, int64_t slot, int64_t column, int64_t columns, int64_t at, int64_t lane, const uint32_t* words,
                       int32_t* predicted, int32_t* sampled, operand_acc<O>* target) {
  using A = operand_acc<O>;
  using V = vec<A>;
  A* logits = m.logits + lane;
  const V nothing = splat(A(-INFINITY)), log2e = splat(A(log2_e_));
  V even = nothing, odd = nothing;
  int64_t j = 0;
  for (; j + 1 < columns; j += 2) {
    even = larger(even, load_vector(logits + j * slot_block));
    odd = larger(odd, load_vector(logits + (j + 1) * slot_block));
  }
  if (j < columns) even = larger(even, load_vector(logits + j * slot_block));
  const V peak = larger(even, odd), top = load_vector(m.top + at);

  const vec<mask_lane<A>> place = load_vector(m.targets + at) - splat(mask_lane<A>(column));
  const uint32_t here = lane_bits((place >= splat(mask_lane<A>(0))) & (place < splat(mask_lane<A>(columns))));
  for (uint32_t bits = here; bits; bits &= bits - 1) {
    const int i = __builtin_ctz(bits);
    target[slot + i] = logits[place[i] * slot_block + i];
  }
  for (uint32_t bits = lane_bits(peak > top); bits; bits &= bits - 1) {
    const int i = __builtin_ctz(bits);
    int64_t c = 0;
    while (logits[c * slot_block + i] != peak[i]) ++c;
    predicted[slot + i] = int32_t(column + c);
  }

  const V base = peak == nothing ? V{} : peak;
  V sum{};
  for (j = 0; j < columns; ++j) {
    const V e = exp2_((load_vector(logits + j * slot_block) - base) * log2e);
    sum += e;
    if constexpr (plain) store_vector(logits + j * slot_block, e);
  }
  const V now = larger(peak, top), zero = now == nothing ? V{} : now;
  store_vector(m.mass + at, load_vector(m.mass + at) * exp2_((top - zero) * log2e) + sum * exp2_((peak - zero) * log2e));
  store_vector(m.top + at, now);

  V group_peak = peak, group_mass = sum;
  if constexpr (!plain) {
    if (f.disallow_correct)
      for (uint32_t bits = here; bits; bits &= bits - 1) {
        const int i = __builtin_ctz(bits);
        logits[place[i] * slot_block + i] = A(-INFINITY);
      }
    const V inverse = splat(A(1 / f.temperature));
    group_peak = nothing;
    for (j = 0; j < columns; ++j) group_peak = larger(group_peak, load_vector(logits + j * slot_block) * inverse);
    const V group_base = group_peak == nothing ? V{} : group_peak;
    group_mass = V{};
    for (j = 0; j < columns; ++j) {
      const V e = exp2_((load_vector(logits + j * slot_block) * inverse - group_base) * log2e);
      group_mass += e;
      store_vector(logits + j * slot_block, e);
    }
  }

  lane_words<A> w;
  memcpy(&w, words + at, sizeof(w));
  const V score = group_peak + log_(group_mass) - log_(exponential_of_uniform(uniform(w))), best = load_vector(m.score + at);
  const auto better = score > best;
  store_vector(m.score + at, better ? score : best);
  for (uint32_t bits = lane_bits(better); bits; bits &= bits - 1) {
    const int i = __builtin_ctz(bits);
    sampled[slot + i] = int32_t(column + pick_column(logits + i, columns, m.inside[at + i] * group_mass[i]));
  }
}

template <class T, class W, class O>
static void generator_forward(const GeneratorForward& f, int64_t split, int64_t begin, int64_t end, void* memory) {
  using A = operand_acc<O>;
  constexpr int step = lanes<A>;
  const GeneratorProblem& p = f.problem;
  Arena arena{static_cast<char*>(memory)};
  const int64_t slots = end - begin, whole = whole_vectors<A>(slots);
  const GeneratorForwardMemory<O> m(arena, p.features, slots);
  // Lanes behind the last slot draw and count like the others; what they find is not kept.
  int32_t* predicted = f.partials.predicted + split * p.slots;
  int32_t* sampled = f.partials.sampled + split * p.slots;
  A* target = static_cast<A*>(f.partials.target);
  uint32_t draws_as[slot_block];

  for (int64_t i = 0; i < slots; i += slot_block)
    pack_transposed(m.hidden + i * m.depth, slot_block, static_cast<const T*>(p.hidden) + (begin + i) * p.features, p.features,
                    slots - i < slot_block ? slots - i : slot_block, p.features);
  for (int64_t i = 0; i < whole; ++i) {
    m.top[i] = m.score[i] = i < slots ? A(-INFINITY) : A(INFINITY);   // nothing is better than +inf: idle lanes never write
    m.mass[i] = 0;
    m.targets[i] = i < slots ? mask_lane<A>(p.targets[begin + i]) : -1;
  }
  for (int64_t i = 0; i < slots; ++i) predicted[begin + i] = sampled[begin + i] = 0;
  const auto draw = [&](int64_t at, uint32_t block, lane_words<A> (&w)[4]) {
    for (int i = 0; i < step; ++i) draws_as[i] = at + i < slots ? uint32_t(f.slot[begin + at + i]) : 0u;
    lane_words<A> rows;
    memcpy(&rows, draws_as, sizeof(rows));
    philox_lanes<A>(f.stream, rows, block, w);
  };
  for (int64_t at = 0; at < whole; at += step) {
    lane_words<A> w[4];
    draw(at, 0x80000000u, w);
    store_vector(m.inside + at, uniform(w[0]));
  }

  const int64_t first = split * p.split_columns, last = first + p.split_columns < p.columns ? first + p.split_columns : p.columns;
  const bool plain = f.temperature == 1.0 && !f.disallow_correct;
  for (int64_t column = first; column < last; column += vocabulary_group) {
    const int64_t columns = last - column < vocabulary_group ? last - column : vocabulary_group, group = column / vocabulary_group;
    if (group % 4 == 0)
      for (int64_t at = 0; at < whole; at += step) {
        lane_words<A> w[4];
        draw(at, uint32_t(group / 4), w);
        for (int i = 0; i < 4; ++i) memcpy(m.words[i] + at, &w[i], sizeof(w[i]));
      }
    const MatrixA<O> rows = weight_rows<O, W>(p, column, columns, m.weight);
    for (int64_t i = 0; i < slots; i += slot_block) {
      const int64_t count = whole - i < slot_block ? whole - i : slot_block;
      multiply_logits<O>(p, column, columns, count, rows, m.hidden + i * m.depth, m.logits);
      for (int64_t lane = 0; lane < count; lane += step) {
        if (plain) scan_group<O, true>(f, m, begin + i + lane, column, columns, i + lane, lane, m.words[group % 4], predicted, sampled, target);
        else scan_group<O, false>(f, m, begin + i + lane, column, columns, i + lane, lane, m.words[group % 4], predicted, sampled, target);
      }
    }
  }
  A *top = static_cast<A*>(f.partials.top) + split * p.slots + begin, *mass = static_cast<A*>(f.partials.mass) + split * p.slots + begin,
    *score = static_cast<A*>(f.partials.score) + split * p.slots + begin;
  for (int64_t i = 0; i < slots; ++i) {
    top[i] = m.top[i];
    mass[i] = m.mass[i];
    score[i] = m.score[i];
  }
}

template <class A> static void generator_combine(const GeneratorForward& f, int64_t begin, int64_t end) {
  const GeneratorProblem& p = f.problem;
  const A *top = static_cast<const A*>(f.partials.top), *mass = static_cast<const A*>(f.partials.mass), *score = static_cast<const A*>(f.partials.score);
  for (int64_t i = begin; i < end; ++i) {
    int64_t largest = 0, best = 0;
    for (int64_t s = 1; s < p.splits; ++s) {
      if (top[s * p.slots + i] > top[largest * p.slots + i]) largest = s;
      if (score[s * p.slots + i] > score[best * p.slots + i]) best = s;
    }
    const A peak = top[largest * p.slots + i], base = peak == A(-INFINITY) ? 0 : peak;
    A sum = 0;
    for (int64_t s = 0; s < p.splits; ++s) sum += mass[s * p.slots + i] * A(exp(top[s * p.slots + i] - base));
    const A lse = peak + A(log(sum));
    static_cast<A*>(f.lse)[f.slot[i]] = lse;
    static_cast<A*>(f.loss)[f.slot[i]] = lse - static_cast<const A*>(f.partials.target)[i];
    f.predicted[f.slot[i]] = f.partials.predicted[largest * p.slots + i];
    f.sampled[f.slot[i]] = f.partials.sampled[best * p.slots + i];
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
