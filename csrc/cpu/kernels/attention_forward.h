// Forward attention of up to `attention_chunk` queries of one head: online softmax over blocks of keys (Milakov & Gimelshein 2018; Dao et al. 2022, algorithm 1).
// Keys are the outer loop, so that a block of K and V is packed once for four blocks of queries.
#pragma once
#include "cpu/kernels/attention_blocks.h"

namespace electra {
namespace ELECTRA_ISA {

template <class O> struct ForwardMemory {
  using A = operand_acc<O>;
  int64_t depth, width;     // words of depth of a row of K; columns of V and out in whole vectors
  O *q, *k, *v, *weights;
  A *scores, *out, *top, *mass, *shrink;

  ForwardMemory(Arena& arena, int64_t dim) : depth(depth_of<O>(dim)), width(whole_vectors<A>(dim)) {
    q = arena.take<O>(attention_chunk * depth);
    k = arena.take<O>(forward_keys * depth);
    v = arena.take<O>(depth_of<O>(forward_keys) * width);
    scores = arena.take<A>((forward_keys + 1) * query_block);
    if constexpr (Operand<O>::depth == 1) weights = scores;
    else weights = arena.take<O>(depth_of<O>(forward_keys) * query_block);
    out = arena.take<A>(attention_chunk * width);
    top = arena.take<A>(attention_chunk);
    mass = arena.take<A>(attention_chunk);
    shrink = arena.take<A>(query_block);
  }
};

// Of an even number of rows of raw scores the largest, or with a negative scale the smallest, in each lane.
template <class A> static inline vec<A> largest_score(const A* column, int64_t keys, double scale) {
  vec<A> even = load_vector(column), odd = load_vector(column + query_block);
  if (scale < 0.0) {
    for (int64_t j = 2; j < keys; j += 2) {
      even = -larger(-even, -load_vector(column + j * query_block));
      odd = -larger(-odd, -load_vector(column + (j + 1) * query_block));
    }
    return -larger(-even, -odd);
  }
  for (int64_t j = 2; j < keys; j += 2) {
    even = larger(even, load_vector(column + j * query_block));
    odd = larger(odd, load_vector(column + (j + 1) * query_block));
  }
  return larger(even, odd);
}

// From raw scores [keys][query_block] to unnormalised weights 2^(score · scale - top), with dropout, updating the running top and mass of every query.
// `shrink` receives what earlier sums must be multiplied with. Returns whether any of it differs from 1.
template <class O, bool dropout>
static bool softmax_block(const AttentionProblem& p, const Head& head, int64_t query, int64_t key, int64_t keys, int64_t count, operand_acc<O>* scores, [[maybe_unused]] O* weights,
                          operand_acc<O>* top, operand_acc<O>* mass, operand_acc<O>* shrink) {
  using A = operand_acc<O>;
  using V = vec<A>;
  const V scale = splat(exponent_scale<A>(p.scale)), nothing = splat(A(-INFINITY));
  if (keys & 1)   // rows are weighed in twos
    for (int64_t i = 0; i < query_block; ++i) scores[keys * query_block + i] = hidden_score<A>(p.scale);
  bool changed = false;
  for (int64_t lane = 0; lane < count; lane += lanes<A>) {
    A* column = scores + lane;
    const V before = load_vector(top + lane);
    const V now = larger(before, largest_score<A>(column, keys, p.scale) * scale), base = now == nothing ? V{} : now;
    const V factor = exp2_(before - base);
    changed |= lane_bits(factor != splat(A(1))) != 0;
    V sum = load_vector(mass + lane) * factor;
    lane_words<A> rows;
    if constexpr (dropout) rows = dropout_rows<A>(p, head, query, lane);
    for (int64_t group = 0; group < keys; group += 16) {
      lane_words<A> bytes[4];
      if constexpr (dropout) philox_lanes<A>(p.stream, rows, uint32_t((key + group) / 16), bytes);
      for (int64_t two = 0; two < 8 && group + 2 * two < keys; ++two) {
        const int64_t j = group + 2 * two;
        V w0 = weight_of<O>(load_vector(column + j * query_block) * scale - base);
        V w1 = weight_of<O>(load_vector(column + (j + 1) * query_block) * scale - base);
        sum += w0 + w1;
        if constexpr (dropout) {
          const lane_words<A> b = bytes[two / 2] >> (two % 2 ? 16 : 0);
          w0 = keep_where(b, uint32_t(p.threshold), w0);
          w1 = keep_where(b >> 8, uint32_t(p.threshold), w1);
        }
        if constexpr (Operand<O>::depth == 1) {
          store_vector(column + j * query_block, w0);
          store_vector(column + (j + 1) * query_block, w1);
        } else {
#if defined(__AVX512BF16__)
          store_vector(reinterpret_cast<uint32_t*>(weights) + j / 2 * query_block + lane, round_to_pairs(w0, w1));
#endif
        }
      }
    }
    store_vector(top + lane, now);
    store_vector(mass + lane, sum);
    store_vector(shrink + lane, factor);
  }
  return changed;
}

template <class T, class O>
static void forward_chunk(const AttentionProblem& p, int64_t sequence, int64_t h, int64_t begin, int64_t end, void* memory) {
  using A = operand_acc<O>;
  const Head head(p, sequence, h);
  Arena arena{static_cast<char*>(memory)};
  const ForwardMemory<O> m(arena, p.dim);
  const int64_t queries = end - begin;
  for (int64_t i = 0; i < whole_vectors<A>(queries); ++i) {
    m.top[i] = A(-INFINITY);
    m.mass[i] = 0;
  }
  for (int64_t i = 0; i < queries; i += query_block)
    pack_transposed(m.q + i * m.depth, query_block, head_rows<T>(p.q, head.first_q + begin + i, h), p.q.row, queries - i < query_block ? queries - i : query_block, p.dim);

  for (int64_t key = 0; key < head.nk && head.sees(end - 1, key); key += forward_keys) {
    const int64_t keys = head.nk - key < forward_keys ? head.nk - key : forward_keys;
    pack_rows(m.k, m.depth, head_rows<T>(p.k, head.first_k + key, h), p.k.row, keys, p.dim);
    pack_depth(m.v, m.width, head_rows<T>(p.v, head.first_k + key, h), p.v.row, keys, p.dim);
    for (int64_t i = 0; i < queries; i += query_block) {
      const int64_t n = queries - i < query_block ? queries - i : query_block, query = begin + i;
      if (!head.sees(query + n - 1, key)) continue;
      const int64_t count = whole_vectors<A>(n);
      multiply<O>(keys, count, m.depth, {m.k, m.depth, 1}, m.q + i * m.depth, query_block, m.scores, query_block);
      if (!head.sees(query, key + keys - 1)) hide_later_keys(m.scores, head, query, key, keys, n, hidden_score<A>(p.scale));
      const bool changed = p.threshold < 256 ? softmax_block<O, true>(p, head, query, key, keys, count, m.scores, m.weights, m.top + i, m.mass + i, m.shrink)
                                             : softmax_block<O, false>(p, head, query, key, keys, count, m.scores, m.weights, m.top + i, m.mass + i, m.shrink);
      A* out = m.out + i * m.width;
      if (key > 0 && changed)
        for (int64_t r = 0; r < n; ++r)
          for (int64_t c = 0; c < m.width; c += lanes<A>) store_vector(out + r * m.width + c, load_vector(out + r * m.width + c) * splat(m.shrink[r]));
      multiply<O>(n, m.width, depth_of<O>(keys), {m.weights, 1, query_block}, m.v, m.width, out, m.width, key > 0 ? Start::add : Start::zero);
    }
  }

  A* lse = static_cast<A*>(p.lse) + h * p.rows_q + head.first_q + begin;
  T* result = static_cast<T*>(p.out) + ((head.first_q + begin) * p.heads + h) * p.dim;
  const A kept = A(256) / A(p.threshold);
  for (int64_t i = 0; i < queries; i += lanes<A>) {
    A log_mass[lanes<A>];
    store_vector(log_mass, log_(load_vector(m.mass + i)));
    for (int64_t r = i; r < queries && r < i + lanes<A>; ++r, result += p.heads * p.dim) {
      if (m.mass[r] == 0) {   // sees no key
        lse[r] = A(-INFINITY);
        for (int64_t c = 0; c < p.dim; ++c) store(result[c], A(0));
        continue;
      }
      lse[r] = m.top[r] * A(ln_2) + log_mass[r - i];
      write_row(result, m.out + r * m.width, kept / m.mass[r], p.dim);
    }
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
