// mask_tokens on CUDA: the launcher. Rules: docs/design.md, "Masking".
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

namespace electra::cuda {

struct MaskTokens {
  const int64_t* input_ids;                    // [tokens]
  const int32_t* cu_seqlens;                   // [sequences + 1]
  const int64_t* special_ids;                  // [specials]
  const int64_t* rng;                          // (seed, step) in device memory
  int64_t site;
  int64_t tokens, sequences, specials, mask_id;
  double probability;
  int64_t max_predictions, max_per_sequence;   // max_per_sequence below 0: no cap
  uint64_t decide;                             // a decision word below this writes [MASK]
  bool with_replacement;
  int64_t *masked_ids, *positions, *targets;   // [tokens], [max_predictions], [max_predictions]
  void* workspace;
};

int64_t mask_tokens_workspace(int64_t tokens, int64_t sequences);

// Tokens chosen beyond max_predictions are dropped, the last in the order of the slots first: they keep their id and have no slot. Boundaries outside [0, tokens]
// are taken as the nearest inside.
cudaError_t mask_tokens(const MaskTokens& call, cudaStream_t stream);

}  // namespace electra::cuda
