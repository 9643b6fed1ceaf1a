// What the backward kernels of Hopper share: 64 keys of a group of four warps meet 16 * blocks queries. Scores lie transposed, as in attention_backward.cuh: rows are
// keys, so that P and dS are the left operands of dV and dK from registers. Elements 8 * j … 8 * j + 7 of accumulators belong to the queries 16 * j and the next 15.
#pragma once
#include "cuda/attention_backward.cuh"
#include "cuda/attention_hopper.cuh"

namespace electra::cuda {

// d [64 rows of `left`] = left · rightᵀ, summed along both rows.
template <class T, int N> __device__ __forceinline__ void multiply_rows_by_rows(float (&d)[N / 2], const T* left, const T* right) {
  const Operand a = rows_operand(left), b = rows_operand(right);
#pragma unroll
  for (int k = 0; k < hopper_dim / 16; ++k) wgmma<N, T>(d, a + row_step * k, b + row_step * k, k > 0);
}

// d (+)= left · right, where left is in registers, [64 x 16 blocks], and `right` a tile of as many rows.
template <class T, int blocks> __device__ __forceinline__ void multiply_by_tile(float (&d)[hopper_dim / 2], const uint32_t (&left)[blocks][4], const T* right, bool accumulate) {
  const Operand b = columns_operand(right);
#pragma unroll
  for (int j = 0; j < blocks; ++j) wgmma<hopper_dim, T, Major::mn>(d, left[j], b + column_step * j, accumulate || j > 0);
}

__device__ __forceinline__ void pair_of_blocks(float (&pair)[2][4], const float* d) {
#pragma unroll
  for (int i = 0; i < 8; ++i) pair[i / 4][i % 4] = d[i];
}

// The draws of the warp's 16 keys, block `key_block` of their sequence, and 16 * blocks queries, the first of them packed row * heads + head `row`.
template <int blocks> __device__ __forceinline__ void draw_columns(Draws* draws, const PhiloxStream& stream, uint32_t row, int heads, int key_block) {
  __syncwarp();   // the last ones have been read
#pragma unroll 1   // all at once would take registers that accumulators need
  for (int i = 0; i < blocks / 2; ++i) make_draw(draws[i], stream, row + uint32_t(32 * i + lane_of_warp()) * heads, key_block);
  __syncwarp();
}

// Probabilities, the dropped ones marked by their sign, from scores; lse of the queries to base 2. `keys_left` of the warp's 16 keys are there.
template <class T, bool dropout, int blocks>
__device__ __forceinline__ void weigh_columns(uint32_t (&weights)[blocks][4], const float (&s)[8 * blocks], const float* lse, float factor, int keys_left, const Draws* draws,
                                              uint32_t thresholds) {
#pragma unroll
  for (int j = 0; j < blocks; ++j) {
    float pair[2][4];
    pair_of_blocks(pair, s + 8 * j);
    probabilities<T>(weights[j], pair, column_pairs(lse + 16 * j), factor, keys_left);
    if constexpr (dropout) {
      uint32_t words[2];
      read_draws_transposed(words, draws[j / 2], j % 2);
      mark_dropped(weights[j], words[0], words[1], thresholds);
    }
  }
}

// dS from dP of 64 queries, as operands, and in the tile [keys][64] for dQ: of the warp's 16 keys, rows row0 and on.
template <class T, bool dropout>
__device__ __forceinline__ void differentiate_columns(uint32_t (*ds)[4], const uint32_t (*weights)[4], const float* dp, const float* delta, T* tile, int row0) {
#pragma unroll
  for (int j = 0; j < box_rows / 16; ++j) {
    float pair[2][4];
    pair_of_blocks(pair, dp + 8 * j);
    score_gradients<T, dropout>(ds[j], weights[j], pair, column_pairs(delta + 16 * j));
    store_operand<box_rows>(tile, ds[j], row0, 16 * j);
  }
  fence_async_proxy();
}

// d = dS · K for 64 queries, whose tile [keys][64] is given, and 16 * steps keys. (The whole of it in a branch of its own: products of one group must not be.)
template <class T, int steps> __device__ __forceinline__ void multiply_transposed(float (&d)[hopper_dim / 2], const T* ds, const T* keys) {
  const Operand a = columns_operand(ds), b = columns_operand(keys);
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < steps; ++k) wgmma<hopper_dim, T, Major::mn, Major::mn>(d, a + column_step * k, b + column_step * k, k > 0);
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_hold(d);
}

// Writes factor * d, a warp's 16 rows of one head of a gradient [rows, heads, dim] from packed row `row` on, of which `count` are there.
template <class T> __device__ __forceinline__ void store_gradient_rows(void* gradient, const AttentionBackward& p, int64_t row, int head, const float (&d)[hopper_dim / 2], float factor, int count) {
  const float factors[2] = {factor, factor};
  store_rows(static_cast<T*>(gradient) + (row * p.heads + head) * p.dim, int64_t(p.heads) * p.dim, d, factors, count, p.dim);
}

}  // namespace electra::cuda
