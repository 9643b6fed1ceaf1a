// generator_head on CUDA: of logits = hidden weightᵀ + bias, per slot the log-sum-exp, the target's logit, the argmax and one sample; and the gradients of
// loss = lse - logit[target]. Logits exist only as tiles in registers. Rules: docs/design.md; design and rooflines: docs/notes/cuda-generator-head.md.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/dtype.h"

namespace electra::cuda {

inline constexpr int64_t unused_target = -100;   // in `targets`: a slot that nothing is computed for

inline constexpr int64_t generator_most_slots = (int64_t(1) << 31) - (int64_t(1) << 15);   // counted in int32, up to a whole block
inline constexpr int64_t generator_most_columns = 65535 * int64_t(128);                    // the second dimension of a grid, in blocks of 128

// What of the current device decides which kernels run.
struct GeneratorDevice {
  int major;          // of its compute capability
  int shared_limit;   // bytes of shared memory a block may ask for
};
cudaError_t generator_device(GeneratorDevice& device);

// What both passes read. Rows are dense and 16-byte aligned.
struct GeneratorProblem {
  DType type;                    // of hidden and weight: bf16 or f16
  const void *hidden, *weight;   // [slots, features], [columns, features]
  Parameter bias;                // [columns]
  const int64_t* targets;        // [slots]
  int64_t slots, columns;        // at most generator_most_slots and generator_most_columns
  int features;                  // a multiple of 8
  GeneratorDevice device;
};

// `workspace` has the bytes that the function below asks for and is aligned to 256.
struct GeneratorForward {
  GeneratorProblem problem;
  double temperature;
  bool disallow_correct;
  const int64_t* rng;            // (seed, step) in device memory
  int64_t site;
  float *loss, *lse;             // [slots], 0 where unused; loss is NaN where a target lies outside the vocabulary
  int64_t *sampled, *predicted;  // [slots], 0 where unused
  void* workspace;
};

struct GeneratorBackward {
  GeneratorProblem problem;
  const float *lse, *grad;       // [slots]
  void* dhidden;                 // [slots, features] of problem.type, 16-byte aligned
  ParameterGradient dweight;     // [columns, features], problem.type or float, 16-byte aligned
  ParameterGradient dbias;       // [columns], problem.type or float
  void* workspace;
};

int64_t generator_forward_workspace(const GeneratorProblem& problem);
cudaError_t generator_forward(const GeneratorForward& call, cudaStream_t stream);

int64_t generator_backward_workspace(const GeneratorProblem& problem, DType dweight_type);
cudaError_t generator_backward(const GeneratorBackward& call, cudaStream_t stream);

}  // namespace electra::cuda
