// Normalisation of rows that lie in L1: what layer_norm and embedding share. Accumulation type A throughout.
//
// Rows come in small groups (dropout_rows), each phase going over the whole group before the next: the reductions of several rows overlap, where one row alone
// would wait for the latency of every step from its first addition to its square root.
#pragma once
#include <math.h>
#include <stdint.h>

#include "cpu/kernels/dropout.h"
#include "cpu/kernels/row_access.h"
#include "cpu/kernels/types.h"
#include "cpu/kernels/vector.h"

namespace electra {
namespace ELECTRA_ISA {

static inline double square_root(double x) { return sqrt(x); }
static inline float square_root(float x) { return sqrtf(x); }

// Zeroes what dropout drops and scales the rest. A select, not a product: what is dropped may be infinite.
template <class A>
static inline A drop(A x, uint8_t byte, int threshold, A scale) {
  return int(byte) < threshold ? x * scale : A(0);
}

// Sum of a vector's lanes, by halves. Without taking an address: a vector whose address is taken anywhere lives in memory, also in the loop that sums it up, and each addition
// then waits for the store before it.
#if defined(__x86_64__)
static inline float sum_of_vector(__m128 v) {
  v += _mm_movehl_ps(v, v);
  return _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)));
}
static inline double sum_of_vector(__m128d v) { return _mm_cvtsd_f64(_mm_add_sd(v, _mm_unpackhi_pd(v, v))); }
#if defined(__AVX2__)
static inline float sum_of_vector(__m256 v) { return sum_of_vector(_mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1)); }
static inline double sum_of_vector(__m256d v) { return sum_of_vector(_mm256_castpd256_pd128(v) + _mm256_extractf128_pd(v, 1)); }
#endif
#if defined(__AVX512F__)
static inline double sum_of_vector(__m512d v) { return sum_of_vector(_mm512_castpd512_pd256(v) + _mm512_extractf64x4_pd(v, 1)); }
static inline float sum_of_vector(__m512 v) { return sum_of_vector(_mm512_castps512_ps256(v) + _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1))); }
#endif
#else
template <class V> static inline auto sum_of_vector(V v) {
  constexpr int count = sizeof(v) / sizeof(v[0]);
  for (int half = count / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}
#endif

// Reductions over a row keep four vectors of partial sums: one alone would wait for each addition's latency.
template <class A>
static inline A row_sum(const A* row, int64_t n) {
  constexpr int64_t w = lanes<A>;
  vec<A> s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    s0 += load_vector(row + i);
    s1 += load_vector(row + i + w);
    s2 += load_vector(row + i + 2 * w);
    s3 += load_vector(row + i + 3 * w);
  }
  for (; i + w <= n; i += w) s0 += load_vector(row + i);
  s0 = (s0 + s1) + (s2 + s3);
  A total = sum_of_vector(s0);
  for (; i < n; ++i) total += row[i];
  return total;
}

// Σ of what `body` (see over_row) returns. The sum is not the body's to keep: what a closure refers to, gcc 12 keeps in memory.
template <class A, class Body>
static inline A sum_over_row(int64_t n, const Body& body) {
  vec<A> sums{};
  int64_t i = 0;
  for (; i + lanes<A> <= n; i += lanes<A>) sums += body(vec<A>{}, i);
  A total = sum_of_vector(sums);
  for (; i < n; ++i) total += body(A{}, i);
  return total;
}

// Σ (row - mean)²
template <class A>
static inline A row_squares(const A* row, int64_t n, A mean) {
  constexpr int64_t w = lanes<A>;
  vec<A> s0{}, s1{}, s2{}, s3{};
  int64_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    const vec<A> d0 = load_vector(row + i) - mean, d1 = load_vector(row + i + w) - mean, d2 = load_vector(row + i + 2 * w) - mean,
                 d3 = load_vector(row + i + 3 * w) - mean;
    s0 += d0 * d0;
    s1 += d1 * d1;
    s2 += d2 * d2;
    s3 += d3 * d3;
  }
  for (; i + w <= n; i += w) {
    const vec<A> d = load_vector(row + i) - mean;
    s0 += d * d;
  }
  s0 = (s0 + s1) + (s2 + s3);
  A total = sum_of_vector(s0);
  for (; i < n; ++i) total += (row[i] - mean) * (row[i] - mean);
  return total;
}

// Mean and reciprocal standard deviation of `count` rows, `stride` apart. Two passes, so that a large mean does not eat the variance.
template <class A>
static inline void row_statistics(const A* rows, int64_t stride, int64_t count, int64_t n, A eps, A* mean, A* rstd) {
  for (int64_t r = 0; r < count; ++r) mean[r] = row_sum(rows + r * stride, n) / A(n);
  for (int64_t r = 0; r < count; ++r) rstd[r] = A(1) / square_root(row_squares(rows + r * stride, n, mean[r]) / A(n) + eps);
}

// Reductions of the backward of y = (s - mean) rstd weight + bias over R rows [n]: c1 = mean(g), c2 = mean(g xhat), with g = grad weight, xhat = (s - mean) rstd.
// Adds the rows to dweight and dbias, which are read and written once for all R.
template <int R, class G, class S, class A>
static inline void reduce_rows(const G* grad, int64_t grad_stride, const S* s, int64_t stride, const A* weight, int64_t n, const A* mean, const A* rstd, A* __restrict dweight,
                               A* __restrict dbias, A* c1, A* c2) {
  vec<A> sums[R] = {}, products[R] = {};
  int64_t i = 0;
  // Written out and not by over_row: what a closure refers to, gcc 12 keeps in memory.
  for (; i + lanes<A> <= n; i += lanes<A>) {
    const vec<A> w = load_vector(weight + i);
    vec<A> dw = load_vector(dweight + i), db = load_vector(dbias + i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const vec<A> xhat = (read(w, s + r * stride + i) - mean[r]) * rstd[r], dy = read(w, grad + r * grad_stride + i), g = dy * w;
      sums[r] += g;
      products[r] += g * xhat;
      dw += dy * xhat;
      db += dy;
    }
    store_vector(dweight + i, dw);
    store_vector(dbias + i, db);
  }
  A sum[R], product[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sum[r] = sum_of_vector(sums[r]), product[r] = sum_of_vector(products[r]);
  for (; i < n; ++i) {
    for (int r = 0; r < R; ++r) {
      const A xhat = (read(A{}, s + r * stride + i) - mean[r]) * rstd[r], dy = read(A{}, grad + r * grad_stride + i), g = dy * weight[i];
      sum[r] += g;
      product[r] += g * xhat;
      dweight[i] += dy * xhat;
      dbias[i] += dy;
    }
  }
  for (int r = 0; r < R; ++r) c1[r] = sum[r] / A(n), c2[r] = product[r] / A(n);
}

// grad and s: rows in the accumulation type or in that of the activations.
template <class G, class S, class A>
static inline void reduce_rows(const G* grad, int64_t grad_stride, const S* s, int64_t stride, int64_t count, const A* weight, int64_t n, const A* mean, const A* rstd, A* dweight,
                               A* dbias, A* c1, A* c2) {
  int64_t r = 0;
#define ELECTRA_REDUCE(R) reduce_rows<R>(grad + r * grad_stride, grad_stride, s + r * stride, stride, weight, n, mean + r, rstd + r, dweight, dbias, c1 + r, c2 + r)
  for (; r + 4 <= count; r += 4) ELECTRA_REDUCE(4);
  for (; r + 2 <= count; r += 2) ELECTRA_REDUCE(2);
  if (r < count) ELECTRA_REDUCE(1);
#undef ELECTRA_REDUCE
}

// d(loss)/ds of one element, after reduce_rows.
template <class V, class A>
static inline V norm_gradient(V grad, V s, V weight, A mean, A rstd, A c1, A c2) {
  return rstd * (grad * weight - c1 - (s - mean) * rstd * c2);
}

}  // namespace ELECTRA_ISA
}  // namespace electra
