// Vectors as wide as the instruction set allows, by the compiler's vector extensions: +, *, <, ?: act on lanes, a * b + c becomes one fused instruction where
// there is one. For the kernels that want registers under control (matrix products, softmax); row-wise loops are better left to `#pragma omp simd`.
#pragma once
#include <stdint.h>
#include <string.h>

#include "cpu/kernels/intrinsics.h"
#include "cpu/kernels/math.h"
#include "cpu/kernels/types.h"

namespace electra {
namespace ELECTRA_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T> struct Vector { typedef T type __attribute__((vector_size(vector_bytes))); };
template <class T> using vec = typename Vector<T>::type;
template <class T> constexpr int lanes = vector_bytes / int(sizeof(T));

// The signed integer that a comparison of T's lanes yields.
template <int bytes> struct SignedOfSize { using type = int32_t; };
template <> struct SignedOfSize<8> { using type = int64_t; };
template <class T> using mask_lane = typename SignedOfSize<sizeof(T)>::type;

// `count` rounded up to whole vectors of T.
template <class T> static inline int64_t whole_vectors(int64_t count) { return (count + lanes<T> - 1) / lanes<T> * lanes<T>; }

template <class T> static inline vec<T> load_vector(const T* p) {
  vec<T> v;
  memcpy(&v, p, vector_bytes);
  return v;
}
static inline void store_vector(float* p, vec<float> v) { memcpy(p, &v, vector_bytes); }
static inline void store_vector(double* p, vec<double> v) { memcpy(p, &v, vector_bytes); }
static inline void store_vector(int32_t* p, vec<int32_t> v) { memcpy(p, &v, vector_bytes); }
static inline void store_vector(uint32_t* p, vec<uint32_t> v) { memcpy(p, &v, vector_bytes); }

template <class T> static inline vec<T> splat(T x) { return x - vec<T>{}; }

// The larger of two lanes; b where either is NaN.
static inline vec<double> larger(vec<double> a, vec<double> b) { return a > b ? a : b; }
static inline vec<float> larger(vec<float> a, vec<float> b) {
#if defined(__AVX512F__)
  return (vec<float>)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (vec<float>)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

// One bit per lane of a comparison's result.
static inline uint32_t lane_bits(vec<int32_t> mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps((__m256)mask));
#elif defined(__x86_64__)
  return uint32_t(_mm_movemask_ps((__m128)mask));
#else
  uint32_t bits = 0;
  for (int i = 0; i < lanes<int32_t>; ++i) bits |= uint32_t(mask[i] & 1) << i;
  return bits;
#endif
}
static inline uint32_t lane_bits(vec<int64_t> mask) {
  uint32_t bits = 0;
  for (int i = 0; i < lanes<int64_t>; ++i) bits |= uint32_t(mask[i] & 1) << i;
  return bits;
}

template <class F> static inline vec<double> each_lane(vec<double> x, F f) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = f(x[i]);
  return x;
}

// 2^x for x < 128, relative error < 1.3e-7; far below -126 it is 0 (a softmax weight nobody can see), as it is for -inf; NaN stays NaN.
//
// With AVX-512: 2^(x - floor x), of which two instructions take the exponent off and put it back, by a minimax polynomial (relative, with value 1 at 0; Lawson's iteration) of
// degree 6 (2e-9) or, for what is rounded to 16 bits next, of degree 4 (2.9e-6). Elsewhere: x = n + r with |r| <= 1/2, a minimax polynomial of 2^r
// (1.9e-9, Remez), n added to the exponent; below -125 the result is 0.
#if defined(__AVX512DQ__)
static inline vec<float> fraction(vec<float> x) { return (vec<float>)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
static inline vec<float> times_power(vec<float> p, vec<float> x) { return (vec<float>)_mm512_scalef_ps((__m512)p, (__m512)x); }   // p 2^floor(x)

static inline vec<float> exp2_(vec<float> x) {
  const vec<float> r = fraction(x);
  vec<float> p = splat(2.1612919e-4f);
  p = p * r + splat(1.2467846e-3f);
  p = p * r + splat(9.6754516e-3f);
  p = p * r + splat(5.5485282e-2f);
  p = p * r + splat(2.4022931e-1f);
  p = p * r + splat(6.9314706e-1f);
  p = p * r + splat(1.f);
  return times_power(p, x);
}
static inline vec<float> exp2_for_16_bits(vec<float> x) {
  const vec<float> r = fraction(x);
  vec<float> p = splat(1.3426688e-2f);
  p = p * r + splat(5.2242469e-2f);
  p = p * r + splat(2.4128021e-1f);
  p = p * r + splat(6.9304484e-1f);
  p = p * r + splat(1.f);
  return times_power(p, x);
}
#else
static inline vec<float> exp2_(vec<float> x) {
  const vec<float> magic = splat(12582912.f);   // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
  const vec<float> clamped = larger(splat(-126.f), x);
  const vec<float> shifted = clamped + magic;
  const vec<float> r = clamped - (shifted - magic);
  vec<float> p = splat(1.534581216e-4f);
  p = p * r + splat(1.339993118e-3f);
  p = p * r + splat(9.618488956e-3f);
  p = p * r + splat(5.550328777e-2f);
  p = p * r + splat(2.402264689e-1f);
  p = p * r + splat(6.931472057e-1f);
  p = p * r + splat(1.f);
  const vec<float> y = (vec<float>)((vec<int32_t>)p + ((vec<int32_t>)shifted << 23));
  return x < splat(-125.f) ? vec<float>{} : y;
}
static inline vec<float> exp2_for_16_bits(vec<float> x) { return exp2_(x); }
#endif
static inline vec<double> exp2_(vec<double> x) { return each_lane(x, [](double v) { return exp2(v); }); }

// ln x for normal x > 0, relative error < 2e-7 (also near 1); ln 0 = -inf. x = 2^e (1 + f) with 1 + f in [√½, √2), ln(1 + f) = f - f²/2 + f³ q(f), q minimax (7e-10).
static inline vec<float> log_(vec<float> x) {
  const vec<int32_t> bits = (vec<int32_t>)x;
  const vec<int32_t> exponent = (bits - splat(0x3f3504f3)) >> 23;
  const vec<float> f = (vec<float>)(bits - (exponent << 23)) - splat(1.f);
  vec<float> q = splat(6.915545865e-2f);
  q = q * f + splat(-1.178986593e-1f);
  q = q * f + splat(1.187292446e-1f);
  q = q * f + splat(-1.238433505e-1f);
  q = q * f + splat(1.421866398e-1f);
  q = q * f + splat(-1.666925181e-1f);
  q = q * f + splat(2.000222631e-1f);
  q = q * f + splat(-2.499998658e-1f);
  q = q * f + splat(3.333331045e-1f);
  const vec<float> e = __builtin_convertvector(exponent, vec<float>);
  const vec<float> f2 = f * f;
  const vec<float> y = e * splat(0.693359375f) + (f + (f2 * (q * f - splat(0.5f)) + e * splat(-2.12194440e-4f)));
  return x == vec<float>{} ? splat(-INFINITY) : (x == x ? y : x);
}
static inline vec<double> log_(vec<double> x) { return each_lane(x, [](double v) { return log(v); }); }

// -ln(1 - u) for u in [0, 1), accurate for small u: ln of the rounded 1 - u, plus the rounding error's share. At u = 1 (a rounded-up uniform): +inf.
static inline vec<float> exponential_of_uniform(vec<float> u) {
  const vec<float> w = splat(1.f) - u;
  const vec<float> error = (splat(1.f) - w) - u;   // exact; 1 - u = w + error
  const vec<float> y = -log_(w) - error / w;
  return w == vec<float>{} ? splat(INFINITY) : y;
}
static inline vec<double> exponential_of_uniform(vec<double> u) { return each_lane(u, [](double v) { return -log1p(-v); }); }

}  // namespace ELECTRA_ISA
}  // namespace electra
