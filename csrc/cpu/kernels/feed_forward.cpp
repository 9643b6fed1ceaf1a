// Arithmetic of feed_forward. See csrc/cpu/kernels/feed_forward.h.
#include "cpu/kernels/feed_forward.h"

#include "cpu/kernels/normal_cdf.h"
#include "cpu/kernels/packed_linear.h"

namespace electra {
namespace ELECTRA_ISA {

constexpr int64_t cache_bytes = 512 << 10;   // of gelu(u) and du of a block: half of a second-level cache of 1 MiB

template <class O, class T> struct BlockMemory {
  O *words, *middle_words;   // a block as the first factor of a product: x or dy; gelu(u) or du
  float* tile;
  T *gelu, *du;      // rows `stride` apart: were it a power of two, as widths are, a column of panels would share a few sets of the first-level cache
  int64_t stride;

  BlockMemory(Arena& arena, const FeedForward& c, int64_t rows) {
    words = arena.take<O>(rows * depth_of<O>(c.in > c.out ? c.in : c.out));
    middle_words = arena.take<O>(rows * depth_of<O>(c.middle));
    tile = arena.take<float>(tile_rows * panel_columns);
    stride = c.middle + 64 / int64_t(sizeof(T));
    gelu = arena.take<T>(rows * stride + 256);
    du = arena.take<T>(rows * stride);
  }
};

static int64_t columns_of_panel(int64_t columns, int64_t p) {
  const int64_t left = columns - p * panel_columns;
  return left < panel_columns ? left : panel_columns;
}

// A whole panel's columns, as a constant: loops over them need no remainder, which takes longer than they do.
struct WholePanel {
  constexpr operator int64_t() const { return panel_columns; }
};

// use(row, first, n, sums) for each row of rows · panels: its sums of columns [first, first + n), panel by panel; n is an int64_t or a WholePanel.
template <class O, class Use>
static void for_each_row(const Rows<O>& rows, int64_t count, int64_t depth, const void* panels, int64_t columns, float* tile, const Use& use) {
  const int64_t words = depth_of<O>(depth);
  for (int64_t p = 0; p < panels_of(columns); ++p) {
    const int64_t first = p * panel_columns, n = columns_of_panel(columns, p);
    for_each_tile<O>(count, words, rows.words, static_cast<const O*>(panels) + p * words * panel_columns, tile, [&](int64_t row, int64_t tile_count) {
      if (n == panel_columns)
        for (int64_t r = 0; r < tile_count; ++r) use(row + r, first, WholePanel{}, tile + r * panel_columns);
      else
        for (int64_t r = 0; r < tile_count; ++r) use(row + r, first, n, tile + r * panel_columns);
    });
  }
}

// Asks for the piece of u [·, middle] that the next tile works on: 128 bytes of a row, which the processor's own prefetching does not foresee. Without it 60 % of the
// activation's time is waiting. Pieces of rows behind the block (next to be met in the next panel) are the block's first ones.
template <class T> static inline void prefetch_piece(const T* u, const FeedForward& c, int64_t begin, int64_t end, int64_t row, int64_t first) {
  row += tile_rows;
  if (begin + row >= end) row -= end - begin, first += panel_columns;
  if (row < 0) return;
  for (int64_t j = 0; j < panel_columns; j += 64 / int64_t(sizeof(T))) prefetch(u, (begin + row) * c.middle + first + j);
}

template <class O, class T> static void product(const Rows<O>& rows, int64_t count, int64_t depth, const void* panels, int64_t columns, float* tile, T* out) {
  for_each_row<O>(rows, count, depth, panels, columns, tile, [&](int64_t row, int64_t first, auto n, const float* sums) {
    T* __restrict to = out + row * columns + first;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) store(to[j], sums[j]);
  });
}

template <class O, class T> static void forward(const FeedForward& c, int64_t begin, int64_t end, void* memory) {
  Arena arena{static_cast<char*>(memory)};
  const int64_t count = end - begin;
  const BlockMemory<O, T> m(arena, c, count);
  const Rows<O> x = operand_rows<O>(static_cast<const T*>(c.x) + begin * c.in, c.in, count, c.in, m.words, nullptr, nullptr);
  for_each_row<O>(x, count, c.in, c.first, c.middle, m.tile, [&](int64_t row, int64_t first, auto n, const float* sums) {
    prefetch_piece(static_cast<const T*>(c.u), c, begin, end, row, first);
    T* __restrict u = static_cast<T*>(c.u) + (begin + row) * c.middle + first;
    T* __restrict gelu = m.gelu + row * m.stride + first;
    const float* bias = c.bias + first;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      store(u[j], sums[j] + bias[j]);
      float density;
      const float z = load(u[j]);   // rounded, as backward will see it
      store(gelu[j], z * normal_cdf_(z, density));
    }
  });
  const Rows<O> gelu = operand_rows<O>(m.gelu, m.stride, count, c.middle, m.middle_words, nullptr, nullptr);
  product<O, T>(gelu, count, c.middle, c.second, c.out, m.tile, static_cast<T*>(c.y) + begin * c.out);
}

// Rows [begin, begin + count) of all panels over tokens.
template <class O, class T> static void lay_out(const FeedForward& c, const T* rows, int64_t stride, int64_t columns, int64_t begin, int64_t count, void* panels) {
  const int64_t depth = depth_of<O>(c.tokens);
  for (int64_t p = 0; p < panels_of(columns); ++p) {
    O* words = static_cast<O*>(panels) + (p * depth + begin / Operand<O>::depth) * panel_columns;
    const int64_t n = columns_of_panel(columns, p);
    if (n < panel_columns) memset(static_cast<void*>(words), 0, size_t(depth_of<O>(count) * panel_columns) * sizeof(O));
    pack_depth(words, panel_columns, rows + p * panel_columns, stride, count, n);
  }
}

template <class O, class T> static void backward(const FeedForward& c, int64_t begin, int64_t end, void* memory) {
  Arena arena{static_cast<char*>(memory)};
  const int64_t count = end - begin;
  const BlockMemory<O, T> m(arena, c, count);
  const T *grad = static_cast<const T*>(c.dy) + begin * c.out, *x = static_cast<const T*>(c.x) + begin * c.in;
  const Rows<O> dy = operand_rows<O>(grad, c.out, count, c.out, m.words, nullptr, nullptr);
  for_each_row<O>(dy, count, c.out, c.second_columns, c.middle, m.tile, [&](int64_t row, int64_t first, auto n, const float* sums) {
    prefetch_piece(static_cast<const T*>(c.saved), c, begin, end, row, first);
    const T* u = static_cast<const T*>(c.saved) + (begin + row) * c.middle + first;
    T *__restrict gelu = m.gelu + row * m.stride + first, *__restrict du = m.du + row * m.stride + first;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      float density;
      const float z = load(u[j]), cdf = normal_cdf_(z, density);
      store(gelu[j], z * cdf);
      store(du[j], sums[j] * (cdf + z * density));
    }
  });
  const Rows<O> du = operand_rows<O>(m.du, m.stride, count, c.middle, m.middle_words, nullptr, nullptr);
  product<O, T>(du, count, c.middle, c.first_columns, c.in, m.tile, static_cast<T*>(c.dx) + begin * c.in);
  lay_out<O, T>(c, m.du, m.stride, c.middle, begin, count, c.du_panels);
  lay_out<O, T>(c, m.gelu, m.stride, c.middle, begin, count, c.gelu_panels);
  lay_out<O, T>(c, grad, c.out, c.out, begin, count, c.dy_panels);
  lay_out<O, T>(c, x, c.in, c.in, begin, count, c.x_panels);
}

template <class O> struct Tag { using type = O; };
template <class F> static auto with_types(DType type, const F& f) { return type == DType::f32 ? f(Tag<float>{}, Tag<float>{}) : f(Tag<bf16_operand>{}, Tag<bf16>{}); }

static int64_t most_rows(const FeedForward& c) {
  const int64_t rows = cache_bytes / (2 * c.middle * (c.type == DType::f32 ? 4 : 2) + 1);
  return rows < 12 ? 12 : rows > 96 ? 96 : rows / 6 * 6;
}

static int64_t bytes(const FeedForward& c, int64_t rows) {
  return with_types(c.type, [&](auto o, auto t) {
    Arena arena{nullptr};
    BlockMemory<typename decltype(o)::type, typename decltype(t)::type>(arena, c, rows);
    return arena.used;
  });
}

static void forward_any(const FeedForward& c, int64_t begin, int64_t end, void* memory) {
  with_types(c.type, [&](auto o, auto t) { forward<typename decltype(o)::type, typename decltype(t)::type>(c, begin, end, memory); });
}

static void backward_any(const FeedForward& c, int64_t begin, int64_t end, void* memory) {
  with_types(c.type, [&](auto o, auto t) { backward<typename decltype(o)::type, typename decltype(t)::type>(c, begin, end, memory); });
}

const FeedForwardKernels feed_forward_kernels = {most_rows, bytes, forward_any, backward_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
