// Powers and logarithms of base 2 in one instruction of the special function unit.
#pragma once
#include "cuda/portable.h"

namespace electra::cuda {

inline constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

// 2^x to 2 ulp; results below 2^-126 are 0.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef ELECTRA_EMULATION
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// log2(x): error 2^-22, absolute for x in [0.5, 2], relative elsewhere; -inf for 0 and subnormals.
__device__ __forceinline__ float fast_log2(float x) {
#ifdef ELECTRA_EMULATION
  return log2f(x);
#else
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// x as an exponent of base 2, to be subtracted: 0 for -inf, so that nothing less nothing is nothing.
__device__ __forceinline__ float exponent_base(float x) { return x == -INFINITY ? 0.f : x * log2_e; }

}  // namespace electra::cuda
