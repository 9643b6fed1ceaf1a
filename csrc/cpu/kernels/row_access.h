// Elements of a row in the accumulation type, a whole vector of them or one: a loop body written once serves the vectors of a row and its odd end.
//
//   over_row<A>(n, [&](auto piece, int64_t i) {   // vec<A>, or A behind the last whole vector
//     write<false>(y + i, read(piece, x + i) + read(piece, bias + i));
//   });
#pragma once
#include "cpu/kernels/vector.h"

namespace electra {
namespace ELECTRA_ISA {

template <class A, class Body>
static inline void over_row(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + lanes<A> <= n; i += lanes<A>) body(vec<A>{}, i);
  for (; i < n; ++i) body(A{}, i);
}

// Unsigned integers, as many as a vector of A has lanes. gcc 12 makes __builtin_convertvector of 8 bits element by element: hence the intrinsics below.
template <class A, class U> struct Lanewise { typedef U type __attribute__((vector_size(lanes<A> * sizeof(U)))); };
template <class A, class U> using lanewise = typename Lanewise<A, U>::type;

static inline vec<float> read(vec<float>, const float* p) { return load_vector(p); }
static inline vec<double> read(vec<double>, const double* p) { return load_vector(p); }
static inline vec<float> read(vec<float>, const bf16* p) {
#if defined(__AVX512F__)
  return (vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16);
#elif defined(__AVX2__)
  return (vec<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16);
#elif defined(__x86_64__)
  return (vec<float>)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  lanewise<float, uint16_t> bits;
  memcpy(&bits, p, sizeof bits);
  return (vec<float>)(__builtin_convertvector(bits, vec<uint32_t>) << 16);
#endif
}
template <class T> static inline acc_t<T> read(acc_t<T>, const T* p) { return load(*p); }

// A vector past the caches, where it fills a register of the instruction set or half of one; p must be aligned to its size.
template <class V> static inline void stream_vector(void* p, const V& v) {
#if defined(__AVX512F__)
  if constexpr (sizeof v == 64) return _mm512_stream_si512(static_cast<__m512i*>(p), (__m512i)v);
#endif
#if defined(__AVX2__)
  if constexpr (sizeof v == 32) return _mm256_stream_si256(static_cast<__m256i*>(p), (__m256i)v);
#endif
#if defined(__x86_64__)
  if constexpr (sizeof v == 16) return _mm_stream_si128(static_cast<__m128i*>(p), (__m128i)v);
#endif
  memcpy(p, &v, sizeof v);
}
// Behind the last of them: other threads see what was streamed no later than what is written after this.
static inline void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

template <bool streams, class V> static inline void put(void* p, const V& v) {
  if constexpr (streams) stream_vector(p, v);
  else memcpy(p, &v, sizeof v);
}
template <bool streams> static inline void write(float* p, vec<float> v) { put<streams>(p, v); }
template <bool streams> static inline void write(double* p, vec<double> v) { put<streams>(p, v); }
// Rounds to nearest even; NaN stays NaN. The processor's instruction takes subnormal numbers for zero.
template <bool streams> static inline void write(bf16* p, vec<float> v) {
#if defined(__AVX512BF16__)
  put<streams>(p, _mm512_cvtneps_pbh((__m512)v));
#else
  const vec<int32_t> u = (vec<int32_t>)v, upper = u >> 16;
  const vec<int32_t> rounded = v == v ? (u + (0x7fff + (upper & 1))) >> 16 : upper | 0x40;   // sign-extended: the packing instructions saturate
#if defined(__AVX512F__)
  put<streams>(p, _mm512_cvtepi32_epi16((__m512i)rounded));
#elif defined(__AVX2__)
  put<streams>(p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)rounded, (__m256i)rounded), 0x08)));
#elif defined(__x86_64__)
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32((__m128i)rounded, (__m128i)rounded));
#else
  using Words = lanewise<float, uint16_t>;
  put<streams>(p, __builtin_convertvector((vec<uint32_t>)rounded, Words));
#endif
#endif
}
template <bool streams, class T> static inline void write(T* p, acc_t<T> v) { store(*p, v); }

// x scaled where its byte is below the threshold, else 0. A select, not a product: what is dropped may be infinite.
static inline vec<float> drop(vec<float> x, const uint8_t* bytes, int threshold, float scale) {
#if defined(__AVX512BW__)
  const __mmask16 kept = _mm_cmple_epu8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), _mm_set1_epi8(char(threshold - 1)));
  return (vec<float>)_mm512_maskz_mul_ps(kept, (__m512)x, _mm512_set1_ps(scale));
#else
#if defined(__AVX2__)
  const auto wide = (vec<int32_t>)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
#elif defined(__x86_64__)
  int32_t four;
  memcpy(&four, bytes, sizeof four);
  const __m128i zero = _mm_setzero_si128();
  const auto wide = (vec<int32_t>)_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero);
#else
  lanewise<float, uint8_t> narrow;
  memcpy(&narrow, bytes, sizeof narrow);
  const auto wide = __builtin_convertvector(narrow, vec<int32_t>);
#endif
  return wide < splat(threshold) ? x * scale : vec<float>{};
#endif
}
static inline vec<double> drop(vec<double> x, const uint8_t* bytes, int threshold, double scale) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = bytes[i] < threshold ? x[i] * scale : 0.0;
  return x;
}
template <class A> static inline A drop(A x, const uint8_t* bytes, int threshold, A scale) { return *bytes < threshold ? x * scale : A(0); }

}  // namespace ELECTRA_ISA
}  // namespace electra
