// Matrix products of blocks that lie in cache: C [m, n] (+)= A [m, depth] B [depth, n], accumulated in registers.
//
// The tile: `rows` rows of C times up to `columns` vectors, one fused multiply-add per element of A (broadcast from memory: two strides, so that A may be a transpose
// for free) and vector of B (contiguous along n). Nothing is packed here; callers lay B out with n contiguous and padded to whole vectors.
//
// An operand is float, double, or `pair`: two consecutive bf16 along the depth in one 32-bit word, multiplied by vdpbf16ps at twice the rate of float. With pairs the
// depth, strides and leading dimensions count words. Peak of one Zen 4 core at 3.6 GHz: 116 Gflop/s float, 232 Gflop/s pairs; figures in docs/notes/cpu-attention.md.
#pragma once
#include "cpu/kernels/vector.h"

namespace electra {
namespace ELECTRA_ISA {

struct pair { uint32_t bits; };   // bf16 of even depth in the low half

template <class O> struct Operand {
  using acc = O;
  using vector = vec<O>;
  static constexpr int depth = 1;   // elements of the inner dimension in one operand
  static inline vector read(const O* p) { return load_vector(p); }
  static inline vector broadcast(const O* p) { return splat(*p); }
  static inline vector multiply_add(vector a, vector b, vector c) { return a * b + c; }
};

#if defined(__AVX512BF16__)
template <> struct Operand<pair> {
  using acc = float;
  using vector = __m512i;
  static constexpr int depth = 2;
  static inline vector read(const pair* p) { return _mm512_loadu_si512(p); }
  static inline vector broadcast(const pair* p) {
    int32_t word;
    memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
  }
  static inline vec<float> multiply_add(vector a, vector b, vec<float> c) { return (vec<float>)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b); }
};
#endif

// What products of bf16 are made from: pairs where the processor multiplies them, else float.
#if defined(__AVX512BF16__)
using bf16_operand = pair;
#else
using bf16_operand = float;
#endif

template <class O> using operand_acc = typename Operand<O>::acc;

// Words of depth that hold n elements of the inner dimension.
template <class O> static inline int64_t depth_of(int64_t n) { return (n + Operand<O>::depth - 1) / Operand<O>::depth; }

// Rows and vectors of a tile: accumulators + one row of B + a broadcast fit the registers (32 of AVX-512 and of Arm, else 16), and there are more
// accumulators in flight than the 4 to 10 cycles that a fused multiply-add takes.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int tile_rows = 6, tile_columns = 4;
#elif defined(__FMA__)
constexpr int tile_rows = 6, tile_columns = 2;
#else
constexpr int tile_rows = 4, tile_columns = 2;   // multiply and add apart need one register more
#endif

// A: element (i, d) at a[i * row + d * step].
template <class O> struct MatrixA {
  const O* data;
  int64_t row, step;
};

enum class Start { zero, add };   // C starts from 0 or from itself

template <class O, int M, int N>
static void multiply_tile(int64_t depth, MatrixA<O> a, const O* b, int64_t ldb, operand_acc<O>* c, int64_t ldc, Start start) {
  using P = Operand<O>;
  using A = operand_acc<O>;
  vec<A> sum[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[i][j] = start == Start::add ? load_vector(c + i * ldc + j * lanes<A>) : vec<A>{};
  const O* pa = a.data;
  for (int64_t d = 0; d < depth; ++d) {
    typename P::vector bv[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) bv[j] = P::read(b + j * lanes<A>);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const typename P::vector av = P::broadcast(pa + i * a.row);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[i][j] = P::multiply_add(av, bv[j], sum[i][j]);
    }
    pa += a.step;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store_vector(c + i * ldc + j * lanes<A>, sum[i][j]);
}

template <class O, int N, int M = tile_rows>
static void multiply_rows(int64_t m, int64_t depth, MatrixA<O> a, const O* b, int64_t ldb, operand_acc<O>* c, int64_t ldc, Start start) {
  for (; m >= M; m -= M) {
    multiply_tile<O, M, N>(depth, a, b, ldb, c, ldc, start);
    a.data += M * a.row;
    c += M * ldc;
  }
  if constexpr (M > 1)
    if (m > 0) multiply_rows<O, N, M - 1>(m, depth, a, b, ldb, c, ldc, start);
}

// n counts columns, a multiple of lanes<acc>.
template <class O>
static void multiply(int64_t m, int64_t n, int64_t depth, MatrixA<O> a, const O* b, int64_t ldb, operand_acc<O>* c, int64_t ldc, Start start = Start::zero) {
  constexpr int W = lanes<operand_acc<O>>;
  for (int64_t left = n / W; left > 0;) {
    int64_t taken = tile_columns;
    if (left >= tile_columns) multiply_rows<O, tile_columns>(m, depth, a, b, ldb, c, ldc, start);
    else if (tile_columns > 3 && left == 3) multiply_rows<O, 3>(m, depth, a, b, ldb, c, ldc, start), taken = 3;
    else if (tile_columns > 2 && left == 2) multiply_rows<O, 2>(m, depth, a, b, ldb, c, ldc, start), taken = 2;
    else multiply_rows<O, 1>(m, depth, a, b, ldb, c, ldc, start), taken = 1;
    left -= taken;
    b += taken * W;
    c += taken * W;
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
