// The element types of the CUDA kernels as they cross the boundary: plain C++, for the X.h headers.
#pragma once
#include <stdint.h>

namespace electra::cuda {

enum class DType { f32, bf16, f16 };

// A parameter (or its gradient) in the activations' dtype or in float32: the kernel reads it with load_parameter of types.cuh.
struct Parameter {
  const void* data = nullptr;
  DType type = DType::f32;
};

struct ParameterGradient {
  void* data = nullptr;
  DType type = DType::f32;
};

}  // namespace electra::cuda
