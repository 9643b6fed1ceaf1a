// Laying rows of a tensor out as operands of `multiply` (gemm.h): converted to the operand's type, padded with zeros, contiguous.
//
//   pack_rows        A with depth along the columns         [n][depth_of(d)]
//   pack_depth       B with depth along the rows            [depth_of(n)][ld], ld >= d whole vectors
//   pack_transposed  B with depth along the columns         [depth_of(d)][ld], n <= ld
//
// Pairs are made of bf16 only: along the columns they are the tensor's own words, along the rows two rows are interleaved.
#pragma once
#include "cpu/kernels/gemm.h"

namespace electra {
namespace ELECTRA_ISA {

template <class O> struct Word { using type = O; };
template <> struct Word<pair> { using type = uint32_t; };
template <class O> using word = typename Word<O>::type;   // what a vector of operands is made of

// Working memory handed out in order; with a null base it only counts.
struct Arena {
  char* base;
  int64_t used = 0;
  template <class T> T* take(int64_t count) {
    T* p = reinterpret_cast<T*>(base + used);
    used += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
};

// --- transposing a square of words in registers: log2(W) rounds, round S swaps the off-diagonal S x S blocks.
template <int... I> struct LaneList {};
template <int N, int... I> struct LaneRange : LaneRange<N - 1, N - 1, I...> {};
template <int... I> struct LaneRange<0, I...> { using list = LaneList<I...>; };

#if defined(__clang__)
#define ELECTRA_SHUFFLE(a, b, Index, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ELECTRA_SHUFFLE(a, b, Index, ...) __builtin_shuffle(a, b, Index{__VA_ARGS__})
#endif

template <int S, class T, int... I> static inline void swap_blocks(vec<T>& a, vec<T>& b, LaneList<I...>) {
  constexpr int W = lanes<T>;
  const vec<T> low = ELECTRA_SHUFFLE(a, b, vec<mask_lane<T>>, ((I & S) ? W + I - S : I)...);
  b = ELECTRA_SHUFFLE(a, b, vec<mask_lane<T>>, ((I & S) ? W + I : I + S)...);
  a = low;
}

template <class T, int S = lanes<T> / 2> static inline void transpose_square(vec<T>* rows) {
  constexpr int W = lanes<T>;
#pragma GCC unroll 16
  for (int r = 0; r < W; ++r)
    if (!(r & S)) swap_blocks<S, T>(rows[r], rows[r + S], typename LaneRange<W>::list{});
  if constexpr (S > 1) transpose_square<T, S / 2>(rows);
}

// --- words [c, c + W) of a row of d elements, zeros behind its end.
template <class O, class T> static inline vec<word<O>> row_words(const T* row, int64_t c, int64_t d) {
  constexpr int W = lanes<word<O>>;
  constexpr int elements = W * Operand<O>::depth;   // of one vector
  const T* from = row + c * Operand<O>::depth;
  const int64_t left = d - c * Operand<O>::depth;
  vec<word<O>> v{};
  if constexpr (Operand<O>::depth == 2 || sizeof(T) == sizeof(O)) {
    if (left >= elements) memcpy(&v, from, vector_bytes);
    else memcpy(&v, from, left * sizeof(T));
  } else {
    O wide[W];
    if (left >= elements) {
#pragma omp simd
      for (int i = 0; i < W; ++i) wide[i] = load(from[i]);
    } else {
      for (int i = 0; i < W; ++i) wide[i] = i < left ? O(load(from[i])) : O(0);
    }
    memcpy(&v, wide, vector_bytes);
  }
  return v;
}

// Rows of a [tokens, heads, dim] tensor lie kilobytes apart, where the processor's own prefetching does not follow: asking for them ahead, also for those behind the
// block (they are next as a rule, and to ask is always allowed), is worth 10 % of attention at 16 x 128 tokens and 4 heads.
constexpr int64_t rows_ahead = 12;
template <class T> static inline void prefetch(const T* in, int64_t elements) {
  __builtin_prefetch(reinterpret_cast<const void*>(uintptr_t(in) + uintptr_t(elements) * sizeof(T)));
}
template <class T> static inline void prefetch_row(const T* in, int64_t row, int64_t stride, int64_t d) {
  for (int64_t c = 0; c < d; c += 64 / int64_t(sizeof(T))) prefetch(in, row * stride + c);
}

template <class O, class T> static void pack_rows(O* out, int64_t ld, const T* in, int64_t stride, int64_t n, int64_t d) {
  constexpr int W = lanes<word<O>>;
  const int64_t depth = depth_of<O>(d);
  for (int64_t r = 0; r < n; ++r) {
    prefetch_row(in, r + rows_ahead, stride, d);
    word<O>* row = reinterpret_cast<word<O>*>(out) + r * ld;
    int64_t c = 0;
    for (; c + W <= depth; c += W) store_vector(row + c, row_words<O>(in + r * stride, c, d));
    if (c < depth) {
      const vec<word<O>> last = row_words<O>(in + r * stride, c, d);
      memcpy(row + c, &last, (depth - c) * sizeof(word<O>));
    }
  }
}

template <class O, class T> static void pack_transposed(O* out, int64_t ld, const T* in, int64_t stride, int64_t n, int64_t d) {
  constexpr int W = lanes<word<O>>;
  const int64_t depth = depth_of<O>(d);
  for (int64_t first = 0; first < n; first += W)
    for (int64_t c = 0; c < depth; c += W) {
      for (int r = 0; r < W; ++r) prefetch(in, (first + W + r) * stride + c * Operand<O>::depth);
      vec<word<O>> square[W];
      for (int r = 0; r < W; ++r) square[r] = first + r < n ? row_words<O>(in + (first + r) * stride, c, d) : vec<word<O>>{};
      transpose_square<word<O>>(square);
      for (int r = 0; r < W && c + r < depth; ++r) store_vector(reinterpret_cast<word<O>*>(out) + (c + r) * ld + first, square[r]);
    }
}

// Words [c, c + W) of the row of pairs made of two rows of d elements; without the second row its halves are 0.
template <class T> static inline vec<uint32_t> interleaved_words(const T* even, const T* odd, int64_t c, int64_t d) {
  constexpr int W = lanes<uint32_t>;
  const int64_t left = W < d - c ? W : d - c;
#if defined(__AVX512BF16__)
  if (left == W) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even + c)));
    const __m512i high = odd ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd + c))) : _mm512_setzero_si512();
    return (vec<uint32_t>)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
#endif
  uint32_t words[W]{};
  for (int64_t i = 0; i < left; ++i) words[i] = even[c + i].bits | (odd ? uint32_t(odd[c + i].bits) << 16 : 0u);
  vec<uint32_t> v;
  memcpy(&v, words, vector_bytes);
  return v;
}

template <class O, class T> static void pack_depth(O* out, int64_t ld, const T* in, int64_t stride, int64_t n, int64_t d) {
  constexpr int W = lanes<word<O>>;
  for (int64_t r = 0; r < depth_of<O>(n); ++r) {
    for (int i = 0; i < Operand<O>::depth; ++i) prefetch_row(in, Operand<O>::depth * r + rows_ahead + i, stride, d);
    for (int64_t c = 0; c < d; c += W) {
      vec<word<O>> v;
      if constexpr (Operand<O>::depth == 2) v = interleaved_words(in + 2 * r * stride, 2 * r + 1 < n ? in + (2 * r + 1) * stride : nullptr, c, d);
      else v = row_words<O>(in + r * stride, c, d);
      store_vector(reinterpret_cast<word<O>*>(out) + r * ld + c, v);
    }
  }
}

#if defined(__AVX512BF16__)
// Two vectors of float, rounded to bf16, as pairs: `even` in the low halves.
static inline vec<uint32_t> round_to_pairs(vec<float> even, vec<float> odd) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (vec<uint32_t>)_mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
}
// One vector of float, rounded to bf16, contiguous.
static inline void store_rounded(uint16_t* out, vec<float> x) { _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh((__m512)x)); }
#endif

}  // namespace ELECTRA_ISA
}  // namespace electra
