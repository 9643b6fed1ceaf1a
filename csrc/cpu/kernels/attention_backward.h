// Backward attention of one head: scores are recomputed from lse (Dao et al. 2022, algorithm 4). With P the probabilities, M the dropout factor and
// delta = rowsum(dO ∘ O):
//
//   dV = (P ∘ M)ᵀ dO      dP = dO Vᵀ      dS = P ∘ (M ∘ dP - delta)      dQ = scale · dS K      dK = scale · dSᵀ Q
//
// One call does the whole head in a fixed order, so the sums are the same for any number of threads. Queries go in chunks, keys in blocks inside: a block of
// K and V is packed once a chunk, dK and dV of it stay in cache for four blocks of queries.
#pragma once
#include "cpu/kernels/attention_blocks.h"

namespace electra {
namespace ELECTRA_ISA {

template <class O> struct BackwardMemory {
  using A = operand_acc<O>;
  static constexpr bool paired = Operand<O>::depth == 2;
  int64_t depth, width;
  O *q_transposed, *grad_transposed;   // B of the scores and of dP        [chunk / 64][depth][64]
  O *q, *grad;                         // B of dK and of dV                [chunk / depth of O][width]
  O *k, *v;                            // A of the scores and of dP        [keys][depth]
  O *k_depth;                          // B of dQ                          [keys / depth of O][width]
  O *weights, *dscores;                // A of dV and of dK                [keys][64 / depth of O]
  O *dscores_depth;                    // A of dQ, transposed              [keys / depth of O][64]
  A *scores, *dweights;                // raw products                     [keys][64]
  A *dq, *dk, *dv;                     // [chunk][width], [nk][width] twice
  A *lse, *delta;                      // [chunk]

  BackwardMemory(Arena& arena, int64_t dim, int64_t nk) : depth(depth_of<O>(dim)), width(whole_vectors<A>(dim)) {
    constexpr int64_t words = Operand<O>::depth;
    q_transposed = arena.take<O>(attention_chunk * depth);
    grad_transposed = arena.take<O>(attention_chunk * depth);
    q = arena.take<O>(attention_chunk / words * width);
    grad = arena.take<O>(attention_chunk / words * width);
    scores = arena.take<A>((backward_keys + 1) * query_block);
    dweights = arena.take<A>((backward_keys + 1) * query_block);
    v = arena.take<O>(backward_keys * depth);
    k_depth = arena.take<O>(backward_keys / words * width);
    if constexpr (paired) {
      k = arena.take<O>(backward_keys * depth);
      weights = arena.take<O>((backward_keys + 1) * query_block / 2);
      dscores = arena.take<O>((backward_keys + 1) * query_block / 2);
      dscores_depth = arena.take<O>(backward_keys / 2 * query_block);
    } else {   // one layout serves both
      k = nullptr;
      weights = scores;
      dscores = dscores_depth = dweights;
    }
    dq = arena.take<A>(attention_chunk * width);
    dk = arena.take<A>(nk * width);
    dv = arena.take<A>(nk * width);
    lse = arena.take<A>(attention_chunk);
    delta = arena.take<A>(attention_chunk);
  }
};

// From raw scores and dP [keys][query_block] to the operands P ∘ M and dS. `lse` is that of base 2.
template <class O, bool dropout>
static void score_gradients(const AttentionProblem& p, const Head& head, const BackwardMemory<O>& m, int64_t query, int64_t key, int64_t keys, int64_t count,
                            const operand_acc<O>* lse, const operand_acc<O>* delta) {
  using A = operand_acc<O>;
  using V = vec<A>;
  const V scale = splat(exponent_scale<A>(p.scale)), kept = splat(A(256) / A(p.threshold));
  if (keys & 1)   // rows go in twos
    for (int64_t i = 0; i < query_block; ++i) {
      m.scores[keys * query_block + i] = hidden_score<A>(p.scale);
      m.dweights[keys * query_block + i] = 0;
    }
  for (int64_t lane = 0; lane < count; lane += lanes<A>) {
    const V base = load_vector(lse + lane), mean = load_vector(delta + lane);
    lane_words<A> rows;
    if constexpr (dropout) rows = dropout_rows<A>(p, head, query, lane);
    for (int64_t group = 0; group < keys; group += 16) {
      lane_words<A> bytes[4];
      if constexpr (dropout) philox_lanes<A>(p.stream, rows, uint32_t((key + group) / 16), bytes);
      for (int64_t two = 0; two < 8 && group + 2 * two < keys; ++two) {
        V w[2], d[2];
#pragma GCC unroll 2
        for (int s = 0; s < 2; ++s) {
          const int64_t at = (group + 2 * two + s) * query_block + lane;
          w[s] = weight_of<O>(load_vector(m.scores + at) * scale - base);
          V dw = load_vector(m.dweights + at);
          V dropped = w[s];
          if constexpr (dropout) {
            const lane_words<A> b = bytes[two / 2] >> ((two % 2 ? 16 : 0) + 8 * s);
            dw = keep_where(b, uint32_t(p.threshold), dw * kept);
            dropped = keep_where(b, uint32_t(p.threshold), w[s] * kept);
          }
          d[s] = w[s] * (dw - mean);
          w[s] = dropped;
        }
        const int64_t at = (group + 2 * two) * query_block + lane;
        if constexpr (!BackwardMemory<O>::paired) {
          store_vector(m.scores + at, w[0]);
          store_vector(m.dweights + at, d[0]);
          store_vector(m.scores + at + query_block, w[1]);
          store_vector(m.dweights + at + query_block, d[1]);
        } else {
#if defined(__AVX512BF16__)
          uint16_t *weights = reinterpret_cast<uint16_t*>(m.weights), *dscores = reinterpret_cast<uint16_t*>(m.dscores);
          store_rounded(weights + at, w[0]);
          store_rounded(weights + at + query_block, w[1]);
          store_rounded(dscores + at, d[0]);
          store_rounded(dscores + at + query_block, d[1]);
          store_vector(reinterpret_cast<uint32_t*>(m.dscores_depth) + (group / 2 + two) * query_block + lane, round_to_pairs(d[0], d[1]));
#endif
        }
      }
    }
  }
}

// Operands and row statistics of the queries [begin, end).
template <class T, class O>
static void load_queries(const AttentionProblem& p, const Head& head, const BackwardMemory<O>& m, int64_t begin, int64_t end) {
  using A = operand_acc<O>;
  for (int64_t i = 0; i < end - begin; i += query_block) {
    const int64_t row = head.first_q + begin + i, n = end - begin - i < query_block ? end - begin - i : query_block;
    const T *q = head_rows<T>(p.q, row, head.head), *grad = head_rows<T>(p.grad, row, head.head);
    pack_transposed(m.q_transposed + i * m.depth, query_block, q, p.q.row, n, p.dim);
    pack_transposed(m.grad_transposed + i * m.depth, query_block, grad, p.grad.row, n, p.dim);
    pack_depth(m.q + i / Operand<O>::depth * m.width, m.width, q, p.q.row, n, p.dim);
    pack_depth(m.grad + i / Operand<O>::depth * m.width, m.width, grad, p.grad.row, n, p.dim);
    const A* lse = static_cast<const A*>(p.lse) + head.head * p.rows_q + row;
    const T* out = static_cast<const T*>(p.out) + (row * p.heads + head.head) * p.dim;
    for (int64_t r = 0; r < whole_vectors<A>(n); ++r) {
      A dot = 0, base = A(INFINITY);   // lanes behind the end, and rows that see no key, weigh 2^-inf = 0
      if (r < n) {
        const T *g = grad + r * p.grad.row, *o = out + r * p.heads * p.dim;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < p.dim; ++c) dot += load(g[c]) * load(o[c]);
        if (lse[r] != A(-INFINITY)) base = lse[r] * A(log2_e);
      }
      m.lse[i + r] = base;
      m.delta[i + r] = dot;
    }
  }
}

template <class T, class O>
static void backward_head(const AttentionProblem& p, int64_t sequence, int64_t h, void* memory) {
  using A = operand_acc<O>;
  constexpr int64_t words = Operand<O>::depth;
  const Head head(p, sequence, h);
  Arena arena{static_cast<char*>(memory)};
  const BackwardMemory<O> m(arena, p.dim, head.nk);
  memset(m.dk, 0, head.nk * m.width * sizeof(A));
  memset(m.dv, 0, head.nk * m.width * sizeof(A));

  for (int64_t begin = 0; begin < head.nq; begin += attention_chunk) {
    const int64_t end = head.nq - begin < attention_chunk ? head.nq : begin + attention_chunk;
    load_queries<T, O>(p, head, m, begin, end);
    memset(m.dq, 0, (end - begin) * m.width * sizeof(A));
    for (int64_t key = 0; key < head.nk && head.sees(end - 1, key); key += backward_keys) {
      const int64_t keys = head.nk - key < backward_keys ? head.nk - key : backward_keys;
      const T *k = head_rows<T>(p.k, head.first_k + key, h), *v = head_rows<T>(p.v, head.first_k + key, h);
      pack_rows(m.v, m.depth, v, p.v.row, keys, p.dim);
      pack_depth(m.k_depth, m.width, k, p.k.row, keys, p.dim);
      if constexpr (BackwardMemory<O>::paired) pack_rows(m.k, m.depth, k, p.k.row, keys, p.dim);
      const MatrixA<O> k_rows = BackwardMemory<O>::paired ? MatrixA<O>{m.k, m.depth, 1} : MatrixA<O>{m.k_depth, m.width, 1};
      for (int64_t i = 0; i < end - begin; i += query_block) {
        const int64_t query = begin + i, n = end - query < query_block ? end - query : query_block, count = whole_vectors<A>(n);
        if (!head.sees(query + n - 1, key)) continue;
        multiply<O>(keys, count, m.depth, k_rows, m.q_transposed + i * m.depth, query_block, m.scores, query_block);
        multiply<O>(keys, count, m.depth, {m.v, m.depth, 1}, m.grad_transposed + i * m.depth, query_block, m.dweights, query_block);
        if (!head.sees(query, key + keys - 1)) hide_later_keys(m.scores, head, query, key, keys, n, hidden_score<A>(p.scale));
        if (p.threshold < 256) score_gradients<O, true>(p, head, m, query, key, keys, count, m.lse + i, m.delta + i);
        else score_gradients<O, false>(p, head, m, query, key, keys, count, m.lse + i, m.delta + i);
        const int64_t depth_q = depth_of<O>(n), row = i / words * m.width;
        multiply<O>(keys, m.width, depth_q, {m.weights, query_block / words, 1}, m.grad + row, m.width, m.dv + key * m.width, m.width, Start::add);
        multiply<O>(keys, m.width, depth_q, {m.dscores, query_block / words, 1}, m.q + row, m.width, m.dk + key * m.width, m.width, Start::add);
        multiply<O>(n, m.width, depth_of<O>(keys), {m.dscores_depth, 1, query_block}, m.k_depth, m.width, m.dq + i * m.width, m.width, Start::add);
      }
    }
    for (int64_t i = begin; i < end; ++i)
      write_row(static_cast<T*>(p.dq) + ((head.first_q + i) * p.heads + h) * p.dim, m.dq + (i - begin) * m.width, A(p.scale), p.dim);
  }
  for (int64_t j = 0; j < head.nk; ++j) {
    const int64_t at = ((head.first_k + j) * p.heads + h) * p.dim;
    write_row(static_cast<T*>(p.dk) + at, m.dk + j * m.width, A(p.scale), p.dim);
    write_row(static_cast<T*>(p.dv) + at, m.dv + j * m.width, A(1), p.dim);
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
