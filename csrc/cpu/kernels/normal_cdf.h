// The standard normal distribution function Φ and density φ, together, branch-free: what GELU and its derivative are made of.
//
// For a >= 0, Φ(-a) = exp(-a²/2) R(a) with R(a) = erfcx(a/√2) / 2, and Φ(a) = 1 - Φ(-a). R falls smoothly from 1/2 to 0, so R(a) = 1/2 - a P(a)/Q(a) with two
// polynomials of positive coefficients: no cancellation inside them, and near 0, where Φ is large, the approximated part is small. The exponential is the
// one the density needs. Unlike (1 + erf)/2 this keeps relative accuracy in the lower tail.
//
// Coefficients: degrees (3, 4), a weighted minimax fit on [0, 14] of (1/2 - R(a)) / a computed with 40 digits (mpmath), by Lawson's iteration (linearised
// least squares in the basis (a/(a+2))^i (2/(a+2))^(4-i), each point's weight multiplied by its error until the errors are level; the tolerance grows as
// 1 + a²/2, as the rounding of the exponential's argument does). Fit error: 2.3e-8 relative to R at 0. As evaluated in float, over the floats in [-12.5, 12.5]:
// |error of Φ| <= 1.07e-7 (3e-8 of it is the rounding of the result; torch's 0.5 * (1 + erf) is off by up to 3.8e-7), relative error of Φ <= 1.3e-6 for
// z >= -3 and 1.1e-5 down to -12.5, |error of φ| <= 5.5e-8.
#pragma once
#include "cpu/kernels/math.h"

namespace electra {
namespace ELECTRA_ISA {

// Returns Φ(z) and stores φ(z).
static inline float normal_cdf_(float z, float& density) {
  // min(|z|, 12.5), on the bits, which order like the numbers: what follows stays in the normal numbers. Beyond, where Φ(-|z|) < 4e-36, it is 0. (Masks, not ?:,
  // which the compiler would split into a path per case, each computed for every lane.)
  const int32_t magnitude = int32_t(bits_of(z) & 0x7fffffffu), limit = 0x41480000;
  const float a = float_of(uint32_t(magnitude < limit ? magnitude : limit));
  const uint32_t inside = 0u - uint32_t(magnitude <= limit);
  const float e = float_of(bits_of(exp2_nonpositive(a * a * -0.721347520f)) & inside);
  float p = 0.0154736917f;
  p = p * a + 0.110416427f;
  p = p * a + 0.325285465f;
  p = p * a + 0.398941815f;
  float q = 0.030948393f;
  q = q * a + 0.245484561f;
  q = q * a + 0.84716022f;
  q = q * a + 1.44201088f;
  q = q * a + 1.f;
  const float tail = e * (0.5f - a * p / q);
  density = e * 0.398942280f;
  return z > 0.f ? 1.f - tail : tail;
}

static inline double normal_cdf_(double z, double& density) {
  density = exp(-0.5 * z * z) * 0.398942280401432678;
  return 0.5 * erfc(-z * 0.707106781186547524);
}

}  // namespace ELECTRA_ISA
}  // namespace electra
