// attention: softmax(q kᵀ · scale + mask), dropout, times v, over packed sequences; and its three gradients. Nothing of the size of a row of scores leaves cache.
#pragma once
#include <stdint.h>

#include "common/philox.h"
#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// A [tokens, heads, dim] tensor with a contiguous last dimension; strides in elements.
struct Strided {
  const void* data;
  int64_t row, head;
};

struct AttentionProblem {
  DType type;
  Strided q, k, v;
  int64_t heads, dim, rows_q;       // rows_q: the leading dimension of lse
  const int32_t *cu_seqlens_q, *cu_seqlens_k;
  double scale;
  bool causal;
  int threshold;                    // of dropout; 256 keeps everything
  PhiloxStream stream;
  void* out;                        // [rows_q, heads, dim], contiguous; read in backward
  void* lse;                        // [heads, rows_q], float or double
  Strided grad;                     // backward only, as the rest
  void *dq, *dk, *dv;               // contiguous
};

// The rows [begin, end) that one call of `forward` covers start at a multiple of `attention_chunk` and are at most so many.
constexpr int64_t attention_chunk = 512;

struct AttentionKernels {
  // Bytes of working memory of one call, aligned to 64.
  int64_t (*forward_bytes)(DType type, int64_t dim);
  int64_t (*backward_bytes)(DType type, int64_t dim, int64_t longest_k);
  // Writes out and lse of the queries [begin, end) of a sequence, one head.
  void (*forward)(const AttentionProblem&, int64_t sequence, int64_t head, int64_t begin, int64_t end, void* memory);
  // Writes dq, dk, dv of a sequence, one head.
  void (*backward)(const AttentionProblem&, int64_t sequence, int64_t head, void* memory);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(AttentionKernels, attention_kernels)
