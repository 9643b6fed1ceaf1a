// Philox4x32-7 for a vector of rows at one block: the same bits as csrc/common/philox.h, one counter per lane.
//
// The cost is the 32 x 32 -> 64 bit products, two a round: here two vpmuludq (even lanes, odd lanes) and three operations to sort the halves. 7 rounds come to
// about 90 instructions for 16 rows x 16 bytes, 0.35 an element.
#pragma once
#include "common/philox.h"
#include "cpu/kernels/vector.h"

namespace electra {
namespace ELECTRA_ISA {

// 32-bit words, as many as a vector of T has lanes.
template <class T> struct LaneWords { typedef uint32_t type __attribute__((vector_size(4 * lanes<T>))); };
template <class T> using lane_words = typename LaneWords<T>::type;
template <class T> struct LaneDoubleWords { typedef uint64_t type __attribute__((vector_size(4 * lanes<T>))); };
template <class T> using lane_double_words = typename LaneDoubleWords<T>::type;

// Products of the even lanes (low 32 bits of every 64) with a 32-bit constant.
template <class T> static inline lane_double_words<T> multiply_even(lane_double_words<T> a, uint32_t b) {
#if defined(__x86_64__)
#if defined(__AVX512F__)
  if constexpr (sizeof(a) == 64) return (lane_double_words<T>)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(a) == 32) return (lane_double_words<T>)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#endif
  if constexpr (sizeof(a) == 16) return (lane_double_words<T>)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#elif defined(__aarch64__)
  if constexpr (sizeof(a) == 16) return (lane_double_words<T>)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(b));
#endif
  return (a & 0xffffffffu) * uint64_t(b);
}

template <class T> static inline void multiply_high_low(lane_words<T> a, uint32_t b, lane_words<T>& high, lane_words<T>& low) {
  using D = lane_double_words<T>;
  const D even = multiply_even<T>((D)a, b), odd = multiply_even<T>((D)a >> 32, b);
  const uint64_t upper = 0xffffffff00000000u;
  high = (lane_words<T>)((even >> 32) | (odd & upper));
  low = (lane_words<T>)((even & ~upper) | (odd << 32));
}

// The four words of every row's call at `block`.
template <class T> static inline void philox_lanes(const PhiloxStream& stream, lane_words<T> rows, uint32_t block, lane_words<T> (&w)[4]) {
  w[0] = block - lane_words<T>{};
  w[1] = rows;
  w[2] = stream.site - lane_words<T>{};
  w[3] = stream.step - lane_words<T>{};
  PhiloxKey k = stream.key;
#pragma GCC unroll 7
  for (int i = 0; i < 7; ++i) {
    lane_words<T> high0, low0, high1, low1;
    multiply_high_low<T>(w[0], 0xD2511F53u, high0, low0);
    multiply_high_low<T>(w[2], 0xCD9E8D57u, high1, low1);
    w[0] = high1 ^ w[1] ^ k.k0;
    w[1] = low1;
    w[2] = high0 ^ w[3] ^ k.k1;
    w[3] = low0;
    k.k0 += 0x9E3779B9u;
    k.k1 += 0xBB67AE85u;
  }
}

// 0, 1, 2, …
template <class T> static inline lane_words<T> lane_numbers() {
  lane_words<T> v;
  for (int i = 0; i < lanes<T>; ++i) v[i] = uint32_t(i);
  return v;
}

// Dropout by the low byte of each word: x where it is below the threshold, else 0.
static inline vec<float> keep_where(lane_words<float> bytes, uint32_t threshold, vec<float> x) { return (bytes & 255u) < threshold ? x : vec<float>{}; }
static inline vec<double> keep_where(lane_words<double> bytes, uint32_t threshold, vec<double> x) {
  for (int i = 0; i < lanes<double>; ++i) x[i] = (bytes[i] & 255u) < threshold ? x[i] : 0.0;
  return x;
}

}  // namespace ELECTRA_ISA
}  // namespace electra
