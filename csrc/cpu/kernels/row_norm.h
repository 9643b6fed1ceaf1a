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

// Sum of a vector's lanes, by halves.
template <class A, int bytes>
static inline A sum_of_lanes(const void* lanes_) {
  if constexpr (bytes == sizeof(A)) {
    return *static_cast<const A*>(lanes_);
  } else {
    typedef A Half __attribute__((vector_size(bytes / 2)));
    Half lower, upper;
    memcpy(&lower, lanes_, sizeof lower);
    memcpy(&upper, static_cast<const char*>(lanes_) + sizeof lower, sizeof upper);
    lower += upper;
    return sum_of_lanes<A, bytes / 2>(&lower);
  }
}

// The same of a copy: a vector whose address is taken lives in memory, also in the loop that sums it up.
template <class A>
static inline A sum_of_vector(vec<A> v) { return sum_of_lanes<A, vector_bytes>(&v); }

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
  A total = sum_of_vector<A>(s0);
  for (; i < n; ++i) total += row[i];
  return total;
}

// Σ of what `body` (see over_row) returns. The sum is not the body's to keep: what a closure refers to, gcc 12 keeps in memory.
template <class A, class Body>
static inline A sum_over_row(int64_t n, const Body& body) {
  vec<A> sums{};
  int64_t i = 0;
  for (; i + lanes<A> <= n; i += lanes<A>) sums += body(vec<A>{}, i);
  A total = sum_of_vector<A>(sums);
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
  A total = sum_of_vector<A>(s0);
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
  A sum[R] = {}, product[R] = {};
  over_row<A>(n, [&](auto piece, int64_t i) {
    const auto w = read(piece, weight + i);
    auto dw = read(piece, dweight + i), db = read(piece, dbias + i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const auto xhat = (read(piece, s + r * stride + i) - mean[r]) * rstd[r], dy = read(piece, grad + r * grad_stride + i), g = dy * w;
      if constexpr (sizeof w == sizeof(A)) sum[r] += g, product[r] += g * xhat;
      else sums[r] += g, products[r] += g * xhat;
      dw += dy * xhat;
      db += dy;
    }
    write<false>(dweight + i, dw);
    write<false>(dbias + i, db);
  });
  for (int r = 0; r < R; ++r) {
    c1[r] = (sum_of_vector<A>(sums[r]) + sum[r]) / A(n);
    c2[r] = (sum_of_vector<A>(products[r]) + product[r]) / A(n);
  }
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
