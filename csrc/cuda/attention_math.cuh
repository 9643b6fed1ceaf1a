// What the attention kernels compute per element: powers of two, and dropout bits in the layout of the scores.
#pragma once
#include "cuda/attention.h"
#include "cuda/dropout.cuh"
#include "cuda/mma.h"
#include "cuda/types.cuh"

namespace electra::cuda {

inline constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

// 2^x to 2 ulp, subnormal results flushed to 0: a probability is at most 1 and is then rounded to 16 bits, far coarser than either.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef ELECTRA_EMULATION
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// The factor of the exponent of base 2. The forward subtracts a row's maximum, which needs it positive: a negative scale is moved into the sign of q (exact), and
// zero becomes a factor too small to matter (so that -inf, a masked score, stays -inf).
__device__ __forceinline__ float exponent_factor(float scale) { return fmaxf(fabsf(scale) * log2_e, 1e-30f); }

__device__ __forceinline__ uint32_t sign_flip(float scale) { return scale < 0.f ? 0x80008000u : 0u; }

// --- dropout
//
// One Philox call decides for 16 keys of one query. Each lane makes the call of one (query, 16 keys), and ldmatrix hands out the bytes: with the 16 bytes b0 … b15
// of a call stored as b0 b8 b1 b9 … b7 b15, and the calls of eight queries as the rows of an 8 x 8 matrix of 16-bit units, lane 4*group + t receives
//   as it is   : of query `group`, the bytes of the keys 2t, 2t+8, 2t+1, 2t+9                      (scores: rows are queries)
//   transposed : of the queries 2t and 2t+1, the bytes of the keys group, group+8                  (scores: rows are keys)
// which are the elements it holds of an mma accumulator. Either way the even bytes belong to one register pair and the odd bytes to the other.

// 32 calls of one warp, in shared memory. Between making and reading them, and before they are made anew, the warp must meet (__syncwarp).
struct Draws { uint4 rows[32]; };

// This lane's call.
__device__ __forceinline__ void make_draw(Draws& draws, const PhiloxStream& stream, uint32_t row, uint32_t block) {
  const PhiloxCounter draw = philox_draw(stream, row, block);
  draws.rows[threadIdx.x % 32] = make_uint4(__byte_perm(draw.c0, draw.c2, 0x5140), __byte_perm(draw.c0, draw.c2, 0x7362), __byte_perm(draw.c1, draw.c3, 0x5140),
                                            __byte_perm(draw.c1, draw.c3, 0x7362));
}

// For scores whose rows are queries. Call 8i + r of draws[n] is that of row 8n + r and of the 16 keys of block i: words[n] are the bytes of block `block`.
template <int N> __device__ __forceinline__ void read_draws(uint32_t (&words)[N], const Draws (&draws)[N], int block) {
  const int lane = int(threadIdx.x) % 32;
  if constexpr (N == 4) ldmatrix_x4(words, &draws[lane >> 3].rows[8 * block + (lane & 7)]);
  else ldmatrix_x2(words, &draws[lane >> 3 & 1].rows[8 * block + (lane & 7)]);
}

// For scores whose rows are keys. Call r is that of query r and of the warp's 16 keys: words[n] are the bytes of the queries 16 * block + 8n and the next seven.
__device__ __forceinline__ void read_draws_transposed(uint32_t (&words)[2], const Draws& draws, int block) {
  ldmatrix_x2_trans(words, &draws.rows[16 * block + int(threadIdx.x) % 16]);
}

// The threshold as draw masks compare it.
__device__ __forceinline__ uint32_t threshold_pair(int threshold) { return uint32_t(threshold) * 0x00010001u; }

// 0xffff in each half where the pair of even (odd) bytes says keep. The bytes are compared as subnormal halves, exactly: one instruction for two.
template <bool odd> __device__ __forceinline__ uint32_t keep_pair(uint32_t word, uint32_t thresholds) {
  const uint32_t bytes = (odd ? word >> 8 : word) & 0x00ff00ffu;
  return __hlt2_mask(*reinterpret_cast<const __half2*>(&bytes), *reinterpret_cast<const __half2*>(&thresholds));
}

// Two packed values, negative ones (the dropped) made zero; NaN stays NaN.
template <class T> __device__ __forceinline__ uint32_t positive_part(uint32_t both);
template <> __device__ __forceinline__ uint32_t positive_part<__nv_bfloat16>(uint32_t both) {
  const __nv_bfloat162 zero = __floats2bfloat162_rn(0.f, 0.f), x = __hmax2_nan(*reinterpret_cast<const __nv_bfloat162*>(&both), zero);
  return *reinterpret_cast<const uint32_t*>(&x);
}
template <> __device__ __forceinline__ uint32_t positive_part<__half>(uint32_t both) {
  const __half2 zero = __floats2half2_rn(0.f, 0.f), x = __hmax2_nan(*reinterpret_cast<const __half2*>(&both), zero);
  return *reinterpret_cast<const uint32_t*>(&x);
}

}  // namespace electra::cuda
