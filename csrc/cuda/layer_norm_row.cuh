// Rows in registers: what layer_norm, embedding and discriminator_loss share.
//
// A warp (half a warp where a row is that short) owns a row and holds it in registers, and so does it the parameters of its columns, for all the rows that
// it comes by. Columns are dealt to the lanes 16 bytes at a time, so that every access of a warp is one piece of memory. Several rows are loaded before the
// first is used: a row of 256 is half a kilobyte, and hiding the latency of memory takes tens of kilobytes under way on every multiprocessor.
#pragma once
#include "cuda/dropout.cuh"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {

// One line of a launch table.
struct RowLaunch {
  int columns;   // of a row; not exact: at most, and a multiple of the values of an access
  bool exact;
  int rows;      // that a lane works on at once
  int warps;     // of a block
  int blocks;    // that a multiprocessor holds
};

// Whether a line of the table serves rows of this length.
template <class T, int lines> constexpr bool row_launch_serves(const RowLaunch (&table)[lines], int columns) {
  for (const RowLaunch& line : table)
    if (line.exact ? columns == line.columns : columns <= line.columns && columns % values_per_16_bytes<T> == 0) return true;
  return false;
}

// Where the values of a row lie. T: the activations' type, which sets the values of an access. Entry: a RowLaunch.
template <class T, int columns_, bool exact_, int rows_>
struct RowLayout {
  static constexpr int width = values_per_16_bytes<T>;
  static constexpr int lanes = columns_ < 32 * width ? columns_ / width : 32;   // that share a row
  static constexpr int vectors = columns_ / (lanes * width);                    // accesses of a lane to a row
  static constexpr int rows = rows_;
  static constexpr int rows_per_warp = rows * (32 / lanes);
  static constexpr int columns = columns_;
  static constexpr bool exact = exact_;
  static_assert(columns_ == lanes * vectors * width && (lanes & (lanes - 1)) == 0, "a row must fill its lanes");

  __device__ __forceinline__ static int lane() { return threadIdx.x % lanes; }
  __device__ __forceinline__ static int column(int vector) { return (vector * lanes + lane()) * width; }
  // Columns of a row, known to the compiler where they are exact.
  __device__ __forceinline__ static int count(int n) { return exact ? columns : n; }
  __device__ __forceinline__ static bool inside(int vector, int n) { return exact || column(vector) < n; }
  // Row `r` of those that begin at `first`, the warp's.
  __device__ __forceinline__ static int64_t row(int64_t first, int r) { return first + r * (32 / lanes) + threadIdx.x % 32 / lanes; }
};

// Makes the compiler forget what it derived from these words, so that it widens them anew rather than keep both forms in registers. No instruction.
__device__ __forceinline__ void forget(uint4& raw) { asm volatile("" : "+r"(raw.x), "+r"(raw.y), "+r"(raw.z), "+r"(raw.w)); }

// This lane's values of a parameter; zeros where there is none.
template <class T, class L>
__device__ __forceinline__ void load_columns(const Parameter& parameter, int n, float (&out)[L::vectors][L::width]) {
#pragma unroll
  for (int v = 0; v < L::vectors; ++v) {
#pragma unroll
    for (int i = 0; i < L::width; ++i) out[v][i] = 0.f;
    if (parameter.data && L::inside(v, n)) load_parameter<T>(parameter, L::column(v), out[v]);
  }
}

// This lane's part of the rows from `first` on, unconverted, so that all loads are on their way before the first value is used. Zeros outside.
template <class T, class L>
__device__ __forceinline__ void load_rows(const T* p, int64_t first, int64_t rows, int n, uint4 (&out)[L::rows][L::vectors]) {
#pragma unroll
  for (int r = 0; r < L::rows; ++r) {
    const int64_t row = L::row(first, r);
#pragma unroll
    for (int v = 0; v < L::vectors; ++v)
      out[r][v] = row < rows && L::inside(v, n) ? load_words(p + row * n + L::column(v)) : make_uint4(0, 0, 0, 0);
  }
}

// Dropout of rows in registers, in two steps: the bytes are drawn while the loads are under way, and wait four to a word until the values are there.
//
// A draw makes the bytes of 16 columns, which two lanes side by side share where an access has 8 values. Of every two accesses each of them then draws for
// one, and they swap halves: half the arithmetic for two shuffles. (Four lanes share a draw in float32; there each makes its own.) All lanes must call.
template <class L>
__device__ __forceinline__ void draw_rows(const PhiloxStream& stream, int64_t first, uint32_t (&out)[L::rows][L::vectors][L::width / 4]) {
  constexpr int accesses = L::rows * L::vectors, pairs = L::width == 8 ? accesses / 2 : 0;
  const bool odd = threadIdx.x % 2;
#pragma unroll
  for (int pair = 0; pair < pairs; ++pair) {
    const int r0 = 2 * pair / L::vectors, v0 = 2 * pair % L::vectors, r1 = (2 * pair + 1) / L::vectors, v1 = (2 * pair + 1) % L::vectors;
    const PhiloxCounter made = philox_draw(stream, uint32_t(odd ? L::row(first, r1) : L::row(first, r0)), uint32_t((odd ? L::column(v1) : L::column(v0)) / 16));
    const uint32_t kept[2] = {odd ? made.c2 : made.c0, odd ? made.c3 : made.c1}, given[2] = {odd ? made.c0 : made.c2, odd ? made.c1 : made.c3};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t taken = __shfl_xor_sync(full_warp, given[i], 1);
      out[r0][v0][i] = odd ? taken : kept[i];
      out[r1][v1][i] = odd ? kept[i] : taken;
    }
  }
#pragma unroll
  for (int access = 2 * pairs; access < accesses; ++access) {
    const int r = access / L::vectors, v = access % L::vectors;
    const PhiloxCounter made = philox_draw(stream, uint32_t(L::row(first, r)), uint32_t(L::column(v) / 16));
#pragma unroll
    for (int i = 0; i < L::width / 4; ++i) out[r][v][i] = philox_word(made, L::column(v) % 16 / 4 + i);
  }
}

// x where its byte is kept, else 0: the scale is left to the caller, who may have a product to fold it into. A byte is compared in the top of a word, whatever
// lies below it: byte < threshold exactly if the word is below threshold * 2^24 (2^32 keeps all).
template <int width> __device__ __forceinline__ void keep_drawn(float (&x)[width], const uint32_t (&bytes)[width / 4], int threshold) {
  const uint32_t most = (uint32_t(threshold) << 24) - 1u;
#pragma unroll
  for (int i = 0; i < width; ++i) x[i] = bytes[i / 4] << 8 * (3 - i % 4) <= most ? x[i] : 0.f;
}

// Mean and 1/sqrt(variance + eps) of rows in registers, which become deviations: (s - mean) rstd is s rstd + shift thereafter.
//
// The second pass sums the deviations as well as their squares, and so takes the rounding of the first pass's mean out of both results (Chan, Golub, LeVeque
// 1983: the corrected two-pass algorithm): with eps = 1e-12 a row that hardly varies would show it.
template <class L> struct RowStatistics {
  float mean[L::rows], rstd[L::rows], shift[L::rows];

  __device__ __forceinline__ RowStatistics(float (&s)[L::rows][L::vectors][L::width], int n, float eps) {
    const float inverse_n = 1.f / float(n);
    float deviation[L::rows], square[L::rows];
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      mean[r] = 0.f;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        float part = 0.f;   // a chain of additions for each access, not one for the row
#pragma unroll
        for (int i = 0; i < L::width; ++i) part += s[r][v][i];
        mean[r] += part;
      }
    }
#pragma unroll
    for (int r = 0; r < L::rows; ++r) mean[r] = warp_sum<L::lanes>(mean[r]) * inverse_n;
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      deviation[r] = square[r] = 0.f;
#pragma unroll
      for (int v = 0; v < L::vectors; ++v) {
        if (!L::inside(v, n)) continue;
        float part = 0.f, part_square = 0.f;
#pragma unroll
        for (int i = 0; i < L::width; ++i) {
          s[r][v][i] -= mean[r];
          part += s[r][v][i];
          part_square += s[r][v][i] * s[r][v][i];
        }
        deviation[r] += part;
        square[r] += part_square;
      }
    }
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      deviation[r] = warp_sum<L::lanes>(deviation[r]);
      square[r] = warp_sum<L::lanes>(square[r]);
    }
#pragma unroll
    for (int r = 0; r < L::rows; ++r) {
      const float correction = deviation[r] * inverse_n;
      mean[r] += correction;
      rstd[r] = rsqrtf(fmaxf(square[r] * inverse_n - correction * correction, 0.f) + eps);
      shift[r] = -correction * rstd[r];
    }
  }
};

// Blocks for `rows` rows: no more than have work.
inline int blocks_for(int64_t rows, int64_t rows_per_block, int most) {
  const int64_t wanted = (rows + rows_per_block - 1) / rows_per_block;
  return int(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

inline bool aligned_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace electra::cuda
