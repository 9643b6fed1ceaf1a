// replace_tokens on the CPU. A few integers a slot: no instruction set would show, so there is no kernel file.
#include "cpu/tensors.h"

namespace electra {
namespace {

constexpr int64_t unused = -100;

void check_slots(const Tensor& t, int64_t slots, const char* argument) {
  ELECTRA_CHECK(t.scalar_type() == ScalarType::Long && t.dim() == 1 && t.size(0) == slots, "replace_tokens: ", argument, " must be int64 of shape [", slots, "], got ",
                shape_string(t));
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }   // b > 0

std::tuple<Tensor, Tensor> replace_tokens(const Tensor& input_ids_, const Tensor& positions_, const Tensor& targets_, const Tensor& sampled_) {
  ELECTRA_CHECK(input_ids_.scalar_type() == ScalarType::Long && input_ids_.dim() == 1, "replace_tokens: input_ids must be int64 of shape [T], got ",
                shape_string(input_ids_));
  ELECTRA_CHECK(positions_.dim() == 1, "replace_tokens: positions must have shape [P], got ", shape_string(positions_));
  const int64_t tokens = input_ids_.size(0), slots = positions_.size(0);
  check_slots(positions_, slots, "positions");
  check_slots(targets_, slots, "targets");
  check_slots(sampled_, slots, "sampled");
  const Tensor input_ids = dense(input_ids_), positions = dense(positions_), targets = dense(targets_), sampled = dense(sampled_);
  Tensor corrupted = torch::stable::empty_like(input_ids), labels = torch::stable::new_empty(input_ids, {tokens}, ScalarType::Bool);
  const int64_t *original = static_cast<const int64_t*>(input_ids.const_data_ptr()), *position = static_cast<const int64_t*>(positions.const_data_ptr()),
                *target = static_cast<const int64_t*>(targets.const_data_ptr()), *sample = static_cast<const int64_t*>(sampled.const_data_ptr());
  int64_t* ids = static_cast<int64_t*>(corrupted.mutable_data_ptr());
  bool* label = static_cast<bool*>(labels.mutable_data_ptr());

  // Several draws may share a position (masking with replacement): the new id is then the floor of the mean of their samples.
  struct Mean { int64_t sum = 0, count = 0; };
  std::vector<Mean> means(static_cast<size_t>(tokens));
  for (int64_t p = 0; p < slots; ++p) {
    if (target[p] == unused) continue;
    ELECTRA_CHECK(position[p] >= 0 && position[p] < tokens, "replace_tokens: positions must be in [0, ", tokens, ") where used, got ", position[p], " in slot ", p);
    Mean& m = means[size_t(position[p])];
    m.sum += sample[p];
    ++m.count;
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const Mean& m = means[size_t(t)];
    ids[t] = m.count ? floor_divide(m.sum, m.count) : original[t];
    label[t] = ids[t] != original[t];
  }
  return {corrupted, labels};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) { m.impl("replace_tokens", TORCH_BOX(&electra::replace_tokens)); }
