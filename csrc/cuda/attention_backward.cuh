// The gradient of the scores, 16 queries at a time. With P the probabilities, M the dropout factor and delta_i = sum_j P_ij M_ij dP_ij (= rowsum(dO ∘ O)):
//
//   dV = (P ∘ M)ᵀ dO      dP = dO Vᵀ      dS = P ∘ (M ∘ dP - delta)      dQ = scale · dS K      dK = scale · dSᵀ Q
//
// M is 0 or 256/threshold. That constant is taken out: dP is masked only, delta is stored divided by it, and it enters once, where a gradient is written.
//
// Here a warp owns 16 keys and the scores lie transposed (rows are keys, columns queries): P and dS, rounded to 16 bits, are then themselves the left operands of
// dV and dK, from registers. The sign of a rounded probability is free, and says whether dropout drops it.
#pragma once
#include "cuda/attention_launch.h"
#include "cuda/attention_math.cuh"
#include "cuda/attention_sequence.cuh"
#include "cuda/attention_tile.cuh"

namespace electra::cuda {

// The log-sum-exp of a row to base 2; rows that are not there or see no key weigh 2^-inf = 0.
__device__ __forceinline__ float base_2(float lse) { return lse == -INFINITY ? INFINITY : lse * log2_e; }

// Of 16 queries, those whose columns this thread holds: 2t, 2t+1 and 8 more.
struct ColumnPairs { float2 low, high; };
__device__ __forceinline__ ColumnPairs column_pairs(const float* of_queries) {
  const int column = 2 * (lane_of_warp() & 3);
  return {*reinterpret_cast<const float2*>(of_queries + column), *reinterpret_cast<const float2*>(of_queries + column + 8)};
}

// Probabilities of 16 keys x 16 queries from their scores, as the operand [16 keys x 16 queries]. `keys_left` keys of the 16 are there.
template <class T> __device__ __forceinline__ void probabilities(uint32_t (&p)[4], float (&s)[2][4], const ColumnPairs& lse, float factor, int keys_left) {
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    s[0][e] = fast_exp2(s[0][e] * factor - (e % 2 ? lse.low.y : lse.low.x));
    s[1][e] = fast_exp2(s[1][e] * factor - (e % 2 ? lse.high.y : lse.high.x));
  }
  pack_operand<T>(p, s[0], s[1]);
  if (keys_left < 16) {   // their scores are 0, not their probabilities
    const int group = lane_of_warp() >> 2;
    if (group >= keys_left) p[0] = p[2] = 0;
    if (group + 8 >= keys_left) p[1] = p[3] = 0;
  }
}

// Marks the dropped of 16 keys x 16 queries; the words are those of its two blocks of eight queries.
__device__ __forceinline__ void mark_dropped(uint32_t (&p)[4], uint32_t low, uint32_t high, uint32_t thresholds) {
  p[0] |= ~keep_pair<false>(low, thresholds) & 0x80008000u;
  p[1] |= ~keep_pair<true>(low, thresholds) & 0x80008000u;
  p[2] |= ~keep_pair<false>(high, thresholds) & 0x80008000u;
  p[3] |= ~keep_pair<true>(high, thresholds) & 0x80008000u;
}

// P ∘ M without its constant, of an operand P.
template <class T, bool dropout> __device__ __forceinline__ void keep(uint32_t (&p)[4]) {
  if constexpr (dropout) {
#pragma unroll
    for (int i = 0; i < 4; ++i) p[i] = positive_part<T>(p[i]);
  }
}

// P ∘ M without its constant, of two neighbours.
template <class T, bool dropout> __device__ __forceinline__ float2 kept_pair(uint32_t p) {
  const float2 weight = unpack<T>(p);
  if constexpr (!dropout) return weight;
  return {fmaxf(weight.x, 0.f), fmaxf(weight.y, 0.f)};
}

// dS = P ∘ (masked dP - delta), rounded: [16 keys x 16 queries] as an operand.
template <class T, bool dropout>
__device__ __forceinline__ void score_gradients(uint32_t (&ds)[4], const uint32_t (&p)[4], const float (&dp)[2][4], const ColumnPairs& delta) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 weight = unpack<T>(p[i]), kept_weight = kept_pair<T, dropout>(p[i]), mean = i < 2 ? delta.low : delta.high;
    const float x = dp[i / 2][2 * (i % 2)], y = dp[i / 2][2 * (i % 2) + 1];
    if constexpr (dropout) ds[i] = pack<T>(kept_weight.x * x - fabsf(weight.x) * mean.x, kept_weight.y * y - fabsf(weight.y) * mean.y);
    else ds[i] = pack<T>(weight.x * (x - mean.x), weight.y * (y - mean.y));
  }
}

// Adds over the 16 keys of the warp, for 32 queries: what the thread holds of four blocks of eight queries becomes, in every lane, the sum of one query, the one
// at 8 * (lane / 8) + 2 * (lane % 4) + (lane / 4) % 2. Three exchanges halve what is left to add.
__device__ __forceinline__ float sum_over_keys(float (&x)[8]) {
  const int lane = lane_of_warp();
#pragma unroll
  for (int bit = 16, n = 4; n > 0; bit /= 2, n /= 2)
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const bool upper = lane & bit;
      const float received = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + n], bit);
      x[i] = (upper ? x[i + n] : x[i]) + received;
    }
  return x[0];
}

// Writes an operand [16 x 16] to the tile [rows][N], rows from row0 and columns from column0 on.
template <int N, class T> __device__ __forceinline__ void store_operand(T* tile, const uint32_t (&a)[4], int row0, int column0) {
  const int lane = lane_of_warp(), group = lane >> 2, t = lane & 3;
#pragma unroll
  for (int i = 0; i < 4; ++i) *reinterpret_cast<uint32_t*>(tile + row0 * N + swizzled<N>(group + 8 * (i % 2), column0 / 8 + i / 2) + 2 * t) = a[i];
}

// Writes factor * sum, 16 rows of one head of a gradient [rows, heads, dim] from packed row `row` on, of which `count` are there; columns from `column0` on.
template <class T, int N>
__device__ __forceinline__ void store_gradient(void* gradient, const AttentionProblem& p, int64_t row, int head, const float (&sum)[N][4], float factor, int count, int column0 = 0) {
  T* rows = static_cast<T*>(gradient) + (row * p.heads + head) * p.dim + column0;
  const float factors[2] = {factor, factor};
  store_tile<T>(rows, int64_t(p.heads) * p.dim, sum, factors, count, p.dim - column0);
}

}  // namespace electra::cuda
