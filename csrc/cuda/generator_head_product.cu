// Backward of generator_head, in chunks of slots: the two products with the stored gradients d, [columns, slots] (d is kept transposed).
//
//   dhidden [slots, features] = d weight: a sum over the vocabulary, cut into parts whose sums are added in order (generator_head_backward.cu)
//   dweight [columns, features] = dᵀ hidden: a sum over the chunk's slots, added to that of the chunks before
//
// A block has 256 x 128 results, a warp 64 x 64; 64 terms a stage. Both operands come by cp.async, 16-byte units permuted by row against bank conflicts. Each result
// is one sum in one order, kept in registers: deterministic. Arithmetic bound from K = 256 on; at K = 128 each product reads d once and little else.
#include "cuda/copy.h"
#include "cuda/generator_head_product.cuh"
#include "cuda/mma.h"

namespace electra::cuda {
namespace {

constexpr int d_bytes = product_depth * product_rows * 2, warp_rows = product_rows / 64;
static_assert(product_columns == 128 && product_depth == 64 && product_threads == 2 * 32 * warp_rows, "what the loops below are written for");

// product_depth rows of `width` values: rows row …, those from `end` on zeros, columns first …, those from `whole` on zeros.
template <int width, class T>
__device__ __forceinline__ void load_wide(unsigned char* to, const T* data, int64_t stride, int row, int end, int first, int whole) {
  constexpr int units = width / 8, step = product_threads / units;
  static_assert(step % 8 == 0 && product_depth % step == 0);
  const int unit = int(threadIdx.x) % units, r = int(threadIdx.x) / units, column = first + 8 * unit, left = column < whole ? end - row - r : 0;
  const T* from = data + int64_t(row + r) * stride + column;
  to += r * width * 2 + ((unit ^ r % 8) << 4);
#pragma unroll
  for (int i = 0; i < product_depth / step; ++i) {
    copy_async_16(to + i * step * width * 2, from, i * step < left);
    from += step * stride;
  }
}

// product_rows rows of product_depth values, all there: rows row …, columns first ….
template <class T> __device__ __forceinline__ void load_tall(unsigned char* to, const T* data, int64_t stride, int row, int first) {
  constexpr int units = product_depth / 8, step = product_threads / units;
  const int unit = int(threadIdx.x) % units, r = int(threadIdx.x) / units;
  const T* from = data + int64_t(row + r) * stride + first + 8 * unit;
  to += r * product_depth * 2 + ((unit ^ r % 8) << 4);
#pragma unroll
  for (int i = 0; i < product_rows / step; ++i) {
    copy_async_16(to + i * step * product_depth * 2, from, true);
    from += step * stride;
  }
}

// d += (64 rows of a) (64 columns of b) over one stage. `transposed`: a lies as [depth][rows], else as [rows][depth]; b as [depth][columns].
template <class T, bool transposed>
__device__ __forceinline__ void multiply_stage(float (&d)[4][8][4], const unsigned char* a, const unsigned char* b, int warp_row, int warp_column, int lane) {
  constexpr int tall = product_depth * 2, wide = product_rows * 2, b_wide = product_columns * 2;   // bytes of a row
  const int twist = lane % 8, tall_at = (warp_row * 64 + lane % 16) * tall + ((lane / 16 ^ twist) << 4);
  const int wide_at = (lane / 16 * 8 + lane % 8) * wide + warp_row * 128 + ((lane / 8 % 2 ^ twist) << 4);
  const int b_at = lane % 16 * b_wide + warp_column * 128 + ((lane / 16 ^ twist) << 4);
#pragma unroll
  for (int k = 0; k < product_depth / 16; ++k) {
    uint32_t fa[4][4], fb[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (transposed) ldmatrix_x4_trans(fa[i], a + (wide_at ^ i << 5) + 16 * k * wide);
      else ldmatrix_x4(fa[i], a + (tall_at ^ k << 5) + 16 * i * tall);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) ldmatrix_x4_trans(fb[j], b + (b_at ^ j << 5) + 16 * k * b_wide);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        mma_m16n8k16<T>(d[i][2 * j], fa[i], fb[j][0], fb[j][1]);
        mma_m16n8k16<T>(d[i][2 * j + 1], fa[i], fb[j][2], fb[j][3]);
      }
  }
}

template <class T, bool is_dhidden, int stages> __global__ void __launch_bounds__(product_threads, 1) generator_product_kernel(ProductArguments call) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, shared);
  const int thread = int(threadIdx.x), lane = thread % 32, warp_row = thread / 32 % warp_rows, warp_column = thread / 32 / warp_rows;
  const int first_column = int(blockIdx.x) * product_columns, first_row = int(blockIdx.y) * product_rows, part = int(blockIdx.z);
  const int slots = used_slots(call);
  if (is_dhidden && first_row >= slots) return;   // nobody reads those partial sums
  const int begin = is_dhidden ? part * call.depth_per_part : 0, end = end_of_terms<is_dhidden>(call, begin, slots);
  const T *d = static_cast<const T*>(call.d), *other = static_cast<const T*>(call.other);

  int ask_at = begin, ask_stage = 0;
  const auto ask = [&] {
    if (ask_at < end) {
      unsigned char *a = shared + ask_stage * product_stage_bytes, *b = a + d_bytes;
      if constexpr (is_dhidden) load_wide<product_rows>(a, d, call.slots, ask_at, call.padded_columns, first_row, call.slots);
      else load_tall(a, d, call.slots, first_row, ask_at);
      load_wide<product_columns>(b, other, call.features, ask_at + (is_dhidden ? 0 : call.first), call.others, first_column, call.features);
      ask_at += product_depth;
      ask_stage = ask_stage + 1 == stages ? 0 : ask_stage + 1;
    }
    copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < stages - 1; ++i) ask();

  float acc[4][8][4] = {};
  int stage = 0;
  for (int at = begin; at < end; at += product_depth) {
    copy_async_wait<stages - 2>();
    __syncthreads();   // this stage is there, and every warp is done with the one before it, which is asked for again
    ask();
    const unsigned char* a = shared + stage * product_stage_bytes;
    multiply_stage<T, is_dhidden>(acc, a, a + d_bytes, warp_row, warp_column, lane);
    stage = stage + 1 == stages ? 0 : stage + 1;
  }

  const float factor = product_factor<is_dhidden>(call);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int j = 0; j < 8; ++j)
        store_product<T, is_dhidden>(call, part, first_row + warp_row * 64 + 16 * i + 8 * h + lane / 4, first_column + warp_column * 64 + 8 * j + 2 * (lane % 4),
                                     acc[i][j][2 * h] * factor, acc[i][j][2 * h + 1] * factor);
}

template <class T, bool is_dhidden, int stages> cudaError_t launch(const ProductArguments& call, dim3 grid, cudaStream_t stream) {
  return ELECTRA_LAUNCH((generator_product_kernel<T, is_dhidden, stages>), grid, dim3(product_threads), size_t(stages) * product_stage_bytes, stream, call);
}

template <bool is_dhidden> cudaError_t launch(const ProductArguments& call, const GeneratorProblem& p, int64_t rows, int64_t parts, cudaStream_t stream) {
  const dim3 grid(unsigned(blocks_of(call.features, product_columns)), unsigned(blocks_of(rows, product_rows)), unsigned(parts));
  if (p.device.major == 9) return launch_hopper_product(call, is_dhidden, p.type, grid, stream);
  return dispatch_16_bit(p.type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return product_stages(p.device.shared_limit) == 3 ? launch<T, is_dhidden, 3>(call, grid, stream) : launch<T, is_dhidden, 2>(call, grid, stream);
  });
}

ProductArguments arguments_of(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk) {
  ProductArguments a{};
  a.d = layout.gradients;
  a.state = layout.state;
  a.slots = int(layout.slots);
  a.padded_columns = int(layout.padded_columns);
  a.features = call.problem.features;
  a.first = int(chunk * layout.slots);
  return a;
}

}  // namespace

cudaError_t multiply_dhidden(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk, cudaStream_t stream) {
  ProductArguments a = arguments_of(call, layout, chunk);
  a.other = call.problem.weight;
  a.others = int(call.problem.columns);
  a.partials = layout.dhidden_partials;
  a.depth_per_part = int(layout.depth_per_part);
  return launch<true>(a, call.problem, layout.slots, layout.parts, stream);
}

cudaError_t multiply_dweight(const GeneratorBackward& call, const ChunkLayout& layout, int64_t chunk, cudaStream_t stream) {
  ProductArguments a = arguments_of(call, layout, chunk);
  a.other = call.problem.hidden;
  a.others = int(call.problem.slots);
  a.dweight = call.dweight;
  a.sum = call.dweight.type == DType::f32 ? static_cast<float*>(call.dweight.data) : layout.dweight_sum;
  a.first_chunk = chunk == 0;
  a.last_chunk = chunk + 1 == layout.chunks;
  a.columns = int(call.problem.columns);
  return launch<false>(a, call.problem, call.problem.columns, 1, stream);
}

}  // namespace electra::cuda
