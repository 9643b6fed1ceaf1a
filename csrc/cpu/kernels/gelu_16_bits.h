// gelu of a vector whose result is rounded to 16 bits next: half the arithmetic of normal_cdf.h, which keeps float's accuracy.
//
// gelu(z) = max(z, 0) - a Φ(-a), a = |z|, and Φ(-a) = exp(-a²/2) R(a), R(a) = erfcx(a/√2) / 2. In t = 1 / (1 + 0.498 a) (the form of Hastings 1955, Abramowitz and Stegun 7.1.25)
// four terms, fitted to the relative error on [0, 13] by Lawson's iteration for the best of all factors of a, are within 2.2e-4 of R; the reciprocal's estimate adds 6e-5. So Φ(-a)
// is within a seventh of bf16's rounding, 2e-3, also where it is small.
#pragma once
#include "cpu/kernels/vector.h"

namespace electra {
namespace ELECTRA_ISA {

#if defined(__AVX512DQ__)
// NaN stays NaN; gelu(-inf) = 0.
static inline vec<float> gelu_for_16_bits(vec<float> z) {
  const __m512 magnitude = _mm512_abs_ps((__m512)z);
  const vec<float> a = (vec<float>)_mm512_min_ps(magnitude, _mm512_set1_ps(13.f));   // Φ(-13) = 6e-39
  const vec<float> t = (vec<float>)_mm512_rcp14_ps((__m512)(a * splat(0.4979339f) + splat(1.f)));
  vec<float> r = splat(-0.12553158f);
  r = r * t + splat(0.2476836f);
  r = r * t + splat(0.1775853f);
  r = r * t + splat(0.2001536f);
  const vec<float> tail = exp2_for_16_bits(a * a * splat(-0.72134752f)) * (r * t);
  return (vec<float>)_mm512_max_ps(_mm512_setzero_ps(), (__m512)z) - a * tail;
}
#endif

}  // namespace ELECTRA_ISA
}  // namespace electra
