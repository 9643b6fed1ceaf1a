// replace_tokens on CUDA: the launcher. Rules: docs/design.md.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace electra::cuda {

struct ReplaceTokens {
  const int64_t* input_ids;                          // [tokens]
  const int64_t *positions, *targets, *sampled;      // [slots]
  int64_t tokens, slots;
  int64_t* corrupted;                                // [tokens]
  bool* labels;                                      // [tokens]
  void* workspace;
};

int64_t replace_tokens_workspace(int64_t tokens);

// Positions outside [0, tokens) are left out.
cudaError_t replace_tokens(const ReplaceTokens& call, cudaStream_t stream);

}  // namespace electra::cuda
