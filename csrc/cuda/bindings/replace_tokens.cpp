// replace_tokens on CUDA: the torch boundary. Kernels: csrc/cuda/replace_tokens.cu. Positions are not checked here (they are in device memory): one outside writes nothing.
#include "cuda/replace_tokens.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

Tensor checked_slots(const Tensor& t, int64_t slots, const Tensor& input_ids, const char* argument) {
  ELECTRA_CHECK(t.scalar_type() == ScalarType::Long && t.dim() == 1 && t.size(0) == slots, "replace_tokens: ", argument, " must be int64 of shape [", slots, "], got ",
                shape_string(t));
  check_same_device(t, input_ids, "replace_tokens", argument, "input_ids");
  return dense(t);
}

const int64_t* integers(const Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); }

std::tuple<Tensor, Tensor> replace_tokens(const Tensor& input_ids_, const Tensor& positions_, const Tensor& targets_, const Tensor& sampled_) {
  ELECTRA_CHECK(input_ids_.scalar_type() == ScalarType::Long && input_ids_.dim() == 1, "replace_tokens: input_ids must be int64 of shape [T], got ", shape_string(input_ids_));
  ELECTRA_CHECK(positions_.dim() == 1, "replace_tokens: positions must have shape [P], got ", shape_string(positions_));
  const DeviceScope device(input_ids_);
  const int64_t tokens = input_ids_.size(0), slots = positions_.size(0);
  const Tensor input_ids = dense(input_ids_), positions = checked_slots(positions_, slots, input_ids_, "positions"),
               targets = checked_slots(targets_, slots, input_ids_, "targets"), sampled = checked_slots(sampled_, slots, input_ids_, "sampled");
  Tensor corrupted = torch::stable::empty_like(input_ids), labels = torch::stable::new_empty(input_ids, {tokens}, ScalarType::Bool);
  Tensor scratch = workspace(input_ids, replace_tokens_workspace(tokens));
  const ReplaceTokens call = {integers(input_ids), integers(positions), integers(targets), integers(sampled), tokens, slots,
                              static_cast<int64_t*>(corrupted.mutable_data_ptr()), static_cast<bool*>(labels.mutable_data_ptr()), scratch.mutable_data_ptr()};
  check_launch(cuda::replace_tokens(call, device.stream()), "replace_tokens");
  return {corrupted, labels};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) { m.impl("replace_tokens", TORCH_BOX(&electra::cuda::bindings::replace_tokens)); }
