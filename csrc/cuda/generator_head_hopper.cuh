// What becomes of the logits of generator_head's sweep on Hopper (generator_head_forward_sm90.cu): a warp's 16 slots x 256 columns, as wgmma leaves them.
#pragma once
#include "common/philox.h"
#include "cuda/dropout.cuh"
#include "cuda/exponent.cuh"
#include "cuda/generator_head_forward.cuh"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {

// Logits of a warp's 16 slots: d[4 * (8q + j) + 2h + e] belongs to row 8h + lane/4 and column 64q + 8j + 2 * (lane%4) + e of the tile.
using Logits = float[hopper_columns / 2];

// A consumer warp's results. The four lanes of a row know the same of it, but for the mass, of which each has the part of one group in four.
template <bool plain> struct HopperVisitor {
  const SweepArguments& call;
  int lane, row, part, first_tile;   // row: of the warp's 16
  PhiloxStream stream;
  PhiloxCounter draw[2];             // of one of four tiles each
  int target[2];                     // -1: none to leave out
  float top[2], mass[2], score[2];
  int top_group[2], score_group[2];

  __device__ HopperVisitor(const SweepArguments& call_, int row_, int part_, int first_tile_)
      : call(call_), lane(int(threadIdx.x) % 32), row(row_), part(part_), first_tile(first_tile_), stream(random_stream(call_.rng, call_.site)) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      target[h] = !plain && call.disallow_correct && slot(h) < call.slots ? int(call.targets[slot(h)]) : -1;
      top[h] = score[h] = -INFINITY;
      mass[h] = 0.f;
      top_group[h] = score_group[h] = 0;
    }
  }

  __device__ __forceinline__ int slot(int h) const { return row + 8 * h + lane / 4; }

  // Of one group of a row: its largest logit and its sum of exponentials, less the column `without` if that is among this lane's. `scaled`: of the sampler's exponents.
  template <bool scaled> __device__ __forceinline__ void statistics(const Logits& d, int q, int h, int without, float& peak, float& sum) const {
    const auto exponent = [&](int c) {
      const float x = d[4 * (8 * q + c / 2) + 2 * h + c % 2];
      return scaled ? (64 * q + 8 * (c / 2) + c % 2 == without ? -INFINITY : x * call.sharpness) : x;
    };
    peak = -INFINITY;
#pragma unroll
    for (int c = 0; c < 16; ++c) peak = fmaxf(peak, exponent(c));
    peak = warp_max<4>(peak);
    const float base = scaled ? (peak == -INFINITY ? 0.f : peak) : exponent_base(peak);
    sum = 0.f;
#pragma unroll
    for (int c = 0; c < 16; ++c) sum += fast_exp2(scaled ? exponent(c) - base : fmaf(exponent(c), log2_e, -base));
    sum = warp_sum<4>(sum);
  }

  // Lane t of a row gets word t of the tile's call, which lane s of the four has made.
  __device__ __forceinline__ uint32_t word_of(int h, int s) const {
    const int from = (lane & ~3) + s;
    const uint32_t w0 = __shfl_sync(full_warp, draw[h].c0, from), w1 = __shfl_sync(full_warp, draw[h].c1, from), w2 = __shfl_sync(full_warp, draw[h].c2, from),
                   w3 = __shfl_sync(full_warp, draw[h].c3, from);
    return philox_word({w0, w1, w2, w3}, lane % 4);
  }

  // Bit of each lane whose group is the first with the row's largest value, where that is more than `best`, which it becomes.
  __device__ __forceinline__ uint32_t improve(float value, float& best, int& best_group, int tile) const {
    const float largest = warp_max<4>(value);
    const uint32_t equal = __ballot_sync(full_warp, value == largest) >> (lane & ~3) & 15u;
    const int group = __ffs(int(equal)) - 1;
    const bool better = largest > best;
    if (better) {
      best = largest;
      best_group = tile * groups_per_draw + group;
    }
    return __ballot_sync(full_warp, better && lane % 4 == group);
  }

  __device__ __forceinline__ void keep(const Logits& d, const uint32_t (&better)[2], float* store) const {
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if ((better[h] & 0x11111111u << q) == 0) continue;
        if ((better[h] >> (lane & ~3) >> q & 1) == 0) continue;
        float* out = store + (int64_t(part) * call.partials.rows + slot(h)) * group_columns + 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < 8; ++j) store_vector<2>(out + 8 * j, {d[4 * (8 * q + j) + 2 * h], d[4 * (8 * q + j) + 2 * h + 1]});
      }
  }

  __device__ __forceinline__ void visit(Logits& d, const float* bias, int tile) {
#pragma unroll
    for (int j = 0; j < hopper_columns / 8; ++j) {
      float b[2];
      load_vector<2>(bias + 8 * j + 2 * (lane % 4), b);
#pragma unroll
      for (int e = 0; e < 4; ++e) d[4 * j + e] += b[e % 2];
    }
    const int s = (tile - first_tile) % 4;
    if (s == 0)
#pragma unroll
      for (int h = 0; h < 2; ++h) draw[h] = philox_draw(stream, uint32_t(slot(h)), uint32_t(tile + lane % 4));

    float peak[2], sum[2], sample_peak[2], sample_sum[2];   // of group lane%4; the sampler's peak as an exponent of base 2
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float p, m;
        statistics<false>(d, q, h, -1, p, m);
        if (lane % 4 == q) {
          peak[h] = p;
          sum[h] = m;
        }
        if constexpr (!plain) {
          statistics<true>(d, q, h, target[h] < 0 ? -1 : target[h] - tile * hopper_columns - 2 * (lane % 4), p, m);
          if (lane % 4 == q) {
            sample_peak[h] = p;
            sample_sum[h] = m;
          }
        }
      }

    uint32_t better_top[2], better_score[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float before = top[h];
      better_top[h] = improve(peak[h], top[h], top_group[h], tile);
      const float base = exponent_base(top[h]);
      mass[h] = mass[h] * fast_exp2(before * log2_e - base) + sum[h] * fast_exp2(peak[h] * log2_e - base);
      if constexpr (plain) {
        sample_peak[h] = exponent_base(peak[h]);
        sample_sum[h] = sum[h];
      }
      const float exponential = -log1pf(-sampler_uniform(word_of(h, s)));
      better_score[h] = improve(sample_peak[h] + fast_log2(sample_sum[h]) - fast_log2(exponential), score[h], score_group[h], tile);
    }
    keep(d, better_top, call.partials.top_logits);
    keep(d, better_score, call.partials.score_logits);
  }

  __device__ __forceinline__ void store() const {
    const GeneratorPartials& p = call.partials;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t at = int64_t(part) * p.rows + slot(h);
      const float sum = warp_sum<4>(mass[h]);
      if (lane % 4 != 0) continue;
      p.top[at] = top[h];
      p.mass[at] = sum;
      p.score[at] = score[h];
      p.top_group[at] = top_group[h];
      p.score_group[at] = score_group[h];
    }
  }
};

}  // namespace electra::cuda
