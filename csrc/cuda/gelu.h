// gelu on CUDA: the calls between the torch boundary (bindings/gelu.cpp) and the kernels (gelu.cu).
#pragma once
#include <cuda_runtime_api.h>
#include <stddef.h>

#include "cuda/dtype.h"

namespace electra::cuda {

// y = z Φ(z), z = x + bias. x, y: [rows, n] dense, of `type`; bias: [n], or null data for none.
struct GeluForward {
  DType type;
  const void* x;
  Parameter bias;
  void* y;
  int64_t rows, n;
};

// dx = grad (Φ(z) + z φ(z)); dbias is its sum over the rows. Without bias: bias.data, dbias.data and workspace are null.
struct GeluBackward {
  DType type;
  const void *grad, *x;
  Parameter bias;
  void* dx;
  ParameterGradient dbias;
  void* workspace;   // gelu_backward_workspace(rows, n) bytes, 16-byte aligned
  int64_t rows, n;
};

size_t gelu_backward_workspace(int64_t rows, int64_t n);   // with a bias
cudaError_t gelu_forward(const GeluForward& call, cudaStream_t stream);
cudaError_t gelu_backward(const GeluBackward& call, cudaStream_t stream);

}  // namespace electra::cuda
