// Linear layers whose weight was packed once: y = x Wᵀ + b for blocks of rows, a panel of `panel_columns` outputs at a time.
//
// A panel holds its weights as rows of words along the depth, each multiplied by a broadcast word of x, and behind them what the result needs: the bias, and for bytes the
// columns' scales and sums, one for every `chunk_columns` of depth, since a product may be taken chunk by chunk (each with scales of its own for the rows of x). So a panel is read from its first word to its last, once for every tile of six rows, and nothing is rearranged in the loop.
//
// Bytes: x ≈ s_x (u - 128), u = round(x / s_x) + 128 with s_x = max|x| / 127 of the row; w = s_w q with s_w = max|w| / 127 of the column; then
// x·w ≈ s_x s_w (Σ u q - 128 Σ q). vpdpbusd takes the first factor unsigned and adds four products to a 32-bit sum without saturating.
#pragma once
#include "cpu/kernels/encoder.h"
#include "cpu/kernels/pack.h"

namespace electra {
namespace ELECTRA_ISA {

struct quad { uint32_t bits; };   // four bytes of consecutive depth

#if defined(__AVX512VNNI__)
template <> struct Operand<quad> {
  using acc = int32_t;
  using vector = __m512i;
  static constexpr int depth = 4;
  static inline vector read(const quad* p) { return _mm512_loadu_si512(p); }
  static inline vector broadcast(const quad* p) {
    int32_t word;
    memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
  }
  static inline vec<int32_t> multiply_add(vector a, vector b, vec<int32_t> c) { return (vec<int32_t>)_mm512_dpbusd_epi32((__m512i)c, a, b); }
};
#endif

constexpr int64_t panel_columns = tile_columns * lanes<float>;
constexpr int64_t chunk_panels = 4, chunk_columns = chunk_panels * panel_columns;   // of an intermediate layer: made and used up while they are in cache

static inline int64_t panels_of(int64_t columns) { return (columns + panel_columns - 1) / panel_columns; }
static inline int64_t chunks_of(int64_t columns) { return (columns + chunk_columns - 1) / chunk_columns; }

template <class O> constexpr bool is_bytes = Operand<O>::depth == 4;

// Rows of a panel: the depth, the bias; for bytes also the scale, and 128 times the sum of each chunk of the column.
template <class O> static inline int64_t panel_rows(int64_t in) { return depth_of<O>(in) + 1 + (is_bytes<O> ? 1 + chunks_of(in) : 0); }

// A panel's parts.
template <class O> struct Panel {
  const O* weight;
  const float *bias, *scale;
  const int32_t* sums;
  Panel(const void* words, int64_t in, int64_t panel) : weight(static_cast<const O*>(words) + panel * panel_rows<O>(in) * panel_columns) {
    const O* end = weight + depth_of<O>(in) * panel_columns;
    bias = reinterpret_cast<const float*>(end);
    scale = bias + panel_columns;
    sums = reinterpret_cast<const int32_t*>(scale + panel_columns);
  }
};

// use(row, count) after every tile of `count` <= tile_rows rows of the product, whose sums then lie in `tile` [count][panel_columns].
template <class O, int M = tile_rows, class Use>
static inline void for_each_tile(int64_t rows, int64_t depth, MatrixA<O> a, const O* weight, operand_acc<O>* tile, const Use& use, int64_t row = 0) {
  for (; rows - row >= M; row += M) {
    multiply_tile<O, M, tile_columns>(depth, {a.data + row * a.row, a.row, a.step}, weight, panel_columns, tile, panel_columns, Start::zero);
    use(row, int64_t(M));
  }
  if constexpr (M > 1)
    if (row < rows) for_each_tile<O, M - 1>(rows, depth, a, weight, tile, use, row);
}

// A block of rows as the first factor: their words, and for bytes each row's scale.
template <class O> struct Rows {
  MatrixA<O> words;
  const float* scale;
};

// How a row of sums becomes floats: as it is; or, of bytes, without the 128 that was added to each factor of chunks [first, last), and scaled back.
template <class O> struct Scaling {
  int32_t offset[is_bytes<O> ? panel_columns : 1] = {};
  const float *column, *row;

  Scaling(const Panel<O>& panel, const Rows<O>& x, [[maybe_unused]] int64_t first, [[maybe_unused]] int64_t last) : column(panel.scale), row(x.scale) {
    if constexpr (is_bytes<O>)
      for (int64_t chunk = first; chunk < last; ++chunk)
        for (int64_t j = 0; j < panel_columns; ++j) offset[j] += panel.sums[chunk * panel_columns + j];
  }

  void operator()(const operand_acc<O>* sums, [[maybe_unused]] int64_t r, float* __restrict out) const {
    if constexpr (is_bytes<O>) {
      const float factor = row[r];
#pragma omp simd
      for (int64_t j = 0; j < panel_columns; ++j) out[j] = float(sums[j] - offset[j]) * (factor * column[j]);
    } else {
      memcpy(out, sums, panel_columns * sizeof(float));
    }
  }
};

// Words of rows of T [count, n], rows `stride` elements apart: as they lie where they are operands already, else converted into `memory`.
template <class O, class T> constexpr bool lies_as_operand = sizeof(O) == sizeof(T) * Operand<O>::depth && Operand<O>::depth < 4;

static inline float largest_magnitude(const float* x, int64_t n) {
  int32_t top = 0;   // magnitudes order like their bits
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < n; ++i) {
    const int32_t magnitude = int32_t(bits_of(x[i]) & 0x7fffffffu);
    top = magnitude > top ? magnitude : top;
  }
  return float_of(uint32_t(top));
}

// Quantises n floats; returns the scale.
static inline float quantise_row(const float* x, int64_t n, uint8_t* __restrict out) {
  const float top = largest_magnitude(x, n), inverse = top > 0.f ? 127.f / top : 0.f;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = uint8_t((bits_of(x[i] * inverse + 12582912.f) & 0xffu) ^ 0x80u);   // 1.5 * 2^23: rounds into the low bits
  return top / 127.f;
}

// `memory` holds count rows of depth words and, for bytes, count scales; `row` n floats.
template <class O, class T>
static inline Rows<O> operand_rows(const T* rows, int64_t stride, int64_t count, int64_t n, O* memory, float* scale, [[maybe_unused]] float* row) {
  const int64_t depth = depth_of<O>(n);
  if constexpr (is_bytes<O>) {
    for (int64_t r = 0; r < count; ++r) {
      const T* from = rows + r * stride;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) row[i] = load(from[i]);
      uint8_t* out = reinterpret_cast<uint8_t*>(memory + r * depth);
      scale[r] = quantise_row(row, n, out);
      for (int64_t i = n; i < 4 * depth; ++i) out[i] = 0;
    }
    return {{memory, depth, 1}, scale};
  } else {
    if constexpr (lies_as_operand<O, T>)
      if (stride % Operand<O>::depth == 0 && n % Operand<O>::depth == 0) return {{reinterpret_cast<const O*>(rows), stride / Operand<O>::depth, 1}, nullptr};
    pack_rows(memory, depth, rows, stride, count, n);
    return {{memory, depth, 1}, nullptr};
  }
}

// --- packing a panel: columns [panel · panel_columns, …) of the outputs, zeros behind the last.
template <class O> static void pack_panel_words(const float* column, int64_t in, int64_t j, O* words) {
  for (int64_t d = 0; d < depth_of<O>(in); ++d) {
    if constexpr (Operand<O>::depth == 1) {
      words[d * panel_columns + j] = column[d];
    } else if constexpr (Operand<O>::depth == 2) {
      bf16 low, high;
      store(low, column[2 * d]);
      store(high, 2 * d + 1 < in ? column[2 * d + 1] : 0.f);
      words[d * panel_columns + j].bits = low.bits | uint32_t(high.bits) << 16;
    }
  }
}

template <class O, class T>
static void pack_panel(const T* weight, const float* bias, int64_t in, int64_t out, int64_t index, void* words, float* column) {
  O* to = static_cast<O*>(words) + index * panel_rows<O>(in) * panel_columns;
  memset(static_cast<void*>(to), 0, size_t(panel_rows<O>(in) * panel_columns) * sizeof(O));
  const Panel<O> panel(words, in, index);
  for (int64_t j = 0; j < panel_columns && index * panel_columns + j < out; ++j) {
    const int64_t output = index * panel_columns + j;
    for (int64_t d = 0; d < in; ++d) column[d] = load(weight[output * in + d]);
    if (bias) const_cast<float*>(panel.bias)[j] = bias[output];
    if constexpr (is_bytes<O>) {
      const float top = largest_magnitude(column, in), scale = top / 127.f;
      for (int64_t d = 0; d < in; ++d) {
        const int32_t q = top > 0.f ? int32_t(nearbyintf(column[d] / scale)) : 0;
        const_cast<int32_t*>(panel.sums)[d / chunk_columns * panel_columns + j] += 128 * q;
        reinterpret_cast<int8_t*>(to + d / 4 * panel_columns + j)[d % 4] = int8_t(q);
      }
      const_cast<float*>(panel.scale)[j] = scale;
    } else {
      pack_panel_words(column, in, j, to);
    }
  }
}

}  // namespace ELECTRA_ISA
}  // namespace electra
