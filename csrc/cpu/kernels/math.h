// Scalar functions written so that a `#pragma omp simd` loop around them vectorises: no branches, no tables, no library calls for float.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace electra {
namespace ELECTRA_ISA {

static inline uint32_t bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
static inline float float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

// 2^x for -126 <= x <= 0, relative error < 1.2e-7; NaN stays NaN. x = n + r with |r| <= 1/2; 2^r by a minimax polynomial of degree 6 with constant term 1
// (Lawson's iteration in double precision, 2e-9); n is added to the exponent.
static inline float exp2_nonpositive(float x) {
  const float shifted = x + 12582912.f;   // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
  const float r = x - (shifted - 12582912.f);
  float p = 1.53533620e-4f;
  p = p * r + 1.33988739e-3f;
  p = p * r + 9.61843692e-3f;
  p = p * r + 5.55033237e-2f;
  p = p * r + 0.240226477f;
  p = p * r + 0.693147182f;
  p = p * r + 1.f;
  return float_of(bits_of(p) + (bits_of(shifted) << 23));
}

// e^x for x <= 0, the smallest normal number where it would be less; the relative error grows with |x| as that of x log2(e) does.
static inline float exp_nonpositive(float x) {
  const float y = x * 1.44269504f;
  return exp2_nonpositive(y < -126.f ? -126.f : y);
}
static inline double exp_nonpositive(double x) { return exp(x); }

}  // namespace ELECTRA_ISA
}  // namespace electra
