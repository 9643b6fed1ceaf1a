// Arithmetic of layer_norm. Groups of rows pass through L1 buffers in the accumulation type, so that each tensor is read or written once, whatever is fused.
// See csrc/cpu/kernels/layer_norm.h.
#include "cpu/kernels/layer_norm.h"

#include "cpu/kernels/row_norm.h"

namespace electra {
namespace ELECTRA_ISA {

// Scratch: two groups of rows and one row in the accumulation type, then the dropout bytes of a group. Each part is aligned to 64 bytes.
template <class A>
struct Buffers {
  int64_t stride, group;
  A *rows, *other, *row;
  uint8_t* bytes;
  Buffers(void* scratch, int64_t n) : stride((n * int64_t(sizeof(A)) + 63) / 64 * 64 / int64_t(sizeof(A))), group(dropout_rows(n)) {
    rows = static_cast<A*>(scratch);
    other = rows + group * stride;
    row = other + group * stride;
    bytes = reinterpret_cast<uint8_t*>(row + stride);
  }
};

static int64_t scratch(DType type, int64_t n) {
  const int64_t row_bytes = (n * (type == DType::f64 ? 8 : 4) + 63) / 64 * 64;
  return (2 * dropout_rows(n) + 1) * row_bytes + dropout_scratch(n);
}

// row = dropout(x + x_bias) + residual; residual is read where `adds`.
template <bool drops, bool adds, class T>
static inline void sum_row(const T* x, const acc_t<T>* x_bias, const uint8_t* bytes, int threshold, const T* residual, int64_t n, acc_t<T>* __restrict row) {
  using A = acc_t<T>;
  const A scale = A(256) / A(threshold);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A v = load(x[i]) + x_bias[i];
    if constexpr (drops) v = drop(v, bytes[i], threshold, scale);
    if constexpr (adds) v += load(residual[i]);
    row[i] = v;
  }
}

template <class T>
static void forward(const LayerNormForward& c, int64_t begin, int64_t end, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = c.n, bytes_per_row = dropout_blocks(n) * 16;
  const T *x = static_cast<const T*>(c.x), *residual = static_cast<const T*>(c.residual);
  const A *weight = static_cast<const A*>(c.weight), *bias = static_cast<const A*>(c.bias), *x_bias = static_cast<const A*>(c.x_bias);
  T *y = static_cast<T*>(c.y), *sum = static_cast<T*>(c.sum);
  A *mean = static_cast<A*>(c.mean), *rstd = static_cast<A*>(c.rstd);
  const Buffers<A> b(scratch, n);
  const int threshold = c.dropout.threshold;
  const bool drops = threshold < 256;
  if (!x_bias) {   // a row of zeros in L1 costs less than another instance of the loop
    for (int64_t i = 0; i < n; ++i) b.row[i] = 0;
    x_bias = b.row;
  }
  for (int64_t first = begin; first < end; first += b.group) {
    const int64_t count = end - first < b.group ? end - first : b.group;
    if (drops) dropout_bytes(c.dropout.stream, first, count, n, b.bytes);
    for (int64_t r = 0; r < count; ++r) {
      A* row = b.rows + r * b.stride;
      const T *from = x + (first + r) * n, *plus = residual ? residual + (first + r) * n : nullptr;
      const uint8_t* bytes = b.bytes + r * bytes_per_row;
      if (drops && residual) sum_row<true, true>(from, x_bias, bytes, threshold, plus, n, row);
      else if (drops) sum_row<true, false>(from, x_bias, bytes, threshold, plus, n, row);
      else if (residual) sum_row<false, true>(from, x_bias, bytes, threshold, plus, n, row);
      else sum_row<false, false>(from, x_bias, bytes, threshold, plus, n, row);
    }
    row_statistics(b.rows, b.stride, count, n, A(c.eps), mean + first, rstd + first);
    for (int64_t r = 0; r < count; ++r) {
      const A *row = b.rows + r * b.stride, m = mean[first + r], s = rstd[first + r];
      if (sum) {
        T* __restrict out = sum + (first + r) * n;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) store(out[i], row[i]);
      }
      T* __restrict out = y + (first + r) * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) store(out[i], (row[i] - m) * s * weight[i] + bias[i]);
    }
  }
}

template <class T>
static inline void load_row(const T* x, int64_t n, acc_t<T>* __restrict row) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) row[i] = load(x[i]);
}

template <class T>
static void backward(const LayerNormBackward& c, int64_t begin, int64_t end, void* dweight_, void* dbias_, void* dx_bias_, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = c.n, bytes_per_row = dropout_blocks(n) * 16;
  const T *grad = static_cast<const T*>(c.grad), *sum = static_cast<const T*>(c.sum);
  const A *weight = static_cast<const A*>(c.weight), *mean = static_cast<const A*>(c.mean), *rstd = static_cast<const A*>(c.rstd);
  T *dx = static_cast<T*>(c.dx), *dresidual = static_cast<T*>(c.dresidual);
  A *dweight = static_cast<A*>(dweight_), *dbias = static_cast<A*>(dbias_);
  const Buffers<A> b(scratch, n);
  A* __restrict dx_bias = dx_bias_ ? static_cast<A*>(dx_bias_) : b.row;   // summed in any case: see forward's x_bias
  const int threshold = c.dropout.threshold;
  const A scale = A(256) / A(threshold);
  for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = dx_bias[i] = 0;
  A c1[max_dropout_rows], c2[max_dropout_rows];
  for (int64_t first = begin; first < end; first += b.group) {
    const int64_t count = end - first < b.group ? end - first : b.group;
    if (dx) dropout_bytes(c.dropout.stream, first, count, n, b.bytes);
    for (int64_t r = 0; r < count; ++r) {
      load_row(grad + (first + r) * n, n, b.rows + r * b.stride);
      load_row(sum + (first + r) * n, n, b.other + r * b.stride);
    }
    reduce_rows(b.rows, b.stride, b.other, b.stride, count, weight, n, mean + first, rstd + first, dweight, dbias, c1, c2);
    for (int64_t r = 0; r < count; ++r) {
      const A *g = b.rows + r * b.stride, *s = b.other + r * b.stride;
      const A m = mean[first + r], q = rstd[first + r], c1r = c1[r], c2r = c2[r];
      T* __restrict out = dresidual + (first + r) * n;
      if (dx) {
        T* __restrict dropped = dx + (first + r) * n;
        const uint8_t* bytes = b.bytes + r * bytes_per_row;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
          const A d = norm_gradient(g[i], s[i], weight[i], m, q, c1r, c2r), kept = drop(d, bytes[i], threshold, scale);
          store(out[i], d);
          store(dropped[i], kept);
          dx_bias[i] += kept;
        }
      } else {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
          const A d = norm_gradient(g[i], s[i], weight[i], m, q, c1r, c2r);
          store(out[i], d);
          dx_bias[i] += d;
        }
      }
    }
  }
}

static void forward_any(const LayerNormForward& call, int64_t begin, int64_t end, void* scratch) { ELECTRA_DISPATCH(call.type, forward, call, begin, end, scratch); }

static void backward_any(const LayerNormBackward& call, int64_t begin, int64_t end, void* dweight, void* dbias, void* dx_bias, void* scratch) {
  ELECTRA_DISPATCH(call.type, backward, call, begin, end, dweight, dbias, dx_bias, scratch);
}

const LayerNormKernels layer_norm_kernels = {scratch, forward_any, backward_any};

}  // namespace ELECTRA_ISA
}  // namespace electra
