// Laying factors out as panels, and products over tokens. See csrc/cpu/kernels/panels.h.
#include "cpu/kernels/panels.h"

#include "cpu/kernels/packed_linear.h"

namespace electra {
namespace ELECTRA_ISA {

// Tokens that are taken at a time for dW: their words of both panels, 64 KiB of pairs, stay in the second-level cache while every tile of the result goes over them.
constexpr int64_t token_block = 256;

template <class O, class T> static void pack_outputs(const T* weight, int64_t out, int64_t in, int64_t panel, O* words) {
  const int64_t first = panel * panel_columns, columns = out - first < panel_columns ? out - first : panel_columns;
  if (columns < panel_columns) memset(static_cast<void*>(words), 0, size_t(depth_of<O>(in) * panel_columns) * sizeof(O));
  pack_transposed(words, panel_columns, weight + first * in, in, columns, in);
}

template <class O, class T> static void pack_columns(const T* x, int64_t count, int64_t columns, int64_t panel, O* words) {
  const int64_t first = panel * panel_columns, n = columns - first < panel_columns ? columns - first : panel_columns;
  if (n < panel_columns) memset(static_cast<void*>(words), 0, size_t(depth_of<O>(count) * panel_columns) * sizeof(O));
  pack_depth(words, panel_columns, x + first, columns, count, n);
}

template <class O, class G>
static void weight(const O* grad, const O* x, int64_t tokens, int64_t out, int64_t in, int64_t row_panel, int64_t first, int64_t last, G* dweight, float* sums) {
  const int64_t depth = depth_of<O>(tokens), step = token_block / Operand<O>::depth, width = (last - first) * panel_columns;
  const int64_t begin = row_panel * panel_columns, count = out - begin < panel_columns ? out - begin : panel_columns;
  const O* g = grad + row_panel * depth * panel_columns;
  if (depth == 0) memset(sums, 0, size_t(count * width) * sizeof(float));
  for (int64_t d = 0; d < depth; d += step) {
    const int64_t words = depth - d < step ? depth - d : step;
    for (int64_t p = first; p < last; ++p)
      multiply_rows<O, tile_columns>(count, words, {g + d * panel_columns, 1, panel_columns}, x + (p * depth + d) * panel_columns, panel_columns, sums + (p - first) * panel_columns,
                                     width, d ? Start::add : Start::zero);
  }
  const int64_t left = in - first * panel_columns, n = left < width ? left : width;
  for (int64_t r = 0; r < count; ++r) {
    G* __restrict to = dweight + (begin + r) * in + first * panel_columns;
    const float* from = sums + r * width;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) store(to[j], from[j]);
  }
}

static inline float both_halves(pair w) { return float_of(w.bits << 16) + float_of(w.bits & 0xffff0000u); }
static inline float both_halves(float w) { return w; }

template <class O> static void bias(const O* grad, int64_t tokens, int64_t out, int64_t panel, float* dbias) {
  const int64_t depth = depth_of<O>(tokens), first = panel * panel_columns, n = out - first < panel_columns ? out - first : panel_columns;
  const O* words = grad + panel * depth * panel_columns;
  float sums[panel_columns] = {};
  for (int64_t d = 0; d < depth; ++d, words += panel_columns) {
#pragma omp simd
    for (int64_t j = 0; j < panel_columns; ++j) sums[j] += both_halves(words[j]);
  }
  for (int64_t j = 0; j < n; ++j) dbias[first + j] = sums[j];
}

// --- from what is known at run time to the instance: f(operand, activation), two tags.
template <class O> struct Tag { using type = O; };
template <class F> static auto with_types(DType type, const F& f) { return type == DType::f32 ? f(Tag<float>{}, Tag<float>{}) : f(Tag<bf16_operand>{}, Tag<bf16>{}); }
#define ELECTRA_TYPES using O = typename decltype(o)::type; using T = typename decltype(t)::type; (void)sizeof(T)

static int64_t panel_bytes(DType type, int64_t depth) {
  return with_types(type, [&](auto o, auto t) {
    ELECTRA_TYPES;
    return (depth_of<O>(depth) * panel_columns) * int64_t(sizeof(O));
  });
}

static void pack_outputs_any(DType type, const void* w, int64_t out, int64_t in, int64_t panel, void* words) {
  with_types(type, [&](auto o, auto t) {
    ELECTRA_TYPES;
    pack_outputs(static_cast<const T*>(w), out, in, panel, static_cast<O*>(words) + panel * depth_of<O>(in) * panel_columns);
  });
}

static void pack_columns_any(DType type, const void* x, int64_t count, int64_t columns, int64_t panel, void* words) {
  with_types(type, [&](auto o, auto t) {
    ELECTRA_TYPES;
    pack_columns(static_cast<const T*>(x), count, columns, panel, static_cast<O*>(words) + panel * depth_of<O>(count) * panel_columns);
  });
}

static int64_t weight_bytes(int64_t panels) { return panel_columns * panels * panel_columns * int64_t(sizeof(float)); }

static void weight_any(DType type, const void* grad, const void* x, int64_t tokens, int64_t out, int64_t in, int64_t row_panel, int64_t first, int64_t last, DType gradient,
                       void* dweight, void* memory) {
  with_types(type, [&](auto o, auto t) {
    ELECTRA_TYPES;
    const O *g = static_cast<const O*>(grad), *xs = static_cast<const O*>(x);
    if (gradient == DType::f32) weight(g, xs, tokens, out, in, row_panel, first, last, static_cast<float*>(dweight), static_cast<float*>(memory));
    else weight(g, xs, tokens, out, in, row_panel, first, last, static_cast<bf16*>(dweight), static_cast<float*>(memory));
  });
}

static void bias_any(DType type, const void* grad, int64_t tokens, int64_t out, int64_t panel, float* dbias) {
  with_types(type, [&](auto o, auto t) {
    ELECTRA_TYPES;
    bias(static_cast<const O*>(grad), tokens, out, panel, dbias);
  });
}

const PanelKernels panel_kernels = {panel_columns, panel_bytes, pack_outputs_any, pack_columns_any, weight_bytes, weight_any, bias_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
