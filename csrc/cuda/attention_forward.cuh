// The online softmax (Milakov and Gimelshein 2018; Dao et al. 2022) of one warp: its rows of queries meet the keys 64 at a time. Shared by classes (b) and (c) of the
// forward, which differ in where K and V lie.
#pragma once
#include "cuda/attention_launch.h"
#include "cuda/attention_math.cuh"
#include "cuda/attention_sequence.cuh"
#include "cuda/attention_tile.cuh"
#include "cuda/reduce.cuh"

namespace electra::cuda {

inline constexpr int keys_of_step = 64;

// 16 * tiles query rows of a warp. Accumulator element e of a tile belongs to row group + 8 * (e / 2).
template <class T, int D, int tiles, bool dropout> struct QueryRows {
  using Draws = electra::cuda::Draws[2 * tiles];   // of one step, for eight rows each

  RowOperand<T, D, tiles == 1> query[tiles];   // two tiles of scores and outputs leave it no registers
  float out[tiles][D / 8][4];
  float largest[tiles][2];   // of the scores so far
  float mass[tiles][2];      // of this thread's columns, relative to largest

  // The tile of queries is in shared memory, this warp's rows from row0 on.
  __device__ __forceinline__ void start(const T* queries, int row0, float scale) {
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      query[m].set(queries, row0 + 16 * m, sign_flip(scale));
#pragma unroll
      for (int n = 0; n < D / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) out[m][n][e] = 0.f;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        largest[m][half] = -INFINITY;
        mass[m][half] = 0.f;
      }
    }
  }

  // What step needs to know of the place: `row` is the first query of this warp inside the sequence, `key` the first of the 64 keys.
  struct Place {
    const AttentionForward& p;
    const Sequence& sequence;
    int head, row, key;
  };

  // Makes the draws of the next step. It needs no keys, so it may come before they do. One call after the other: together they would take the registers of the step.
  __device__ __forceinline__ void draw(Draws& draws, const Place& at, const PhiloxStream& stream) {
    if constexpr (!dropout) return;
    const int lane = lane_of_warp();
    __syncwarp();   // the last ones have been read
#pragma unroll 1
    for (int i = 0; i < 2 * tiles; ++i)
      make_draw(draws[i], stream, uint32_t(at.sequence.first_q + at.row + 8 * i + (lane & 7)) * at.p.heads + at.head, at.key / 16 + (lane >> 3));
  }

  // Takes in 64 keys. Keys behind the last hold zeros in both tiles.
  __device__ __forceinline__ void step(const T* keys, const T* values, const Place& at, float factor, const Draws& draws) {
    float s[tiles][8][4] = {};
#pragma unroll
    for (int kk = 0; kk < D / 16; ++kk) {
      uint32_t q[tiles][4];
#pragma unroll
      for (int m = 0; m < tiles; ++m) query[m].get(q[m], kk);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        uint32_t k[4];
        load_b<D>(k, keys, 16 * j, kk);
#pragma unroll
        for (int m = 0; m < tiles; ++m) {
          mma_m16n8k16<T>(s[m][2 * j], q[m], k[0], k[1]);
          mma_m16n8k16<T>(s[m][2 * j + 1], q[m], k[2], k[3]);
        }
      }
    }
    if (at.key + keys_of_step > at.sequence.visible_keys(at.row, at.p.causal)) hide(s, at);
    uint32_t weights[4][tiles][4];
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) rescale(s[m], m, half, factor);
#pragma unroll
      for (int j = 0; j < 4; ++j) pack_operand<T>(weights[j][m], s[m][2 * j], s[m][2 * j + 1]);
    }
    if constexpr (dropout) drop(weights, threshold_pair(at.p.dropout.threshold), draws);
#pragma unroll
    for (int j = 0; j < 4; ++j) multiply_rows<T, D>(out, weights[j], values, 16 * j);
  }

  // Divides by the mass and writes the rows below nq, and their log-sum-exp.
  __device__ __forceinline__ void finish(const Place& at) {
    const AttentionForward& p = at.p;
    const int lane = lane_of_warp();
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      float norm[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = at.row + 16 * m + 8 * half + (lane >> 2);
        const float total = warp_sum<4>(mass[m][half]), top = largest[m][half] == -INFINITY ? 0.f : largest[m][half] * exponent_factor(p.scale);
        norm[half] = total == 0.f ? 0.f : p.dropout.scale / total;
        if ((lane & 3) == 0 && row < at.sequence.nq)
          p.lse[at.head * p.rows_q + at.sequence.first_q + row] = total == 0.f ? -INFINITY : (top + log2f(total)) * ln_2;
      }
      T* rows = static_cast<T*>(p.out) + (int64_t(at.sequence.first_q + at.row + 16 * m) * p.heads + at.head) * p.dim;
      store_tile<T>(rows, int64_t(p.heads) * p.dim, out[m], norm, at.sequence.nq - at.row - 16 * m, p.dim);
    }
  }

 private:
  __device__ __forceinline__ void hide(float (&s)[tiles][8][4], const Place& at) {
    const int lane = lane_of_warp();
#pragma unroll
    for (int m = 0; m < tiles; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int seen = at.sequence.visible_keys(at.row + 16 * m + 8 * half + (lane >> 2), at.p.causal) - at.key - 2 * (lane & 3);
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) s[m][n][2 * half + e] = 8 * n + e < seen ? s[m][n][2 * half + e] : -INFINITY;
      }
  }

  // From scores to probabilities relative to the new maximum; what was summed so far follows.
  __device__ __forceinline__ void rescale(float (&s)[8][4], int m, int half, float factor) {
    float top = largest[m][half];
#pragma unroll
    for (int n = 0; n < 8; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    top = warp_max<4>(top);
    const float base = top == -INFINITY ? 0.f : top * factor, shrink = fast_exp2(largest[m][half] * factor - base);
    largest[m][half] = top;
    float sum = mass[m][half] * shrink;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        s[n][e] = fast_exp2(s[n][e] * factor - base);
        sum += s[n][e];
      }
    mass[m][half] = sum;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      out[m][n][2 * half] *= shrink;
      out[m][n][2 * half + 1] *= shrink;
    }
  }

  __device__ __forceinline__ void drop(uint32_t (&weights)[4][tiles][4], uint32_t thresholds, const Draws& draws) {
    __syncwarp();   // the draws are there
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t words[2 * tiles];
      read_draws(words, draws, j);
#pragma unroll
      for (int m = 0; m < tiles; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          weights[j][m][half] &= keep_pair<false>(words[2 * m + half], thresholds);
          weights[j][m][2 + half] &= keep_pair<true>(words[2 * m + half], thresholds);
        }
    }
  }
};

}  // namespace electra::cuda
