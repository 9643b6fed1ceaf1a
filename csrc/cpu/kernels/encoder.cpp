// Arithmetic of encoder: what a block of rows goes through between two attentions. See csrc/cpu/kernels/encoder.h and packed_linear.h.
#include "cpu/kernels/encoder.h"

#include "cpu/kernels/gelu_16_bits.h"
#include "cpu/kernels/normal_cdf.h"
#include "cpu/kernels/packed_linear.h"
#include "cpu/kernels/row_access.h"
#include "cpu/kernels/row_norm.h"

namespace electra {
namespace ELECTRA_ISA {

// What activations of the intermediate layer wait as.
template <class O> struct Activation { using type = float; };
template <> struct Activation<pair> { using type = bf16; };

template <class O, class T> struct RowsMemory {
  using G = typename Activation<O>::type;
  int64_t width;     // of a row of sums: hidden, in whole panels
  float *sums, *row, *mean, *rstd;
  operand_acc<O>* tile;
  O *words, *chunk_words;
  float *scale, *chunk_scale;   // of rows of words
  T* middle;         // what leaves the attention half
  G* activations;    // of a chunk

  RowsMemory(Arena& arena, const EncoderRows& c, int64_t rows) : width(panels_of(c.hidden) * panel_columns) {
    sums = arena.take<float>(rows * width);
    const int64_t widest = c.hidden > c.inputs ? c.hidden : c.inputs;   // of what becomes operands whole
    row = arena.take<float>(widest > chunk_columns ? widest : chunk_columns);
    mean = arena.take<float>(rows);
    rstd = arena.take<float>(rows);
    tile = arena.take<operand_acc<O>>(tile_rows * panel_columns);
    words = arena.take<O>(rows * depth_of<O>(widest));
    chunk_words = arena.take<O>(rows * depth_of<O>(chunk_columns));
    scale = arena.take<float>(rows);
    chunk_scale = arena.take<float>(rows);
    middle = arena.take<T>(rows * c.hidden);
    activations = arena.take<G>(rows * chunk_columns);
  }
};

// sums [count][width] (+)= x times the rows [first, first + columns) of a packed weight's depth; first begins a chunk.
template <class O>
static void add_product(int64_t count, const Rows<O>& x, const void* weight, int64_t in, int64_t first, int64_t columns, operand_acc<O>* tile, float* sums, int64_t width) {
  const int64_t depth = depth_of<O>(columns);
  const Start start = first ? Start::add : Start::zero;
  for (int64_t p = 0; p < width / panel_columns; ++p) {
    const Panel<O> panel(weight, in, p);
    const O* words = panel.weight + first / Operand<O>::depth * panel_columns;
    float* to = sums + p * panel_columns;
    if constexpr (is_bytes<O>) {
      const Scaling<O> scaled(panel, x, first / chunk_columns, chunks_of(first + columns));
      for_each_tile<O>(count, depth, x.words, words, tile, [&](int64_t row, int64_t tile_count) {
        for (int64_t r = 0; r < tile_count; ++r) {
          float values[panel_columns];
          scaled(tile + r * panel_columns, row + r, values);
          float* __restrict sum = to + (row + r) * width;
#pragma omp simd
          for (int64_t j = 0; j < panel_columns; ++j) sum[j] = start == Start::add ? sum[j] + values[j] : values[j];
        }
      });
    } else {
      multiply_rows<O, tile_columns>(count, depth, x.words, words, panel_columns, to, width, start);
    }
  }
}

// out = LN(sums + bias + residual), in place in the sums.
template <class O, class T>
static void norm(int64_t count, int64_t n, const void* weight, int64_t in, const T* residual, const float* norm_weight, const float* norm_bias, float eps,
                 const RowsMemory<O, T>& m, T* out) {
  for (int64_t p = 0; p < panels_of(n); ++p) {
    const Panel<O> panel(weight, in, p);
    const int64_t first = p * panel_columns, columns = n - first < panel_columns ? n - first : panel_columns;
    for (int64_t r = 0; r < count; ++r) {
      float* __restrict sum = m.sums + r * m.width + first;
      const T* from = residual + r * n + first;
      over_row<float>(columns, [&](auto piece, int64_t j) { write<false>(sum + j, read(piece, sum + j) + (read(piece, panel.bias + j) + read(piece, from + j))); });
    }
  }
  row_statistics(m.sums, m.width, count, n, eps, m.mean, m.rstd);
  for (int64_t r = 0; r < count; ++r) {
    const float *sum = m.sums + r * m.width, mean = m.mean[r], rstd = m.rstd[r];
    T* __restrict to = out + r * n;
    over_row<float>(n, [&](auto piece, int64_t i) {
      write<false>(to + i, (read(piece, sum + i) - mean) * rstd * read(piece, norm_weight + i) + read(piece, norm_bias + i));
    });
  }
}

// to = gelu(values + bias), panel_columns of them; to float's accuracy only where the next product keeps it.
template <class O, class G> static inline void add_bias_and_gelu(const float* values, const float* bias, G* __restrict to) {
#if defined(__AVX512DQ__)
  if constexpr (Operand<O>::depth > 1) {
    for (int64_t j = 0; j < panel_columns; j += lanes<float>) write<false>(to + j, gelu_for_16_bits(load_vector(values + j) + load_vector(bias + j)));
    return;
  }
#endif
#pragma omp simd
  for (int64_t j = 0; j < panel_columns; ++j) {
    float density;
    const float z = values[j] + bias[j];
    store(to[j], z * normal_cdf_(z, density));
  }
}

// Columns [first, first + panel_columns) of gelu(x Wᵀ + b) of `count` rows, as activations.
template <class O, class T, class G>
static void activate(int64_t count, const Rows<O>& x, const Panel<O>& panel, int64_t in, const RowsMemory<O, T>& m, G* out) {
  const Scaling<O> scaled(panel, x, 0, chunks_of(in));
  for_each_tile<O>(count, depth_of<O>(in), x.words, panel.weight, m.tile, [&](int64_t row, int64_t tile_count) {
    for (int64_t r = 0; r < tile_count; ++r) {
      float values[panel_columns];
      scaled(m.tile + r * panel_columns, row + r, values);
      add_bias_and_gelu<O>(values, panel.bias, out + (row + r) * chunk_columns);
    }
  });
}

template <class O, class T> static void tail(const EncoderRows& c, int64_t begin, int64_t count, const RowsMemory<O, T>& m) {
  const EncoderLayer& layer = *c.layer;
  const int64_t n = c.hidden;
  T* out = static_cast<T*>(c.out) + begin * n;
  {
    const Rows<O> context = operand_rows<O>(static_cast<const T*>(c.context) + begin * n, n, count, n, m.words, m.scale, m.row);
    add_product(count, context, layer.attention_output, n, 0, n, m.tile, m.sums, m.width);
    norm<O, T>(count, n, layer.attention_output, n, static_cast<const T*>(c.residual) + begin * n, layer.attention_norm_weight, layer.attention_norm_bias, c.eps, m, m.middle);
  }
  const Rows<O> middle = operand_rows<O>(m.middle, n, count, n, m.words, m.scale, m.row);
  for (int64_t first = 0; first < c.intermediate; first += chunk_columns) {
    const int64_t columns = c.intermediate - first < chunk_columns ? c.intermediate - first : chunk_columns;
    for (int64_t p = 0; p < panels_of(columns); ++p)
      activate(count, middle, Panel<O>(layer.intermediate, n, first / panel_columns + p), n, m, m.activations + p * panel_columns);
    const Rows<O> activations = operand_rows<O>(m.activations, chunk_columns, count, columns, m.chunk_words, m.chunk_scale, m.row);
    add_product(count, activations, layer.output, c.intermediate, first, columns, m.tile, m.sums, m.width);
  }
  norm<O, T>(count, n, layer.output, c.intermediate, m.middle, layer.output_norm_weight, layer.output_norm_bias, c.eps, m, out);
}

// out [count, outputs] = x Wᵀ + b, x [count, in].
template <class O, class T>
static void linear(const void* weight, int64_t in, int64_t outputs, const T* x, int64_t count, const RowsMemory<O, T>& m, T* out) {
  const Rows<O> rows = operand_rows<O>(x, in, count, in, m.words, m.scale, m.row);
  for (int64_t p = 0; p < panels_of(outputs); ++p) {
    const Panel<O> panel(weight, in, p);
    const int64_t first = p * panel_columns, columns = outputs - first < panel_columns ? outputs - first : panel_columns;
    const Scaling<O> scaled(panel, rows, 0, chunks_of(in));
    for_each_tile<O>(count, depth_of<O>(in), rows.words, panel.weight, m.tile, [&](int64_t row, int64_t tile_count) {
      for (int64_t r = 0; r < tile_count; ++r) {
        float values[panel_columns];
        scaled(m.tile + r * panel_columns, row + r, values);
        T* __restrict to = out + (row + r) * outputs + first;
        over_row<float>(columns, [&](auto piece, int64_t j) { write<false>(to + j, read(piece, values + j) + read(piece, panel.bias + j)); });
      }
    });
  }
}

template <class O, class T> static void rows(const EncoderRows& c, int64_t begin, int64_t end, void* memory) {
  Arena arena{static_cast<char*>(memory)};
  const RowsMemory<O, T> m(arena, c, end - begin);
  const int64_t n = c.hidden, count = end - begin;
  T *out = static_cast<T*>(c.out) + begin * n, *projections = static_cast<T*>(c.projections) + begin * 3 * n;
  if (c.layer) tail<O, T>(c, begin, count, m);
  else if (c.input) linear<O, T>(c.input_projection, c.inputs, n, static_cast<const T*>(c.input) + begin * c.inputs, count, m, out);
  const T* x = c.layer || c.input ? out : static_cast<const T*>(c.residual) + begin * n;
  if (c.next) linear<O, T>(c.next->projections, n, 3 * n, x, count, m, projections);   // queries, keys and values
}

template <class O, class T> static int64_t memory(const EncoderRows& c, int64_t rows) {
  Arena arena{nullptr};
  RowsMemory<O, T>(arena, c, rows);
  return arena.used;
}

// --- from what is known at run time to the instance: f(operand, activation), two tags.
template <class O> struct Tag { using type = O; };

template <class F> static auto with_types(DType type, Operands operands, const F& f) {
  switch (operands) {
#if defined(__AVX512VNNI__)
    case Operands::bytes: return type == DType::f32 ? f(Tag<quad>{}, Tag<float>{}) : f(Tag<quad>{}, Tag<bf16>{});
#endif
#if defined(__AVX512BF16__)
    case Operands::pairs: return f(Tag<pair>{}, Tag<bf16>{});
#endif
    default: return type == DType::f32 ? f(Tag<float>{}, Tag<float>{}) : f(Tag<float>{}, Tag<bf16>{});
  }
}

static int64_t memory_any(const EncoderRows& c, int64_t count) {
  return with_types(c.type, c.operands, [&](auto o, auto t) { return memory<typename decltype(o)::type, typename decltype(t)::type>(c, count); });
}

static void rows_any(const EncoderRows& c, int64_t begin, int64_t end, void* scratch) {
  with_types(c.type, c.operands, [&](auto o, auto t) { rows<typename decltype(o)::type, typename decltype(t)::type>(c, begin, end, scratch); });
}

static PackedShape packed_shape(Operands operands, int64_t in, int64_t out) {
  const int64_t rows = with_types(DType::bf16, operands, [&](auto o, auto) { return panel_rows<typename decltype(o)::type>(in); });
  return {panels_of(out), rows, panel_columns};
}

static void pack_panel_any(Operands operands, DType type, const void* weight, const float* bias, int64_t in, int64_t out, int64_t panel, void* words, float* column) {
  with_types(DType::bf16, operands, [&](auto o, auto) {
    using O = typename decltype(o)::type;
    if (type == DType::f32) pack_panel<O>(static_cast<const float*>(weight), bias, in, out, panel, words, column);
    else pack_panel<O>(static_cast<const bf16*>(weight), bias, in, out, panel, words, column);
  });
}

static Operands operands_of(DType weight) { return weight == DType::bf16 && Operand<bf16_operand>::depth == 2 ? Operands::pairs : Operands::f32; }

#if defined(__AVX512VNNI__)
constexpr bool has_bytes = true;
#else
constexpr bool has_bytes = false;
#endif

const EncoderKernels encoder_kernels = {operands_of, has_bytes, packed_shape, pack_panel_any, memory_any, rows_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
