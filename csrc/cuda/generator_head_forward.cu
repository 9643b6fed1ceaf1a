// Forward of generator_head: one sweep over the vocabulary, then one warp a slot.
//
// A block takes 128 (or 256) slots and a part of the vocabulary. Of each tile's 64 columns, one group of the sampler, it needs the largest logit and the sum of
// exponentials; from them follow the running log-sum-exp and the group's score (Gumbel-max over groups, docs/design.md). Neither the argmax nor the sample is looked
// for: when a group becomes a slot's best so far, in either sense, its 64 logits are stored, and the finishing kernel picks the column (generator_head_finish.cu).
//
// Roofline at K = 128: 2 P V K FLOP on the tensor cores, P V exponentials (16 a clock and multiprocessor) and about 5 further instructions a logit; the sweep reads
// the weight once for every 128 slots, from L2. docs/notes/cuda-generator-head.md.
#include "common/philox.h"
#include "cuda/dropout.cuh"
#include "cuda/exponent.cuh"
#include "cuda/generator_head.h"
#include "cuda/generator_head_forward.cuh"
#include "cuda/generator_head_tiles.cuh"

namespace electra::cuda {
namespace {

// `plain`: temperature 1 and every column allowed, so that the exponentials of the log-sum-exp are the sampler's.
template <bool plain> struct ForwardVisitor {
  const SweepArguments& call;
  int lane, half;
  int row;                       // first of the warp's 64, among the padded rows
  int part;                      // slot of the partials' layout that this warp fills
  PhiloxStream stream;
  PhiloxCounter draw[2];
  int target[2];                 // -1: none to leave out
  float top[2], mass[2], score[2];
  int top_group[2], score_group[2];

  __device__ ForwardVisitor(const SweepArguments& call_, int row_, int part_, int half_)
      : call(call_), lane(int(threadIdx.x) % 32), half(half_), row(row_), part(part_), stream(random_stream(call_.rng, call_.site)) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int slot = row + own_row(lane, h);
      target[h] = !plain && call.disallow_correct && slot < call.slots ? int(call.targets[slot]) : -1;
      top[h] = score[h] = -INFINITY;
      mass[h] = 0.f;
      top_group[h] = score_group[h] = 0;
    }
  }

  __device__ __forceinline__ void begin(LogitTile& d, const float* bias) const {
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      float b[4];
      load_vector<4>(bias + 16 * (lane % 4) + 2 * j, b);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          d[i][j][e] = b[e % 2];
          d[i][j + 1][e] = b[2 + e % 2];
        }
    }
  }

  // Largest of `factor` times a row's logits and the sum of 2^(that times log2(e) - its base), of the columns but `without` (of 64; none if negative).
  template <bool scaled> __device__ __forceinline__ void statistics(const LogitTile& d, int i, int h, int without, float& peak, float& sum) const {
    // Of a scaled logit the exponent of base 2 is kept, which is what the sharpness makes of it.
    const auto exponent = [&](int c) {
      const float x = d[i][c / 2][2 * h + c % 2];
      return scaled ? (c == without ? -INFINITY : x * call.sharpness) : x;
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

  // Stores the 64 logits of the rows that `better` names, one bit a lane for the row it owns.
  __device__ __forceinline__ void keep(const LogitTile& d, const uint32_t (&better)[2], float* store) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if ((better[h] & 0x11111111u << i) == 0) continue;
        if ((better[h] >> (lane & ~3) >> i & 1) == 0) continue;
        float* out = store + (int64_t(part) * call.partials.rows + row + 16 * i + 8 * h + lane / 4) * group_columns + 16 * (lane % 4);
#pragma unroll
        for (int j = 0; j < 8; j += 2) store_vector<4>(out + 2 * j, {d[i][j][2 * h], d[i][j][2 * h + 1], d[i][j + 1][2 * h], d[i][j + 1][2 * h + 1]});
      }
  }

  __device__ __forceinline__ void end(LogitTile& d, const float*, int tile) {
    const int word = tile % groups_per_draw, first = first_of_group<groups_per_draw>(tile, half), group = first / group_columns;
    if (word == 0)
#pragma unroll
      for (int h = 0; h < 2; ++h) draw[h] = philox_draw(stream, uint32_t(row + own_row(lane, h)), uint32_t(group / groups_per_draw));

    float peak[2], sum[2], sample_peak[2], sample_sum[2];   // of the rows this lane owns; the sampler's peak as an exponent of base 2
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float p, s;
        statistics<false>(d, i, h, -1, p, s);
        if (lane % 4 == i) {
          peak[h] = p;
          sum[h] = s;
        }
        if constexpr (!plain) {
          const int without = from_owner(target[h], lane, i) - first - 16 * (lane % 4);
          statistics<true>(d, i, h, without >= 0 && without < 16 ? without : -1, p, s);
          if (lane % 4 == i) {
            sample_peak[h] = p;
            sample_sum[h] = s;
          }
        }
      }

    uint32_t better_top[2], better_score[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float now = fmaxf(top[h], peak[h]), base = exponent_base(now);
      mass[h] = mass[h] * fast_exp2(top[h] * log2_e - base) + sum[h] * fast_exp2(peak[h] * log2_e - base);
      if constexpr (plain) {
        sample_peak[h] = exponent_base(peak[h]);
        sample_sum[h] = sum[h];
      }
      const float exponential = -log1pf(-sampler_uniform(philox_word(draw[h], word)));
      const float scored = sample_peak[h] + fast_log2(sample_sum[h]) - fast_log2(exponential);
      const bool is_top = peak[h] > top[h], is_best = scored > score[h];
      better_top[h] = __ballot_sync(full_warp, is_top);
      better_score[h] = __ballot_sync(full_warp, is_best);
      top_group[h] = is_top ? group : top_group[h];
      score_group[h] = is_best ? group : score_group[h];
      score[h] = is_best ? scored : score[h];
      top[h] = now;
    }
    keep(d, better_top, call.partials.top_logits);
    keep(d, better_score, call.partials.score_logits);
  }

  __device__ __forceinline__ void store() const {
    const GeneratorPartials& p = call.partials;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t at = int64_t(part) * p.rows + row + own_row(lane, h);
      p.top[at] = top[h];
      p.mass[at] = mass[h];
      p.score[at] = score[h];
      p.top_group[at] = top_group[h];
      p.score_group[at] = score_group[h];
    }
  }
};

template <class T, int variant, bool plain>
__global__ void __launch_bounds__(Sweep<variant>::threads, Sweep<variant>::blocks_per_multiprocessor) generator_sweep_kernel(SweepArguments call) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, shared);
  using S = Sweep<variant>;
  const int first = int(blockIdx.x) * S::rows, part = int(blockIdx.y);
  if (!any_used<S::rows, S::threads>(call, first)) return;

  const int warp = int(threadIdx.x) / 32, half = warp / S::warps_m;
  ForwardVisitor<plain> visitor(call, first + warp % S::warps_m * 64, 2 * part + half, half);
  const int tile = part * call.tiles_per_part, end = tile + call.tiles_per_part;
  sweep<variant, groups_per_draw>(MatrixRows<T>{static_cast<const T*>(call.hidden), first, call.slots}, MatrixRows<T>{static_cast<const T*>(call.weight), 0, call.columns},
                                  call.bias, call.features, tile, end < call.tiles ? end : call.tiles, shared, visitor);
  visitor.store();
}

template <class T, int variant> cudaError_t launch_sweep(const SweepArguments& call, bool plain, dim3 grid, cudaStream_t stream) {
  const size_t bytes = size_t(sweep_shared_bytes(variant, call.features, sizeof(float)));
  if (plain) return ELECTRA_LAUNCH((generator_sweep_kernel<T, variant, true>), grid, dim3(Sweep<variant>::threads), bytes, stream, call);
  return ELECTRA_LAUNCH((generator_sweep_kernel<T, variant, false>), grid, dim3(Sweep<variant>::threads), bytes, stream, call);
}

}  // namespace

cudaError_t generator_device(GeneratorDevice& device) {
  int number = 0;
  cudaError_t error = cudaGetDevice(&number);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, number);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&device.shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, number);
  return error;
}

int64_t generator_forward_workspace(const GeneratorProblem& problem) { return forward_layout(problem, nullptr).bytes; }

cudaError_t generator_forward(const GeneratorForward& call, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  if (p.slots == 0) return cudaSuccess;
  const ForwardLayout layout = forward_layout(p, call.workspace);
  cudaError_t error = pad_bias(p.bias, p.type, layout.bias, p.columns, layout.padded_columns, stream);
  if (error != cudaSuccess) return error;

  const SweepArguments arguments = {p.hidden, p.weight, layout.bias, p.targets, call.rng, call.site, int(p.slots), int(p.columns), p.features, int(layout.tiles),
                                    int(layout.tiles_per_part), float(1.4426950408889634 / call.temperature), call.disallow_correct, layout.partials};
  const bool plain = call.temperature == 1.0 && !call.disallow_correct;
  const dim3 grid(unsigned(layout.blocks), unsigned(layout.parts));
  if (layout.hopper) {
    error = launch_hopper_sweep(arguments, p.type, plain, grid, stream);
  } else {
    error = dispatch_16_bit(p.type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      switch (sweep_variant(p.features, p.device.shared_limit)) {
        case 0: return launch_sweep<T, 0>(arguments, plain, grid, stream);
        case 1: return launch_sweep<T, 1>(arguments, plain, grid, stream);
        default: return launch_sweep<T, 2>(arguments, plain, grid, stream);
      }
    });
  }
  return error != cudaSuccess ? error : finish_forward(call, layout, stream);
}

}  // namespace electra::cuda
