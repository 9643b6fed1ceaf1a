// Arithmetic of embedding. The sum of the three rows is made anew in backward: three gathers cost less than storing [rows, n]. See csrc/cpu/kernels/embedding.h.
#include "cpu/kernels/embedding.h"

#include "cpu/kernels/row_norm.h"

namespace electra {
namespace ELECTRA_ISA {

// Scratch: a group of rows in the accumulation type, then its dropout bytes. Each part is aligned to 64 bytes.
static int64_t row_bytes(DType type, int64_t n) { return (n * (type == DType::f64 ? 8 : 4) + 63) / 64 * 64; }
static int64_t scratch(DType type, int64_t n) { return dropout_rows(n) * row_bytes(type, n) + dropout_scratch(dropout_rows(n), n); }

template <class A, class Table>
static void gather(const EmbeddingInputs& in, int64_t r, A* __restrict row) {
  const int64_t n = in.n;
  const Table* word = static_cast<const Table*>(in.word) + in.input_ids[r] * n;
  const Table* position = static_cast<const Table*>(in.position) + in.position_ids[r] * n;
  const Table* token_type = static_cast<const Table*>(in.token_type) + in.token_type_ids[r] * n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) row[i] = A(load(word[i])) + A(load(position[i])) + A(load(token_type[i]));
}

// The tables are float32 or of the activations' type: float64 tables come with float64 activations only.
static void gather_any(const EmbeddingInputs& in, int64_t r, float* row) {
  if (in.table_type == DType::bf16) gather<float, bf16>(in, r, row);
  else gather<float, float>(in, r, row);
}
static void gather_any(const EmbeddingInputs& in, int64_t r, double* row) {
  if (in.table_type == DType::f64) gather<double, double>(in, r, row);
  else gather<double, float>(in, r, row);
}

template <class T>
static void forward(const EmbeddingInputs& in, double eps, void* y_, void* mean_, void* rstd_, int64_t begin, int64_t end, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = in.n, stride = row_bytes(in.type, n) / int64_t(sizeof(A)), group = dropout_rows(n), bytes_per_row = dropout_blocks(n) * 16;
  const A *weight = static_cast<const A*>(in.weight), *bias = static_cast<const A*>(in.bias);
  A *mean = static_cast<A*>(mean_), *rstd = static_cast<A*>(rstd_), *rows = static_cast<A*>(scratch);
  uint8_t* group_bytes = reinterpret_cast<uint8_t*>(rows + group * stride);
  const int threshold = in.dropout.threshold;
  const A scale = A(256) / A(threshold);
  const bool drops = threshold < 256;
  for (int64_t first = begin; first < end; first += group) {
    const int64_t count = end - first < group ? end - first : group;
    if (drops) dropout_bytes(in.dropout.stream, first, count, n, group_bytes);
    for (int64_t r = 0; r < count; ++r) gather_any(in, first + r, rows + r * stride);
    row_statistics(rows, stride, count, n, A(eps), mean + first, rstd + first);
    for (int64_t r = 0; r < count; ++r) {
      const A *row = rows + r * stride, m = mean[first + r], s = rstd[first + r];
      T* __restrict y = static_cast<T*>(y_) + (first + r) * n;
      if (drops) {
        const uint8_t* bytes = group_bytes + r * bytes_per_row;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) store(y[i], drop((row[i] - m) * s * weight[i] + bias[i], bytes[i], threshold, scale));
      } else {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) store(y[i], (row[i] - m) * s * weight[i] + bias[i]);
      }
    }
  }
}

template <class T>
static void backward(const EmbeddingInputs& in, const void* grad_, const void* mean_, const void* rstd_, void* dsum_, void* dweight_, void* dbias_, int64_t begin,
                     int64_t end, void* scratch) {
  using A = acc_t<T>;
  const int64_t n = in.n, stride = row_bytes(in.type, n) / int64_t(sizeof(A)), group = dropout_rows(n), bytes_per_row = dropout_blocks(n) * 16;
  const T* grad = static_cast<const T*>(grad_);
  const A *weight = static_cast<const A*>(in.weight), *mean = static_cast<const A*>(mean_), *rstd = static_cast<const A*>(rstd_);
  A *dweight = static_cast<A*>(dweight_), *dbias = static_cast<A*>(dbias_), *rows = static_cast<A*>(scratch);
  uint8_t* group_bytes = reinterpret_cast<uint8_t*>(rows + group * stride);
  const int threshold = in.dropout.threshold;
  const A scale = A(256) / A(threshold);
  const bool drops = threshold < 256;
  for (int64_t i = 0; i < n; ++i) dweight[i] = dbias[i] = 0;
  A c1[max_dropout_rows], c2[max_dropout_rows];
  for (int64_t first = begin; first < end; first += group) {
    const int64_t count = end - first < group ? end - first : group;
    if (drops) dropout_bytes(in.dropout.stream, first, count, n, group_bytes);
    A* dsum = static_cast<A*>(dsum_) + first * n;   // holds the gradient of the normalised rows until that of the sum replaces it
    for (int64_t r = 0; r < count; ++r) {
      gather_any(in, first + r, rows + r * stride);
      const T* g = grad + (first + r) * n;
      A* __restrict d = dsum + r * n;
      if (drops) {
        const uint8_t* bytes = group_bytes + r * bytes_per_row;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) d[i] = drop(load(g[i]), bytes[i], threshold, scale);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) d[i] = load(g[i]);
      }
    }
    reduce_rows(dsum, n, rows, stride, count, weight, n, mean + first, rstd + first, dweight, dbias, c1, c2);
    for (int64_t r = 0; r < count; ++r) {
      const A *s = rows + r * stride, m = mean[first + r], q = rstd[first + r], c1r = c1[r], c2r = c2[r];
      A* __restrict d = dsum + r * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) d[i] = norm_gradient(d[i], s[i], weight[i], m, q, c1r, c2r);
    }
  }
}

template <class A, class Out>
static void sum_rows_as(const void* rows_, const int64_t* index, int64_t count, int64_t n, void* out_) {
  const A* rows = static_cast<const A*>(rows_);
  Out* __restrict out = static_cast<Out*>(out_);
  constexpr int64_t tile = 128;
  for (int64_t i0 = 0; i0 < n; i0 += tile) {
    const int64_t m = n - i0 < tile ? n - i0 : tile;
    A total[tile];
    for (int64_t i = 0; i < m; ++i) total[i] = 0;
    for (int64_t k = 0; k < count; ++k) {
      const A* row = rows + (index ? index[k] : k) * n + i0;
#pragma omp simd
      for (int64_t i = 0; i < m; ++i) total[i] += row[i];
    }
#pragma omp simd
    for (int64_t i = 0; i < m; ++i) store(out[i0 + i], acc_t<Out>(total[i]));
  }
}

static void sum_rows(DType accumulate, DType out_type, const void* rows, const int64_t* index, int64_t count, int64_t n, void* out) {
  if (accumulate == DType::f64) {
    if (out_type == DType::f64) sum_rows_as<double, double>(rows, index, count, n, out);
    else sum_rows_as<double, float>(rows, index, count, n, out);
  } else {
    if (out_type == DType::bf16) sum_rows_as<float, bf16>(rows, index, count, n, out);
    else sum_rows_as<float, float>(rows, index, count, n, out);
  }
}

static void forward_any(const EmbeddingInputs& in, double eps, void* y, void* mean, void* rstd, int64_t begin, int64_t end, void* scratch) {
  ELECTRA_DISPATCH(in.type, forward, in, eps, y, mean, rstd, begin, end, scratch);
}

static void backward_any(const EmbeddingInputs& in, const void* grad, const void* mean, const void* rstd, void* dsum, void* dweight, void* dbias, int64_t begin,
                         int64_t end, void* scratch) {
  ELECTRA_DISPATCH(in.type, backward, in, grad, mean, rstd, dsum, dweight, dbias, begin, end, scratch);
}

const EmbeddingKernels embedding_kernels = {scratch, forward_any, backward_any, sum_rows};

}  // namespace ELECTRA_ISA
}  // namespace electra
