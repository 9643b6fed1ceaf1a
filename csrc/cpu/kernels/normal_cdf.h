// The standard normal distribution function Φ and density φ, together, branch-free: what GELU and its derivative are made of.
//
// Φ(-a) = exp(-a²/2) · R(a) with R(a) = erfcx(a/√2) / 2, and Φ(a) = 1 - Φ(-a), for a >= 0. R is smooth and positive, so a ratio of two polynomials
// with positive coefficients approximates it without cancellation; Φ keeps its relative accuracy in the lower tail, where (1 + erf)/2 has none, and the
// exponential is the one the density needs.
//
// Coefficients: degree (4, 5), a weighted minimax fit on [0, 14] (Lawson's iteration: linearised least squares, each point's weight multiplied by its error
// until the errors level out) of erfcx from SciPy in double precision; the constant term is then set to exactly 1/2, so that Φ(0) = 1/2. Fit error: 8e-10
// relative at 0, growing as 1 + a²/2 (the rounding of the exponential's argument grows the same way). As evaluated in float, over all floats in [-14, 14]:
// |error of Φ| < 5e-8, error of φ < 4e-8.
#pragma once
#include "cpu/kernels/math.h"

namespace electra {
namespace ELECTRA_ISA {

// Returns Φ(z) and stores φ(z).
static inline float normal_cdf_(float z, float& density) {
  const float magnitude = z < 0.f ? -z : z;
  const float a = magnitude < 14.f ? magnitude : 14.f;   // Φ(-14) is below the smallest normal float
  const float e = exp_(-0.5f * a * a);
  float p = 0.00347120198f;
  p = p * a + 0.0362451486f;
  p = p * a + 0.170145974f;
  p = p * a + 0.420507193f;
  p = p * a + 0.5f;
  float q = 0.00870072935f;
  q = q * a + 0.090866141f;
  q = q * a + 0.434933931f;
  q = q * a + 1.14794314f;
  q = q * a + 1.63889897f;
  q = q * a + 1.f;
  const float tail = e * p / q;
  density = e * 0.398942280f;
  return z > 0.f ? 1.f - tail : tail;
}

static inline double normal_cdf_(double z, double& density) {
  density = exp(-0.5 * z * z) * 0.398942280401432678;
  return 0.5 * erfc(-z * 0.707106781186547524);
}

}  // namespace ELECTRA_ISA
}  // namespace electra
