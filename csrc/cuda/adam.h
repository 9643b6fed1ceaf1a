// adam on CUDA: the launcher. Formula: docs/design.md. Design and figures: docs/notes/cuda-memory-bound-ops.md.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include <vector>

namespace electra::cuda {

// A parameter with what belongs to it, dense float32 of `count` elements.
struct AdamTensor {
  float* p;
  const float* g;
  float *m, *v;
  int64_t count;
  float decay;
};

// One number in device memory, float32 or float64: read by the kernel, so that nothing waits for the host and a captured graph follows the schedule.
struct DeviceScalar {
  const void* data;
  bool is_double;
};

struct AdamStep {
  DeviceScalar learning_rate, grad_scale;
  double beta1, beta2, eps;
};

cudaError_t adam_update(const std::vector<AdamTensor>& tensors, const AdamStep& step, cudaStream_t stream);

}  // namespace electra::cuda
