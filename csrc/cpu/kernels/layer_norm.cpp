// Arithmetic of layer_norm. A row passes through an L1 buffer in the accumulation type, so that each tensor is read or written once, whatever is fused.
// See csrc/cpu/kernels/layer_norm.h.
#include "cpu/kernels/layer_norm.h"

#include "cpu/kernels/row_norm.h"

namespace electra {
namespace ELECTRA_ISA {

// Scratch: two rows in the accumulation type, then the dropout bytes of a group of rows. Each part is aligned to 64 bytes.
static int64_t row_bytes(DType type, int64_t n) { return (n * (type == DType::f64 ? 8 : 4) + 63) / 64 * 64; }
static int64_t scratch(DType type, int64_t n) { return 2 * row_bytes(type, n) + dropout_scratch(n); }

// row = x + x_bias (x_bias may be null)
template <class T>
static void load_row(const T* x, const acc_t<T>* x_bias, int64_t n, acc_t<T>* __restrict row) {
  if (x_bias) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) row[i] = load(x[i]) + x_bias[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) row[i] = load(x[i]);
  }
}

template <class A>
static void drop_row(A* __restrict row, const uint8_t* bytes, int threshold, int64_t n) {
  const A scale = A(256) / A(threshold);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) row[i] = drop(row[i], bytes[i], threshold, scale);
}

template <class T>
static void forward(const LayerNormForward& c, int64_t begin, int64_t end, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = c.n;
  const T *x = static_cast<const T*>(c.x), *residual = static_cast<const T*>(c.residual);
  const A *weight = static_cast<const A*>(c.weight), *bias = static_cast<const A*>(c.bias);
  T *y = static_cast<T*>(c.y), *sum = static_cast<T*>(c.sum);
  A* __restrict row = static_cast<A*>(scratch);
  uint8_t* bytes = static_cast<uint8_t*>(scratch) + 2 * row_bytes(c.type, n);
  const bool drops = c.dropout.threshold < 256;
  const int64_t group = drops ? dropout_rows(n) : 1, bytes_per_row = dropout_blocks(n) * 16;
  for (int64_t first = begin; first < end; first += group) {
    const int64_t rows = end - first < group ? end - first : group;
    if (drops) dropout_bytes(c.dropout.stream, first, rows, n, bytes);
    for (int64_t r = first; r < first + rows; ++r) {
      load_row(x + r * n, static_cast<const A*>(c.x_bias), n, row);
      if (drops) drop_row(row, bytes + (r - first) * bytes_per_row, c.dropout.threshold, n);
      if (residual) {
        const T* other = residual + r * n;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) row[i] += load(other[i]);
      }
      A mean, rstd;
      row_statistics(row, n, A(c.eps), mean, rstd);
      static_cast<A*>(c.mean)[r] = mean;
      static_cast<A*>(c.rstd)[r] = rstd;
      if (sum) {
        T* __restrict out = sum + r * n;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) store(out[i], row[i]);
      }
      T* __restrict out = y + r * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) store(out[i], (row[i] - mean) * rstd * weight[i] + bias[i]);
    }
  }
}

template <class T>
static void backward(const LayerNormBackward& c, int64_t begin, int64_t end, void* dweight_, void* dbias_, void* dx_bias_, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = c.n;
  const T *grad = static_cast<const T*>(c.grad), *sum = static_cast<const T*>(c.sum);
  const A *weight = static_cast<const A*>(c.weight), *mean = static_cast<const A*>(c.mean), *rstd = static_cast<const A*>(c.rstd);
  T *dx = static_cast<T*>(c.dx), *dresidual = static_cast<T*>(c.dresidual);
  A *dweight = static_cast<A*>(dweight_), *dbias = static_cast<A*>(dbias_);
  A* __restrict dx_bias = static_cast<A*>(dx_bias_);
  A* __restrict row = static_cast<A*>(scratch);
  A* __restrict s = reinterpret_cast<A*>(static_cast<char*>(scratch) + row_bytes(c.type, n));
  uint8_t* bytes = static_cast<uint8_t*>(scratch) + 2 * row_bytes(c.type, n);
  const bool drops = dx != nullptr;
  const int64_t group = drops ? dropout_rows(n) : 1, bytes_per_row = dropout_blocks(n) * 16;
  for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = 0;
  if (dx_bias)
    for (int64_t i = 0; i < n; ++i) dx_bias[i] = 0;
  for (int64_t first = begin; first < end; first += group) {
    const int64_t rows = end - first < group ? end - first : group;
    if (drops) dropout_bytes(c.dropout.stream, first, rows, n, bytes);
    for (int64_t r = first; r < first + rows; ++r) {
      load_row(grad + r * n, static_cast<const A*>(nullptr), n, row);
      load_row(sum + r * n, static_cast<const A*>(nullptr), n, s);
      row_norm_backward(row, s, weight, n, mean[r], rstd[r], dweight, dbias);
      T* __restrict out = dresidual + r * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) store(out[i], row[i]);
      if (drops) {
        drop_row(row, bytes + (r - first) * bytes_per_row, c.dropout.threshold, n);
        T* __restrict dropped = dx + r * n;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) store(dropped[i], row[i]);
      }
      if (dx_bias) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) dx_bias[i] += row[i];
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
