// What the forward and the backward of attention share: block sizes, one head of one sequence, the causal mask.
//
// Scores are computed transposed, [keys][queries], with the queries across the lanes of a vector. So keys and values are read as they lie (an element of K is
// broadcast), only the block of queries is transposed, the softmax needs no sum across lanes, and one Philox call per lane (16 keys of one query) feeds
// 16 consecutive rows of the block.
#pragma once
#include "cpu/kernels/attention.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/philox_lanes.h"

namespace electra {
namespace ELECTRA_ISA {

constexpr int64_t query_block = 64;                    // lanes of a block of scores, and its leading dimension
constexpr int64_t forward_keys = 128, backward_keys = 64;
static_assert(attention_chunk % query_block == 0);

template <class T> static inline const T* head_rows(const Strided& x, int64_t row, int64_t head) { return static_cast<const T*>(x.data) + row * x.row + head * x.head; }

// One head of one sequence. Positions are inside the sequence.
struct Head {
  int64_t first_q, first_k, nq, nk, head;
  int64_t last_key_offset;   // query i sees the keys j <= i + last_key_offset; nk when everything is seen

  Head(const AttentionProblem& p, int64_t sequence, int64_t h)
      : first_q(p.cu_seqlens_q[sequence]), first_k(p.cu_seqlens_k[sequence]), nq(p.cu_seqlens_q[sequence + 1] - first_q), nk(p.cu_seqlens_k[sequence + 1] - first_k),
        head(h), last_key_offset(p.causal ? nk - nq : nk) {}

  bool sees(int64_t query, int64_t key) const { return key <= query + last_key_offset; }
};

// Scores of `keys` keys from `key` on of a block of queries from `query` on: those not seen become `hidden`.
template <class A>
static void hide_later_keys(A* scores, const Head& head, int64_t query, int64_t key, int64_t keys, int64_t width, A hidden) {
  for (int64_t j = 0; j < keys; ++j) {
    const int64_t first_seeing = key + j - head.last_key_offset - query;   // lanes from here on see this key
    const int64_t end = first_seeing < 0 ? 0 : first_seeing < width ? first_seeing : width;
    for (int64_t i = 0; i < end; ++i) scores[j * query_block + i] = hidden;
  }
}

// Packed index and head of every query in the lanes from `lane` on, as Philox counts them.
template <class A> static inline lane_words<A> dropout_rows(const AttentionProblem& p, const Head& head, int64_t query, int64_t lane) {
  const uint32_t first = uint32_t(head.first_q + query + lane) * uint32_t(p.heads) + uint32_t(head.head);
  return lane_numbers<A>() * uint32_t(p.heads) + first;
}

// 2^x as exactly as the weights that are made of it need.
template <class O> static inline vec<operand_acc<O>> weight_of(vec<operand_acc<O>> x) {
  if constexpr (Operand<O>::depth == 2) return exp2_for_16_bits(x);
  else return exp2_(x);
}

constexpr double log2_e = 1.4426950408889634, ln_2 = 0.6931471805599453;

// What a raw score is multiplied with so that 2^(…) is the softmax's exponential. Never 0, so that a hidden score stays infinite.
template <class A> static inline A exponent_scale(double scale) { return scale == 0.0 ? A(1e-30) : A(scale * log2_e); }
template <class A> static inline A hidden_score(double scale) { return scale < 0.0 ? A(INFINITY) : A(-INFINITY); }

// n values of the accumulation type, each times `factor`, as a row of T.
template <class T, class A> static inline void write_row(T* out, const A* in, A factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(out[i], in[i] * factor);
}

}  // namespace ELECTRA_ISA
}  // namespace electra
