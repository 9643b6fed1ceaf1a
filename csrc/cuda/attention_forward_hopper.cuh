// What a group of four warps of the forward on Hopper does with its 64 queries: products by wgmma, and between them the online softmax and dropout.
#pragma once
#include "cuda/attention_hopper.cuh"
#include "cuda/reduce.cuh"

namespace electra::cuda {

// 64 queries of one group of warps; a thread has rows group and group+8 of its warp's 16. Element 4 * j + 2 * half + e of accumulators: row group + 8 * half,
// column 8 * j + 2 * (lane % 4) + e.
template <class T, bool dropout> struct HopperQueries {
  const AttentionForward& p;
  float out[hopper_dim / 2], largest[2], mass[2];   // of this thread's columns, relative to largest (of the scores so far)

  __device__ __forceinline__ explicit HopperQueries(const AttentionForward& p_) : p(p_) {}

  __device__ __forceinline__ void start() {
#pragma unroll
    for (int i = 0; i < hopper_dim / 2; ++i) out[i] = 0.f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      largest[half] = -INFINITY;
      mass[half] = 0.f;
    }
  }

  // Asks for the scores with `count` keys. What was asked for before may be under way still.
  template <int count> __device__ __forceinline__ void multiply_keys(float (&s)[count / 2], Operand queries, Operand keys) const {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < hopper_dim / 16; ++k) wgmma<count, T>(s, queries + row_step * k, keys + row_step * k, k > 0);
    wgmma_commit();
  }

  // The draws of the warp's 16 rows, the first of them packed row * heads + head `row`, and the keys of blocks first_block and on, 16 each.
  template <int count> __device__ __forceinline__ void draw(Draws (&draws)[2][2], const PhiloxStream& stream, uint32_t row, int first_block) const {
    const int lane = lane_of_warp();
    __syncwarp();   // the last ones have been read
#pragma unroll 1   // all at once would take registers that accumulators need
    for (int i = 0; i < count / 32; ++i)
      make_draw(draws[i / 2][i % 2], stream, row + uint32_t(8 * (i % 2) + (lane & 7)) * p.heads, first_block + i / 2 * 4 + (lane >> 3));
    __syncwarp();
  }

  // From scores to weights: the online softmax (Milakov and Gimelshein 2018; Dao et al. 2022), then dropout.
  template <int count> __device__ __forceinline__ void weigh(uint32_t (&weights)[count / 16][4], float (&s)[count / 2], int keys_left, const Draws (&draws)[2][2]) {
    const float factor = exponent_factor(p.scale);
    if (keys_left < count) {
      const int seen = keys_left - 2 * (lane_of_warp() & 3);
#pragma unroll
      for (int i = 0; i < count / 2; ++i) s[i] = 8 * (i / 4) + i % 2 < seen ? s[i] : -INFINITY;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = largest[half];
#pragma unroll
      for (int j = 0; j < count / 8; ++j) top = fmaxf(top, fmaxf(s[4 * j + 2 * half], s[4 * j + 2 * half + 1]));
      top = warp_max<4>(top);
      const float base = top == -INFINITY ? 0.f : top * factor, shrink = fast_exp2(largest[half] * factor - base);
      largest[half] = top;
      float sum = mass[half] * shrink;
#pragma unroll
      for (int j = 0; j < count / 8; ++j)
#pragma unroll
        for (int i = 4 * j + 2 * half; i < 4 * j + 2 * half + 2; ++i) {
          s[i] = fast_exp2(s[i] * factor - base);
          sum += s[i];
        }
      mass[half] = sum;
#pragma unroll
      for (int n = 0; n < hopper_dim / 8; ++n) {
        out[4 * n + 2 * half] *= shrink;
        out[4 * n + 2 * half + 1] *= shrink;
      }
    }
    const uint32_t thresholds = threshold_pair(p.dropout.threshold);
#pragma unroll
    for (int k = 0; k < count / 16; ++k) {
      pack_columns<T>(weights[k], s, 8 * k);
      if constexpr (dropout) {
        uint32_t words[2];
        read_draws(words, draws[k / 4], k % 4);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          weights[k][half] &= keep_pair<false>(words[half], thresholds);
          weights[k][2 + half] &= keep_pair<true>(words[half], thresholds);
        }
      }
    }
  }

  // Asks for the sums with `count` rows of V.
  template <int count> __device__ __forceinline__ void multiply_values(const uint32_t (&weights)[count / 16][4], Operand values) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < count / 16; ++k) wgmma<hopper_dim, T, Major::mn>(out, weights[k], values + column_step * k, true);
    wgmma_commit();
  }

  // Divides by the mass and writes the warp's rows, of which `count` are there and the first is `row` of the packed ones, and their log-sum-exp.
  __device__ __forceinline__ void finish(int64_t row, int head, int count) const {
    const int lane = lane_of_warp();
    const float factor = exponent_factor(p.scale);
    float norm[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = warp_sum<4>(mass[half]), top = largest[half] == -INFINITY ? 0.f : largest[half] * factor;
      norm[half] = total == 0.f ? 0.f : p.dropout.scale / total;
      const int own = 8 * half + (lane >> 2);
      if ((lane & 3) == 0 && own < count) p.lse[head * p.rows_q + row + own] = total == 0.f ? -INFINITY : (top + log2f(total)) * ln_2;
    }
    store_rows(static_cast<T*>(p.out) + (row * p.heads + head) * p.dim, int64_t(p.heads) * p.dim, out, norm, count, p.dim);
  }
};

}  // namespace electra::cuda
