// Normalisation of one row that lies in L1: what layer_norm and embedding share. Accumulation type A throughout.
#pragma once
#include <math.h>
#include <stdint.h>

#include "cpu/kernels/dropout.h"
#include "cpu/kernels/types.h"

namespace electra {
namespace ELECTRA_ISA {

static inline double square_root(double x) { return sqrt(x); }
static inline float square_root(float x) { return sqrtf(x); }

// Zeroes what dropout drops and scales the rest. A select, not a product: what is dropped may be infinite.
template <class A>
static inline A drop(A x, uint8_t byte, int threshold, A scale) {
  return int(byte) < threshold ? x * scale : A(0);
}

// Two passes, so that a large mean does not eat the variance.
template <class A>
static inline void row_statistics(const A* row, int64_t n, A eps, A& mean, A& rstd) {
  A total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += row[i];
  const A m = total / A(n);
  A squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) squares += (row[i] - m) * (row[i] - m);
  mean = m;
  rstd = A(1) / square_root(squares / A(n) + eps);
}

// Backward of y = (s - mean) rstd weight + bias for one row, s and grad in the accumulation type.
// Adds this row to dweight and dbias; overwrites `grad` with ds = rstd (g - mean(g) - xhat mean(g xhat)), g = grad weight, xhat = (s - mean) rstd.
template <class A>
static inline void row_norm_backward(A* __restrict grad, const A* s, const A* weight, int64_t n, A mean, A rstd, A* __restrict dweight, A* __restrict dbias) {
  A c1 = 0, c2 = 0;
#pragma omp simd reduction(+ : c1, c2)
  for (int64_t i = 0; i < n; ++i) {
    const A xhat = (s[i] - mean) * rstd, dy = grad[i], g = dy * weight[i];
    c1 += g;
    c2 += g * xhat;
    dweight[i] += dy * xhat;
    dbias[i] += dy;
  }
  c1 /= A(n);
  c2 /= A(n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A xhat = (s[i] - mean) * rstd;
    grad[i] = rstd * (grad[i] * weight[i] - c1 - xhat * c2);
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
