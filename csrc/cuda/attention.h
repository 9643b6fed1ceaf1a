// Attention on CUDA as it crosses the boundary: plain C++. What is computed: docs/design.md; how: docs/notes/cuda-attention.md.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/dropout.h"
#include "cuda/dtype.h"

namespace electra::cuda {

// [rows, heads, dim] with a contiguous last dimension; strides in elements. Base and strides are multiples of 16 bytes.
struct AttentionRows {
  const void* data = nullptr;
  int64_t row_stride = 0, head_stride = 0;
};

struct AttentionProblem {
  DType type = DType::bf16;   // bf16 or f16
  AttentionRows q, k, v;
  const int32_t *cu_seqlens_q = nullptr, *cu_seqlens_k = nullptr;   // [batch + 1]
  int64_t rows_q = 0, rows_k = 0;                                   // rows behind the last sequence are padding
  int64_t max_seqlen_q = 0, max_seqlen_k = 0;                       // bounds of the sequences' lengths
  int batch = 0, heads = 0, dim = 0;                                // dim: a multiple of 8, at most 128
  float scale = 1.f;
  bool causal = false;                                              // query i sees the keys j <= i + nk - nq
  Dropout dropout;
};

struct AttentionForward : AttentionProblem {
  void* out = nullptr;    // [rows_q, heads, dim]
  float* lse = nullptr;   // [heads, rows_q], natural logarithm, -inf where a row sees no key
};

struct AttentionBackward : AttentionProblem {
  AttentionRows grad;
  const void* out = nullptr;                                   // as the forward wrote it
  const float* lse = nullptr;
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;            // [rows, heads, dim]
  float* delta = nullptr;                                      // workspace of attention_workspace floats
};

// The widest head dimension, and what it is a multiple of.
inline constexpr int attention_max_dim = 128, attention_dim_step = 8;

// Floats of AttentionBackward::delta, [heads, rows_q].
inline int64_t attention_workspace(const AttentionProblem& p) { return int64_t(p.heads) * p.rows_q; }

cudaError_t attention_forward(const AttentionForward& p, cudaStream_t stream);
cudaError_t attention_backward(const AttentionBackward& p, cudaStream_t stream);

}  // namespace electra::cuda
