// The standard normal distribution function Φ and density φ on the device, from one exponential: what GELU and its derivative are made of.
//
// The fit is that of csrc/cpu/kernels/normal_cdf.h: Φ(-a) = exp(-a²/2) (1/2 - a P(a)/Q(a)) for a >= 0, with two polynomials of positive coefficients, which keeps
// relative accuracy in the lower tail, where (1 + erf)/2 cancels. About 20 instructions, two of them on the special-function unit; erfcf takes twice that, and
// at the bandwidth of HBM3e a bfloat16 element has time for some 27. Division and exponential are the approximate ones (2 ulp each, CUDA C++ Programming Guide,
// "Intrinsic Functions"), which adds less than 1e-6 to the relative error of the tail.
#pragma once
#include "cuda/portable.h"

namespace electra::cuda {

struct NormalCdf { float cdf, density; };

__device__ __forceinline__ NormalCdf normal_cdf(float z) {
  constexpr float limit = 12.5f;   // beyond it Φ(-|z|) < 4e-36 counts as 0, so that -1e30 · Φ(-1e30) is 0
  const float a = fminf(fabsf(z), limit);
  const float e = fabsf(z) <= limit ? exp2f(a * a * -0.721347520f) : 0.f;
  float p = 0.0154736917f;
  p = fmaf(p, a, 0.110416427f);
  p = fmaf(p, a, 0.325285465f);
  p = fmaf(p, a, 0.398941815f);
  float q = 0.030948393f;
  q = fmaf(q, a, 0.245484561f);
  q = fmaf(q, a, 0.84716022f);
  q = fmaf(q, a, 1.44201088f);
  q = fmaf(q, a, 1.f);
  const float tail = e * (0.5f - __fdividef(a * p, q));
  return {z > 0.f ? 1.f - tail : tail, e * 0.398942280f};
}

}  // namespace electra::cuda
