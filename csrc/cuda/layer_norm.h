// layer_norm on CUDA: the launchers. Formulas, shapes and what may be absent: docs/design.md. Design and figures: docs/notes/cuda-memory-bound-ops.md.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/dropout.h"
#include "cuda/dtype.h"

namespace electra::cuda {

constexpr int64_t layer_norm_most_columns = 8192;

// All tensors dense: x, residual, y, sum [rows, columns] of `type`; parameters [columns]; mean, rstd [rows] float.
struct LayerNormForward {
  DType type;
  const void* x;
  Parameter x_bias;       // data null: none
  const void* residual;   // null: none
  Parameter weight, bias;
  float eps;
  Dropout dropout;
  void* y;
  void* sum;   // null: not wanted
  float *mean, *rstd;
  int64_t rows;
  int columns;
};

struct LayerNormBackward {
  DType type;
  const void *grad, *sum;
  const float *mean, *rstd;
  Parameter weight;
  Dropout dropout;
  void* dx;   // null: no dropout, dx is dresidual
  void* dresidual;
  ParameterGradient dx_bias;   // data null: none
  ParameterGradient dweight, dbias;
  void* workspace;
  int64_t rows;
  int columns;
};

cudaError_t layer_norm_forward(const LayerNormForward& call, cudaStream_t stream);

// Bytes of `workspace`.
int64_t layer_norm_backward_workspace(int64_t rows, int columns, bool has_x_bias);
cudaError_t layer_norm_backward(const LayerNormBackward& call, cudaStream_t stream);

}  // namespace electra::cuda
