// dk and dv of 128 keys, a warp per 16 of them, while the queries come by 64 at a time. Shared by classes (b) and (c) of the backward: the first goes over all keys in
// one block and sums dq in shared memory as well.
#pragma once
#include "cuda/attention_backward.cuh"
#include "cuda/attention_config.cuh"

namespace electra::cuda {

// 16 keys of a warp.
template <class T, int D, bool dropout> struct KeyRows {
  static constexpr bool in_registers = attention_config::BackwardKeys<D>::operands_in_registers;
  RowOperand<T, D, in_registers> key[1], value[1];
  float dk[1][D / 8][4], dv[1][D / 8][4];

  // The first of its keys in the sequence, of which at least one is there, and what it needs to know beside it.
  struct Place {
    const AttentionBackward& p;
    const Sequence& sequence;
    int head, key;
  };

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) dk[0][n][e] = dv[0][n][e] = 0.f;
  }

  // The tiles of K and V are there, these rows from row0 on.
  __device__ __forceinline__ void start(const T* keys, const T* values, int row0) {
    key[0].set(keys, row0);
    value[0].set(values, row0);
  }

  // Meets `count` queries, the first at `query0` in the sequence (a multiple of 64): the tiles hold 64 rows, zeros behind the last. lse (to base 2) and delta of
  // them are in shared memory; dS goes there, if a tile [keys][64] is given, in the rows from row0 on.
  __device__ __forceinline__ void step(const T* queries, const T* grads, const float* lse, const float* delta, int query0, int count, const Place& at,
                                       const PhiloxStream& stream, Draws& draws, T* score_tile, int row0) {
    const int lane = lane_of_warp(), keys_left = at.sequence.nk - at.key;
    const float factor = at.p.scale * log2_e;
    const uint32_t thresholds = threshold_pair(at.p.dropout.threshold);
#pragma unroll(D <= 64 ? 2 : 1)   // wider accumulators leave no registers for two at once
    for (int j = 0; j < 4; ++j) {
      if (16 * j >= count) break;
      uint32_t words[2];
      if constexpr (dropout) {
        if (j % 2 == 0) {
          __syncwarp();   // the last draws have been read
          make_draw(draws, stream, uint32_t(at.sequence.first_q + query0 + 16 * j + lane) * at.p.heads + at.head, at.key / 16);
          __syncwarp();
        }
        read_draws_transposed(words, draws, j % 2);
      }
      float s[1][2][4] = {}, dp[1][2][4] = {};
      multiply_columns<T, D>(s, key, queries, 16 * j);
      multiply_columns<T, D>(dp, value, grads, 16 * j);
      uint32_t weights[1][4], ds[1][4];
      probabilities<T>(weights[0], s[0], column_pairs(lse + 16 * j), factor, keys_left);
      if (at.p.causal) hide(weights[0], query0 + 16 * j, at);
      if constexpr (dropout) mark_dropped(weights[0], words[0], words[1], thresholds);
      score_gradients<T, dropout>(ds[0], weights[0], dp[0], column_pairs(delta + 16 * j));
      if (score_tile) store_operand<attention_config::BackwardKeys<D>::queries>(score_tile, ds[0], row0, 16 * j);
      keep<T, dropout>(weights[0]);
      multiply_rows<T, D>(dv, weights, grads, 16 * j);
      multiply_rows<T, D>(dk, ds, queries, 16 * j);
    }
  }

  __device__ __forceinline__ void finish(const Place& at) {
    const AttentionBackward& p = at.p;
    store_gradient<T>(p.dk, p, at.sequence.first_k + at.key, at.head, dk[0], p.scale * p.dropout.scale, at.sequence.nk - at.key);
    store_gradient<T>(p.dv, p, at.sequence.first_k + at.key, at.head, dv[0], p.dropout.scale, at.sequence.nk - at.key);
  }

 private:
  // Makes the probabilities of 16 queries zero where the causal mask hides the key.
  __device__ __forceinline__ void hide(uint32_t (&p)[4], int query, const Place& at) {
    const int last = query + at.sequence.nk - at.sequence.nq - at.key;   // the last of these keys that the first of these queries sees
    if (last >= 15) return;
    const int lane = lane_of_warp(), group = lane >> 2, t = lane & 3;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = group + 8 * (i % 2), column = 2 * t + 8 * (i / 2);
      p[i] &= (row <= last + column ? 0xffffu : 0u) | (row <= last + column + 1 ? 0xffff0000u : 0u);
    }
  }
};

}  // namespace electra::cuda
