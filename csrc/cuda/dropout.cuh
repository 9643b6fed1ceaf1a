// Dropout bytes on the device. One Philox call serves 16 neighbouring columns of a row; csrc/common/philox.h is the generator of every backend.
#pragma once
#include "common/philox.h"
#include "cuda/dropout.h"
#include "cuda/portable.h"

namespace electra::cuda {

// The stream of (seed, step) read from device memory; read it once a thread.
__device__ __forceinline__ PhiloxStream random_stream(const int64_t* rng, int64_t site) { return philox_stream(rng[0], rng[1], site); }

// Without dropout rng may be null: the stream is then not used.
__device__ __forceinline__ PhiloxStream random_stream(const Dropout& dropout) {
  return dropout.rng ? random_stream(dropout.rng, dropout.site) : PhiloxStream{};
}

// Whether byte `b` (0…15, known at compile time where the loop is unrolled) of a draw says keep.
__device__ __forceinline__ bool keeps(const PhiloxCounter& draw, int b, int threshold) {
  return int(philox_word(draw, b >> 2) >> 8 * (b & 3) & 255u) < threshold;
}

// Bit b of the result: keep column 16 * block + b of `row`.
__device__ __forceinline__ uint32_t keep_bits(const PhiloxStream& stream, uint32_t row, uint32_t block, int threshold) {
  const PhiloxCounter draw = philox_draw(stream, row, block);
  uint32_t bits = 0;
#pragma unroll
  for (int b = 0; b < 16; ++b) bits |= uint32_t(keeps(draw, b, threshold)) << b;
  return bits;
}

// Dropout of x[row, column … column+N-1] in place; N is 1, 2, 4, 8 or 16 and divides column. N = 16 wastes nothing of a draw.
template <int N> __device__ __forceinline__ void drop(float (&x)[N], const Dropout& dropout, const PhiloxStream& stream, uint32_t row, uint32_t column) {
  static_assert(N <= 16 && (N & (N - 1)) == 0, "N values come from one draw of 16 bytes");
  const PhiloxCounter draw = philox_draw(stream, row, column / 16);
  const int first = column % 16;
  if constexpr (N >= 4) {   // whole words: which byte of a word is then known to the compiler
#pragma unroll
    for (int i = 0; i < N; ++i)
      x[i] = int(philox_word(draw, first / 4 + i / 4) >> 8 * (i % 4) & 255u) < dropout.threshold ? x[i] * dropout.scale : 0.f;
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = keeps(draw, first + i, dropout.threshold) ? x[i] * dropout.scale : 0.f;
  }
}

}  // namespace electra::cuda
