// Arithmetic of layer_norm. Rows pass through L1 in small groups, so that each tensor is read or written once, whatever is fused.
// See csrc/cpu/kernels/layer_norm.h.
#include "cpu/kernels/layer_norm.h"

#include <type_traits>

#include "cpu/kernels/row_access.h"
#include "cpu/kernels/row_norm.h"

namespace electra {
namespace ELECTRA_ISA {

// Rows that are worked on together. Forward keeps their sums in float32 (8 KiB); backward reads grad and sum twice (4 KiB of each, and as much of the next group's).
constexpr int64_t forward_elements = 2048;
template <class T> constexpr int64_t backward_elements = 4096 / int64_t(sizeof(T));

static inline int64_t rows_of_group(int64_t n, int64_t elements) {
  const int64_t rows = elements / n;
  return rows < 1 ? 1 : rows > max_dropout_rows ? max_dropout_rows : rows;
}

// Scratch: the sums of a group of forward, a row of zeros or of sums nobody wants, and the dropout bytes of a group. Each part is aligned to 64 bytes.
template <class A>
struct Buffers {
  int64_t stride;
  A *rows, *row;
  uint8_t* bytes;
  Buffers(void* scratch, int64_t n) : stride(row_elements(n)) {
    rows = static_cast<A*>(scratch);
    row = rows + rows_of_group(n, forward_elements) * stride;
    bytes = reinterpret_cast<uint8_t*>(row + stride);
  }
  static int64_t row_elements(int64_t n) { return (n * int64_t(sizeof(A)) + 63) / 64 * 64 / int64_t(sizeof(A)); }
  static int64_t size(int64_t n) {
    static_assert(backward_elements<bf16> <= forward_elements);
    const int64_t group = rows_of_group(n, forward_elements);
    return (group + 1) * row_elements(n) * int64_t(sizeof(A)) + dropout_scratch(group, n);
  }
};

static int64_t scratch(DType type, int64_t n) { return type == DType::f64 ? Buffers<double>::size(n) : Buffers<float>::size(n); }

// Asks for the line that lies `elements` behind column i of a row, at p, where a line begins there: the next group's rows, while this one's are computed. They may be behind the end
// of the tensor. Spread over the row like this it is a fifth faster than all lines of a row at once.
template <class T> static inline void prefetch_ahead(const T* p, int64_t i, int64_t elements) {
  if (i % (64 / int64_t(sizeof(T))) == 0) __builtin_prefetch(reinterpret_cast<const void*>(uintptr_t(p) + uintptr_t(elements) * sizeof(T)));
}

// row = dropout(x + x_bias) + residual, also as `sum` if that is wanted; returns its mean.
template <bool drops, bool adds, bool streams, class T>
static inline acc_t<T> sum_row(const T* x, const acc_t<T>* x_bias, const uint8_t* bytes, int threshold, const T* residual, int64_t n, acc_t<T>* __restrict row, T* __restrict sum) {
  using A = acc_t<T>;
  const A scale = A(256) / A(threshold);
  const A total = sum_over_row<A>(n, [&](auto piece, int64_t i) {
    auto v = read(piece, x + i) + read(piece, x_bias + i);
    if constexpr (drops) v = drop(v, bytes + i, threshold, scale);
    if constexpr (adds) v += read(piece, residual + i);
    write<false>(row + i, v);
    if (sum) write<streams>(sum + i, v);
    return v;
  });
  return total / A(n);
}

template <class T, bool streams>
static void forward_rows(const LayerNormForward& c, int64_t begin, int64_t end, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = c.n, bytes_per_row = dropout_blocks(n) * 16;
  const T *x = static_cast<const T*>(c.x), *residual = static_cast<const T*>(c.residual);
  const A *weight = static_cast<const A*>(c.weight), *bias = static_cast<const A*>(c.bias), *x_bias = static_cast<const A*>(c.x_bias);
  T *y = static_cast<T*>(c.y), *sum = static_cast<T*>(c.sum);
  A *mean = static_cast<A*>(c.mean), *rstd = static_cast<A*>(c.rstd);
  const Buffers<A> b(scratch, n);
  const int64_t group = rows_of_group(n, forward_elements);
  const int threshold = c.dropout.threshold;
  const bool drops = threshold < 256;
  if (!x_bias) {   // a row of zeros in L1 costs less than another instance of the loop
    for (int64_t i = 0; i < n; ++i) b.row[i] = 0;
    x_bias = b.row;
  }
  for (int64_t first = begin; first < end; first += group) {
    const int64_t count = end - first < group ? end - first : group;
    if (drops) dropout_bytes(c.dropout.stream, first, count, n, b.bytes);
    for (int64_t r = 0; r < count; ++r) {
      const int64_t at = (first + r) * n;
      A* row = b.rows + r * b.stride;
      const T *from = x + at, *plus = residual ? residual + at : nullptr;
      T* kept = sum ? sum + at : nullptr;
      const uint8_t* bytes = b.bytes + r * bytes_per_row;
      mean[first + r] = drops && residual ? sum_row<true, true, streams>(from, x_bias, bytes, threshold, plus, n, row, kept)
                        : drops           ? sum_row<true, false, streams>(from, x_bias, bytes, threshold, plus, n, row, kept)
                        : residual        ? sum_row<false, true, streams>(from, x_bias, bytes, threshold, plus, n, row, kept)
                                          : sum_row<false, false, streams>(from, x_bias, bytes, threshold, plus, n, row, kept);
    }
    for (int64_t r = 0; r < count; ++r) rstd[first + r] = A(1) / square_root(row_squares(b.rows + r * b.stride, n, mean[first + r]) / A(n) + A(c.eps));
    for (int64_t r = 0; r < count; ++r) {
      const A *row = b.rows + r * b.stride, m = mean[first + r], s = rstd[first + r];
      T* __restrict out = y + (first + r) * n;
      over_row<A>(n, [&](auto piece, int64_t i) {
        prefetch_ahead(x + (first + r) * n + i, i, group * n);
        if (residual) prefetch_ahead(residual + (first + r) * n + i, i, group * n);
        write<streams>(out + i, (read(piece, row + i) - m) * s * read(piece, weight + i) + read(piece, bias + i));
      });
    }
  }
  if constexpr (streams) end_stream();
}

template <class T>
static void forward(const LayerNormForward& c, int64_t begin, int64_t end, void* scratch) {
  if (c.stream) forward_rows<T, true>(c, begin, end, scratch);
  else forward_rows<T, false>(c, begin, end, scratch);
}

// What the gradients of rows are made of, a row of n after the other; of mean and so on, one number a row.
template <class T> struct Rows {
  const T *grad, *sum;
  const acc_t<T> *mean, *rstd, *c1, *c2;
};

// dresidual and, where dropout drops, dx of R rows; adds them to dx_bias, which is read and written once for all R, as the weight is read. See norm_gradient.
template <int R, bool drops, bool streams, class T>
static inline void write_gradients(const Rows<T>& rows, const acc_t<T>* weight, int64_t n, int64_t ahead, const uint8_t* bytes, int threshold, T* __restrict dresidual,
                                   T* __restrict dx, acc_t<T>* __restrict dx_bias) {
  using A = acc_t<T>;
  const int64_t bytes_per_row = dropout_blocks(n) * 16;
  const A scale = A(256) / A(threshold);
  A mean[R], rstd[R], slope[R], offset[R];   // d = rstd g w - (slope (sum - mean) + offset)
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) mean[r] = rows.mean[r], rstd[r] = rows.rstd[r], slope[r] = rstd[r] * rstd[r] * rows.c2[r], offset[r] = rstd[r] * rows.c1[r];
  over_row<A>(n, [&](auto p, int64_t i) {
    const auto w = read(p, weight + i);
    auto total = read(p, dx_bias + i);
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) {
      const int64_t at = r * n + i;
      prefetch_ahead(rows.grad + at, i, ahead);
      prefetch_ahead(rows.sum + at, i, ahead);
      const auto d = read(p, rows.grad + at) * w * rstd[r] - ((read(p, rows.sum + at) - mean[r]) * slope[r] + offset[r]);
      write<streams>(dresidual + at, d);
      if constexpr (drops) {
        const auto kept = drop(d, bytes + r * bytes_per_row + i, threshold, scale);
        write<streams>(dx + at, kept);
        total += kept;
      } else {
        total += d;
      }
    }
    write<false>(dx_bias + i, total);
  });
}

template <class T, bool streams>
static void backward_rows(const LayerNormBackward& c, int64_t begin, int64_t end, void* dweight_, void* dbias_, void* dx_bias_, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = c.n, bytes_per_row = dropout_blocks(n) * 16;
  const T *grad = static_cast<const T*>(c.grad), *sum = static_cast<const T*>(c.sum);
  const A *weight = static_cast<const A*>(c.weight), *mean = static_cast<const A*>(c.mean), *rstd = static_cast<const A*>(c.rstd);
  T *dx = static_cast<T*>(c.dx), *dresidual = static_cast<T*>(c.dresidual);
  A *dweight = static_cast<A*>(dweight_), *dbias = static_cast<A*>(dbias_);
  const Buffers<A> b(scratch, n);
  const int64_t group = rows_of_group(n, backward_elements<T>);
  A* __restrict dx_bias = dx_bias_ ? static_cast<A*>(dx_bias_) : b.row;   // summed in any case: see forward's x_bias
  const int threshold = c.dropout.threshold;
  for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = dx_bias[i] = 0;
  A c1[max_dropout_rows], c2[max_dropout_rows];
  for (int64_t first = begin; first < end; first += group) {
    const int64_t count = end - first < group ? end - first : group;
    if (dx) dropout_bytes(c.dropout.stream, first, count, n, b.bytes);
    reduce_rows(grad + first * n, n, sum + first * n, n, count, weight, n, mean + first, rstd + first, dweight, dbias, c1, c2);
    const auto gradients = [&](auto rows, int64_t r) {
      const int64_t at = (first + r) * n;
      const Rows<T> now = {grad + at, sum + at, mean + first + r, rstd + first + r, c1 + r, c2 + r};
      if (dx) write_gradients<rows, true, streams>(now, weight, n, group * n, b.bytes + r * bytes_per_row, threshold, dresidual + at, dx + at, dx_bias);
      else write_gradients<rows, false, streams>(now, weight, n, group * n, nullptr, threshold, dresidual + at, static_cast<T*>(nullptr), dx_bias);
    };
    int64_t r = 0;
    for (; r + 2 <= count; r += 2) gradients(std::integral_constant<int, 2>{}, r);
    if (r < count) gradients(std::integral_constant<int, 1>{}, r);
  }
  if constexpr (streams) end_stream();
}

template <class T>
static void backward(const LayerNormBackward& c, int64_t begin, int64_t end, void* dweight, void* dbias, void* dx_bias, void* scratch) {
  if (c.stream) backward_rows<T, true>(c, begin, end, dweight, dbias, dx_bias, scratch);
  else backward_rows<T, false>(c, begin, end, dweight, dbias, dx_bias, scratch);
}

static void forward_any(const LayerNormForward& call, int64_t begin, int64_t end, void* scratch) { ELECTRA_DISPATCH(call.type, forward, call, begin, end, scratch); }

static void backward_any(const LayerNormBackward& call, int64_t begin, int64_t end, void* dweight, void* dbias, void* dx_bias, void* scratch) {
  ELECTRA_DISPATCH(call.type, backward, call, begin, end, dweight, dbias, dx_bias, scratch);
}

const LayerNormKernels layer_norm_kernels = {scratch, forward_any, backward_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
