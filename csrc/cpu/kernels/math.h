// Scalar functions written so that a `#pragma omp simd` loop around them vectorises: no branches, no tables, no library calls.
// Errors are in units in the last place (ulp) against correctly rounded results, checked by tests/ops/test_gelu.py and tests/ops/test_attention.py.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace electra {
namespace ELECTRA_ISA {

// exp(x), < 2 ulp, for float. x = n ln2 + r with |r| <= ln2/2 (Cody-Waite), a degree-7 Taylor polynomial of e^r (truncation 5e-9), then scaling by 2^n.
// Below -87.3 the result is 0; above 88.7 it is inf; NaN stays NaN.
static inline float exp_(float x) {
  const float clamped = x < -88.f ? -88.f : x > 89.f ? 89.f : x;
  const float magic = 12582912.f;   // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
  const float shifted = clamped * 1.44269504f + magic;
  const float n = shifted - magic;
  float r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.f / 5040;
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  // 2^n in two halves, so that n = 128 (just below overflow) is representable.
  const int32_t ni = int32_t(n);
  const int32_t n0 = ni >> 1, n1 = ni - n0;
  const uint32_t b0 = uint32_t(n0 + 127) << 23, b1 = uint32_t(n1 + 127) << 23;
  float s0, s1;
  memcpy(&s0, &b0, 4);
  memcpy(&s1, &b1, 4);
  const float y = p * s0 * s1;
  return x < -87.33654f ? 0.f : y;
}
static inline double exp_(double x) { return exp(x); }

}  // namespace ELECTRA_ISA
}  // namespace electra
