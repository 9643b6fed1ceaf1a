// discriminator_loss on CUDA: the launchers. Formulas and shapes: docs/design.md. Design and figures: docs/notes/cuda-memory-bound-ops.md.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/dtype.h"

namespace electra::cuda {

// hidden [rows, columns] of `type`; weight [columns], bias [1]; labels, mask [rows] of 0 or 1; logits [rows].
struct DiscriminatorLossForward {
  DType type;
  const void* hidden;
  Parameter weight, bias;
  const uint8_t *labels, *mask;   // mask null: all rows
  float *loss, *logits;
  void* workspace;
  int64_t rows;
  int columns;
};

struct DiscriminatorLossBackward {
  DType type;
  const float* grad;   // [1], of the loss
  const void* hidden;
  Parameter weight;
  const uint8_t *labels, *mask;
  const float* logits;
  void* dhidden;
  ParameterGradient dweight, dbias;
  void* workspace;
  int64_t rows;
  int columns;
};

int64_t discriminator_loss_workspace(int64_t rows);
cudaError_t discriminator_loss_forward(const DiscriminatorLossForward& call, cudaStream_t stream);

int64_t discriminator_loss_backward_workspace(int64_t rows, int columns);
cudaError_t discriminator_loss_backward(const DiscriminatorLossBackward& call, cudaStream_t stream);

}  // namespace electra::cuda
