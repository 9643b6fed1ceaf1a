// mask_tokens on CUDA: the torch boundary. Kernels: csrc/cuda/mask_tokens.cu.
//
// What the CPU checks by reading the data, CUDA does not: boundaries are taken as the nearest inside the tokens, and tokens beyond max_predictions are dropped.
#include "cuda/mask_tokens.h"

#include <cmath>

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

std::tuple<Tensor, Tensor, Tensor> mask_tokens(const Tensor& input_ids_, const Tensor& cu_seqlens_, const Tensor& special_ids_, int64_t mask_id, double probability,
                                               int64_t max_predictions, int64_t max_per_sequence, double replace_probability, bool with_replacement, const Tensor& rng,
                                               int64_t site) {
  const char* op = "mask_tokens";
  ELECTRA_CHECK(input_ids_.scalar_type() == ScalarType::Long && input_ids_.dim() == 1, op, ": input_ids must be int64 of shape [T], got ", shape_string(input_ids_));
  ELECTRA_CHECK(input_ids_.size(0) <= INT32_MAX, op, ": input_ids must have at most 2^31 - 1 tokens, got ", input_ids_.size(0));
  ELECTRA_CHECK(special_ids_.scalar_type() == ScalarType::Long && special_ids_.dim() == 1, op, ": special_ids must be int64 of shape [n], got ", shape_string(special_ids_));
  check_same_device(special_ids_, input_ids_, op, "special_ids", "input_ids");
  ELECTRA_CHECK(probability >= 0.0 && probability <= 1.0, op, ": probability must be in [0, 1], got ", probability);
  ELECTRA_CHECK(replace_probability >= 0.0 && replace_probability <= 1.0, op, ": replace_probability must be in [0, 1], got ", replace_probability);
  ELECTRA_CHECK(max_predictions >= 0, op, ": max_predictions must be at least 0, got ", max_predictions);
  const DeviceScope device(input_ids_);
  const Tensor input_ids = dense(input_ids_), special_ids = dense(special_ids_), cu_seqlens = checked_cu_seqlens(cu_seqlens_, input_ids_, op, "cu_seqlens");
  const int64_t tokens = input_ids.size(0), sequences = cu_seqlens.size(0) - 1;
  Tensor masked_ids = torch::stable::empty_like(input_ids);
  Tensor positions = torch::stable::new_empty(input_ids, {max_predictions}), targets = torch::stable::new_empty(input_ids, {max_predictions});
  Tensor scratch = workspace(input_ids, mask_tokens_workspace(tokens, sequences));
  const MaskTokens call = {static_cast<const int64_t*>(input_ids.const_data_ptr()),
                           static_cast<const int32_t*>(cu_seqlens.const_data_ptr()),
                           static_cast<const int64_t*>(special_ids.const_data_ptr()),
                           rng_pointer(rng, input_ids, op),
                           site,
                           tokens,
                           sequences,
                           special_ids.size(0),
                           mask_id,
                           probability,
                           max_predictions,
                           max_per_sequence,
                           uint64_t(std::floor(replace_probability * 4294967296.0)),
                           with_replacement,
                           static_cast<int64_t*>(masked_ids.mutable_data_ptr()),
                           static_cast<int64_t*>(positions.mutable_data_ptr()),
                           static_cast<int64_t*>(targets.mutable_data_ptr()),
                           scratch.mutable_data_ptr()};
  check_launch(cuda::mask_tokens(call, device.stream()), op);
  return {masked_ids, positions, targets};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) { m.impl("mask_tokens", TORCH_BOX(&electra::cuda::bindings::mask_tokens)); }
