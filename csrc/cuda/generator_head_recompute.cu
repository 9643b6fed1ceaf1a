// Backward of generator_head without storing anything of the size of the logits, for few features: two kernels, each of which recomputes the logits it needs.
//
//   dhidden: a block owns 128 slots and lets the weight's rows pass; dweight and dbias: it owns 128 rows of the weight and lets the slots pass.
//
// Both are the same loop as attention's forward with keys and values the same rows: s = own · passingᵀ, d from s in registers, sum += d · passing. The block's own
// rows of the sum, 128 x 128 floats, stay in registers. 8 P V K FLOP instead of the 6 of the chunks, but nothing to memory for them; tensor cores are the bound.
// A dhidden is cut into parts of the vocabulary, whose sums are added in order.
#include <type_traits>

#include "cuda/copy.h"
#include "cuda/exponent.cuh"
#include "cuda/generator_head_backward.cuh"
#include "cuda/mma.h"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {
namespace {

constexpr int own_rows = 32;   // of a warp
static_assert(recompute_rows == 4 * own_rows && recompute_threads == 128 && recompute_passing == 64);

struct RecomputeArguments {
  const void *own, *passing;        // [owns, features], [passings, features]: hidden and weight, or weight and hidden
  const float* bias;                // padded, -inf behind the last column
  const SlotGradient* described;
  const BackwardState* state;
  int owns, passings, features;
  // dhidden
  float* partials;                  // [parts][padded_slots][features]
  int padded_slots, passing_per_part;
  // dweight
  ParameterGradient dweight;
  float* dbias;                     // [padded columns], times d's scale
};

// A warp's tile of logits, 32 own rows and 32 passing: s[i][j][2h + e] belongs to own row 16i + 8h + lane/4 and passing row 8j + 2 * (lane%4) + e. (With 64 passing
// rows the own ones would be fetched half as often, but registers do not suffice.) Below: what a tile is filled with, and how it is turned into d.
constexpr int tile_passing = 32;
using Tile = float[2][4][4];

// What a lane keeps for the warp's own row of its number, handed to the lanes that hold pieces of the row. Registers are scarce.
template <class V> __device__ __forceinline__ V of_row(V kept, int i, int h, int lane) { return __shfl_sync(full_warp, kept, 16 * i + 8 * h + lane / 4); }

// Own rows are slots. Their gradients are multiplied in at the end; d is brought to the upper end of float16's range.
template <class T> struct OwnSlots {
  using Side = float;   // the bias
  static constexpr float raise = std::is_same_v<T, __half> ? 14.f : 0.f, one = raise > 0.f ? 0x1p14f : 1.f;
  float lse;
  int target;

  __device__ OwnSlots(const RecomputeArguments& call, int row, int lane) : lse(call.described[row + lane].lse - raise), target(call.described[row + lane].target) {}
  __device__ __forceinline__ static const Side* sides(const RecomputeArguments& call) { return call.bias; }

  __device__ __forceinline__ void begin(Tile& s, const Side* side, int lane) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float b[2];
      load_vector<2>(side + 8 * j + 2 * (lane % 4), b);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[i][j][e] = b[e % 2];
    }
  }
  // first: number of the tile's first passing row.
  __device__ __forceinline__ void end(Tile& s, const Side*, int first, int lane) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float base = of_row(lse, i, h, lane);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e) s[i][j][2 * h + e] = fast_exp2(fmaf(s[i][j][2 * h + e], log2_e, -base));
      }
    if (!__any_sync(full_warp, unsigned(target - first) < unsigned(tile_passing))) return;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at = of_row(target, i, h, lane) - first - 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (at == 8 * j + e) s[i][j][2 * h + e] -= one;
      }
  }
};

// Own rows are the vocabulary's.
struct OwnColumns {
  using Side = SlotGradient;
  float bias, dbias[2][2];
  int row;

  __device__ OwnColumns(const RecomputeArguments& call, int row_, int lane) : bias(call.bias[row_ + lane]), dbias{}, row(row_) {}
  __device__ __forceinline__ static const Side* sides(const RecomputeArguments& call) { return call.described; }

  __device__ __forceinline__ void begin(Tile& s, const Side*, int lane) const {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float b = of_row(bias, i, h, lane);
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i][j][2 * h] = s[i][j][2 * h + 1] = b;
      }
  }
  __device__ __forceinline__ void end(Tile& s, const Side* side, int, int lane) {
    const Side* own = side + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float2 slot = *reinterpret_cast<const float2*>(own + 8 * j + e);   // lse, grad
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h) s[i][j][2 * h + e] = fast_exp2(fmaf(s[i][j][2 * h + e], log2_e, -slot.x)) * slot.y;
      }
    if (__any_sync(full_warp, unsigned(side[lane].target - row) < unsigned(own_rows))) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int at = own[8 * j + e].target - row - lane / 4;
          const float grad = own[8 * j + e].grad;
#pragma unroll
          for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int h = 0; h < 2; ++h)
              if (at == 16 * i + 8 * h) s[i][j][2 * h + e] -= grad;
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += s[i][j][2 * h] + s[i][j][2 * h + 1];
        dbias[i][h] += sum;
      }
  }
};

// `count` rows of `width` features from row `first` on, zeros behind `end`; unit u of row r lies at u ^ (r % 8).
template <int count, int width, class T> __device__ __forceinline__ void load_rows(unsigned char* to, const T* data, int first, int end, int features) {
  constexpr int units = width / 8, step = recompute_threads / units;
  static_assert(step % 8 == 0 && count % step == 0);
  const int unit = int(threadIdx.x) % units, r = int(threadIdx.x) / units, left = 8 * unit < features ? end - first - r : 0;
  const T* from = data + int64_t(first + r) * features + 8 * unit;
  to += r * width * 2 + ((unit ^ r % 8) << 4);
#pragma unroll
  for (int i = 0; i < count / step; ++i) {
    copy_async_16(to + i * step * width * 2, from, i * step < left);
    from += int64_t(step) * features;
  }
}

template <class T, int width> __device__ __forceinline__ void multiply_logits(Tile& s, const unsigned char* own, const unsigned char* passing, int lane) {
  constexpr int bytes = width * 2;
  const int own_at = lane % 16 * bytes + ((lane / 16 ^ lane % 8) << 4), passing_at = (lane % 8 + lane / 16 * 8) * bytes + ((lane / 8 % 2 ^ lane % 8) << 4);
#pragma unroll
  for (int k = 0; k < width / 16; ++k) {
    uint32_t fa[2][4], fb[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) ldmatrix_x4(fa[i], own + (own_at ^ k << 5) + 16 * i * bytes);
#pragma unroll
    for (int j = 0; j < 2; ++j) ldmatrix_x4(fb[j], passing + (passing_at ^ k << 5) + 16 * j * bytes);
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        mma_m16n8k16<T>(s[i][2 * j], fa[i], fb[j][0], fb[j][1]);
        mma_m16n8k16<T>(s[i][2 * j + 1], fa[i], fb[j][2], fb[j][3]);
      }
  }
}

// sum += d · passing. The accumulators of d are, rounded, the operand that is needed.
template <class T, int width> __device__ __forceinline__ void multiply_gradients(float (&sum)[2][width / 8][4], const Tile& d, const unsigned char* passing, int lane) {
  const int passing_at = lane % 16 * width * 2 + ((lane / 16 ^ lane % 8) << 4);
#pragma unroll
  for (int k = 0; k < tile_passing / 16; ++k) {
    uint32_t fa[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        fa[i][2 * half] = pack<T>(d[i][2 * k + half][0], d[i][2 * k + half][1]);
        fa[i][2 * half + 1] = pack<T>(d[i][2 * k + half][2], d[i][2 * k + half][3]);
      }
#pragma unroll
    for (int j = 0; j < width / 16; ++j) {
      uint32_t fb[4];
      ldmatrix_x4_trans(fb, passing + (passing_at ^ j << 5) + 16 * k * width * 2);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        mma_m16n8k16<T>(sum[i][2 * j], fa[i], fb[0], fb[1]);
        mma_m16n8k16<T>(sum[i][2 * j + 1], fa[i], fb[2], fb[3]);
      }
    }
  }
}

template <class T, int width, bool is_dhidden> __global__ void __launch_bounds__(recompute_threads, 2) generator_recompute_kernel(RecomputeArguments call) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, shared);
  using Role = std::conditional_t<is_dhidden, OwnSlots<T>, OwnColumns>;
  using Side = typename Role::Side;
  constexpr int own_bytes = recompute_rows * width * 2, stage_bytes = recompute_passing * (width * 2 + int(sizeof(Side)));
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, first = int(blockIdx.x) * recompute_rows, part = int(blockIdx.y), used = call.state->end;
  if (is_dhidden && first >= used) return;   // nobody reads those partial sums
  const int begin = part * call.passing_per_part, whole = is_dhidden ? call.passings : used;
  const int end = begin + call.passing_per_part < whole ? begin + call.passing_per_part : whole;
  const T* passing = static_cast<const T*>(call.passing);
  const Side* sides = Role::sides(call);

  int ask_at = begin, ask_stage = 0;
  const auto ask = [&] {
    if (ask_at < end) {
      unsigned char* stage = shared + own_bytes + ask_stage * stage_bytes;
      load_rows<recompute_passing, width>(stage, passing, ask_at, call.passings, call.features);
      constexpr int units = recompute_passing * int(sizeof(Side)) / 16;
      if (int(threadIdx.x) < units)
        copy_async_16(stage + recompute_passing * width * 2 + threadIdx.x * 16, reinterpret_cast<const unsigned char*>(sides + ask_at) + threadIdx.x * 16, true);
      ask_at += recompute_passing;
      ask_stage = ask_stage + 1 == recompute_stages ? 0 : ask_stage + 1;
    }
    copy_async_commit();
  };
  load_rows<recompute_rows, width>(shared, static_cast<const T*>(call.own), first, call.owns, call.features);
#pragma unroll
  for (int i = 0; i < recompute_stages - 1; ++i) ask();

  Role role(call, first + warp * own_rows, lane);
  float sum[2][width / 8][4] = {};
  int stage = 0;
  for (int at = begin; at < end; at += recompute_passing) {
    copy_async_wait<recompute_stages - 2>();
    __syncthreads();   // this stage is there, and every warp is done with the one before it, which is asked for again
    ask();
    const unsigned char* rows = shared + own_bytes + stage * stage_bytes;
    const Side* side = reinterpret_cast<const Side*>(rows + recompute_passing * width * 2);
#pragma unroll 1
    for (int r = 0; r < recompute_passing; r += tile_passing) {   // unrolled, two tiles would want the registers of both
      Tile s;
      role.begin(s, side + r, lane);
      multiply_logits<T, width>(s, shared + warp * own_rows * width * 2, rows + r * width * 2, lane);
      role.end(s, side + r, at + r, lane);
      multiply_gradients<T, width>(sum, s, rows + r * width * 2, lane);
    }
    stage = stage + 1 == recompute_stages ? 0 : stage + 1;
  }

#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first + warp * own_rows + 16 * i + 8 * h + lane / 4;
      float factor = call.state->inverse;
      if constexpr (is_dhidden) factor = call.described[row].grad * (1.f / Role::one);   // state->inverse comes with the sum of the parts
#pragma unroll
      for (int j = 0; j < width / 8; ++j) {
        const int column = 8 * j + 2 * (lane % 4);
        if (column >= call.features) continue;
        const float x[2] = {sum[i][j][2 * h] * factor, sum[i][j][2 * h + 1] * factor};
        if constexpr (is_dhidden) store_vector<2>(call.partials + (int64_t(part) * call.padded_slots + row) * call.features + column, x);
        else if (row < call.owns) store_parameter<T>(call.dweight, int64_t(row) * call.features + column, x);
      }
      if constexpr (!is_dhidden) {
        const float total = warp_sum<4>(role.dbias[i][h]);
        if (lane % 4 == 0) call.dbias[row] = total;
      }
    }
}

template <class T, int width, bool is_dhidden> cudaError_t launch(const RecomputeArguments& call, int64_t blocks, int64_t parts, cudaStream_t stream) {
  constexpr int side = is_dhidden ? int(sizeof(float)) : int(sizeof(SlotGradient));
  constexpr int bytes = recompute_rows * width * 2 + recompute_stages * recompute_passing * (width * 2 + side);
  return ELECTRA_LAUNCH((generator_recompute_kernel<T, width, is_dhidden>), dim3(unsigned(blocks), unsigned(parts)), dim3(recompute_threads), size_t(bytes), stream, call);
}

template <bool is_dhidden> cudaError_t launch(const RecomputeArguments& call, DType type, int64_t blocks, int64_t parts, cudaStream_t stream) {
  return dispatch_16_bit(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return call.features <= 64 ? launch<T, 64, is_dhidden>(call, blocks, parts, stream) : launch<T, 128, is_dhidden>(call, blocks, parts, stream);
  });
}

}  // namespace

cudaError_t recompute_dhidden(const GeneratorBackward& call, const RecomputeLayout& layout, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  RecomputeArguments a{};
  a.own = p.hidden;
  a.passing = p.weight;
  a.bias = layout.bias;
  a.described = layout.described;
  a.state = layout.state;
  a.owns = int(p.slots);
  a.passings = int(p.columns);
  a.features = p.features;
  a.partials = layout.dhidden_partials;
  a.padded_slots = int(layout.padded_slots);
  a.passing_per_part = int(layout.columns_per_part);
  return launch<true>(a, p.type, layout.padded_slots / recompute_rows, layout.parts, stream);
}

cudaError_t recompute_dweight(const GeneratorBackward& call, const RecomputeLayout& layout, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  RecomputeArguments a{};
  a.own = p.weight;
  a.passing = p.hidden;
  a.bias = layout.bias;
  a.described = layout.described;
  a.state = layout.state;
  a.owns = int(p.columns);
  a.passings = int(p.slots);
  a.features = p.features;
  a.passing_per_part = int(layout.padded_slots);
  a.dweight = call.dweight;
  a.dbias = layout.dbias;
  return launch<false>(a, p.type, layout.padded_columns / recompute_rows, 1, stream);
}

}  // namespace electra::cuda
