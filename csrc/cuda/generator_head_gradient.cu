// Backward of generator_head, in chunks of slots: the gradients d of a chunk's logits, recomputed, rounded to 16 bits and stored transposed, [columns, slots].
//
// A block keeps 128 (or 256) rows of the weight and lets the chunk's hidden rows pass, so that the sums over slots, dbias, stay in registers. A lane's 16 gradients of
// a column are of neighbouring slots: two stores of 16 bytes. Traffic: 2 bytes a logit written; exponentials and the product as in the forward.
#include "cuda/exponent.cuh"
#include "cuda/generator_head_backward.cuh"
#include "cuda/generator_head_tiles.cuh"

namespace electra::cuda {
namespace {

struct GradientArguments {
  const void *weight, *hidden;
  const float* bias;
  const SlotGradient* described;   // of the chunk, as are the rest
  const BackwardState* state;
  void* gradients;
  float* dbias_partials;           // [2][padded_columns]
  int columns, padded_columns, features;
  int first, slots, all_slots;     // the chunk's first slot and slots; slots of the call
};

template <class T> struct GradientVisitor {
  const GradientArguments& call;
  int lane, half, row;             // row: first of the warp's 64 columns of the vocabulary
  float bias[2], dbias[2];         // of the two columns that this lane owns (own_row): registers are scarce

  __device__ GradientVisitor(const GradientArguments& call_, int row_, int half_) : call(call_), lane(int(threadIdx.x) % 32), half(half_), row(row_) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      bias[h] = call.bias[row + own_row(lane, h)];
      dbias[h] = 0.f;
    }
  }

  __device__ __forceinline__ int column(int i, int h) const { return row + 16 * i + 8 * h + lane / 4; }

  __device__ __forceinline__ void begin(LogitTile& d, const SlotGradient*) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float b = from_owner(bias[h], lane, i);
#pragma unroll
        for (int j = 0; j < 8; ++j) d[i][j][2 * h] = d[i][j][2 * h + 1] = b;
      }
  }

  // From logits to d. The target's 1 is taken off only in tiles that have a target: one in eight of a vocabulary of 30522.
  __device__ __forceinline__ void differentiate(LogitTile& d, const SlotGradient* side) const {
    const SlotGradient* own = side + 16 * (lane % 4);
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float2 slot = *reinterpret_cast<const float2*>(own + 2 * j + e);   // lse, grad
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& x = d[i][j][2 * h + e];
            x = fast_exp2(fmaf(x, log2_e, -slot.x)) * slot.y;
          }
      }
    const auto inside = [&](int slot) { return unsigned(side[slot].target - row) < 64u; };
    if (!__any_sync(full_warp, inside(lane) || inside(lane + 32))) return;
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int target = own[2 * j + e].target;
        const float grad = own[2 * j + e].grad;
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            if (target == column(i, h)) d[i][j][2 * h + e] -= grad;
      }
  }

  __device__ __forceinline__ void end(LogitTile& d, const SlotGradient* side, int tile) {
    differentiate(d, side);
    const int first = first_of_group<1>(tile, half) + 16 * (lane % 4);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        uint32_t words[8];
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          sum += d[i][j][2 * h] + d[i][j][2 * h + 1];
          words[j] = pack<T>(d[i][j][2 * h], d[i][j][2 * h + 1]);
        }
        sum = warp_sum<4>(sum);
        dbias[h] += lane % 4 == i ? sum : 0.f;
        uint4* out = reinterpret_cast<uint4*>(static_cast<T*>(call.gradients) + int64_t(column(i, h)) * call.slots + first);
        out[0] = make_uint4(words[0], words[1], words[2], words[3]);
        out[1] = make_uint4(words[4], words[5], words[6], words[7]);
      }
  }

  __device__ __forceinline__ void store() const {
#pragma unroll
    for (int h = 0; h < 2; ++h) call.dbias_partials[int64_t(half) * call.padded_columns + row + own_row(lane, h)] = dbias[h];
  }
};

template <class T, int variant>
__global__ void __launch_bounds__(Sweep<variant>::threads, Sweep<variant>::blocks_per_multiprocessor) generator_gradient_kernel(GradientArguments call) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, shared);
  using S = Sweep<variant>;
  const int row = int(blockIdx.x) * S::rows, warp = int(threadIdx.x) / 32, half = warp / S::warps_m;
  const int left = call.state->end - call.first, slots = left < call.slots ? left : call.slots;
  GradientVisitor<T> visitor(call, row + warp % S::warps_m * 64, half);
  sweep<variant, 1>(MatrixRows<T>{static_cast<const T*>(call.weight), row, call.columns}, MatrixRows<T>{static_cast<const T*>(call.hidden), call.first, call.all_slots},
                    call.described, call.features, 0, slots > 0 ? (slots + sweep_columns - 1) / sweep_columns : 0, shared, visitor);
  visitor.store();
}

template <class T, int variant> cudaError_t launch(const GradientArguments& call, cudaStream_t stream) {
  return ELECTRA_LAUNCH((generator_gradient_kernel<T, variant>), dim3(unsigned(call.padded_columns / Sweep<variant>::rows)), dim3(Sweep<variant>::threads),
                        size_t(sweep_shared_bytes(variant, call.features, sizeof(SlotGradient))), stream, call);
}

}  // namespace

cudaError_t store_gradients(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk, cudaStream_t stream) {
  const GeneratorProblem& p = call.problem;
  const GradientArguments arguments = {p.weight, p.hidden, layout.bias, layout.described + chunk * layout.slots, layout.state, layout.gradients,
                                       layout.dbias_partials + 2 * chunk * layout.padded_columns, int(p.columns), int(layout.padded_columns), p.features,
                                       int(chunk * layout.slots), int(layout.slots), int(p.slots)};
  return dispatch_16_bit(p.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (sweep_variant(p.features, p.device.shared_limit)) {
      case 0: return launch<T, 0>(arguments, stream);
      case 1: return launch<T, 1>(arguments, stream);
      default: return launch<T, 2>(arguments, stream);
    }
  });
}

}  // namespace electra::cuda
