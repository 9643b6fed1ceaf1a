// replace_tokens on the CPU. A few integers a slot: no instruction set would show, so there is no kernel file.
#include <cstring>

#include "cpu/tensors.h"

namespace electra {
namespace {

constexpr int64_t unused = -100;

void check_slots(const Tensor& t, int64_t slots, const char* argument) {
  ELECTRA_CHECK(t.scalar_type() == ScalarType::Long && t.dim() == 1 && t.size(0) == slots, "replace_tokens: ", argument, " must be int64 of shape [", slots, "], got ",
                shape_string(t));
}

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }   // b > 0

struct Slots {
  const int64_t *position, *target, *sample;
  int64_t count, tokens;

  bool used(int64_t p) const { return target[p] != unused; }
  int64_t checked_position(int64_t p) const {
    ELECTRA_CHECK(position[p] >= 0 && position[p] < tokens, "replace_tokens: positions must be in [0, ", tokens, ") where used, got ", position[p], " in slot ", p);
    return position[p];
  }
};

// Several draws may share a position (masking with replacement): the new id is then the floor of the mean of their samples.
struct Mean {
  int64_t sum = 0, count = 0;
  void add(int64_t sample) { sum += sample, ++count; }
  int64_t floor() const { return count == 1 ? sum : floor_divide(sum, count); }
};

// write(position, id) once for each position, if used slots lie in the order of their positions, as mask_tokens leaves them; false as soon as one does not.
template <class Write> bool write_sorted(const Slots& slots, const Write& write) {
  int64_t last = -1;
  for (int64_t p = 0; p < slots.count;) {
    if (!slots.used(p)) {
      ++p;
      continue;
    }
    const int64_t at = slots.checked_position(p);
    if (at <= last) return false;
    Mean mean;
    for (; p < slots.count && (!slots.used(p) || slots.position[p] == at); ++p)
      if (slots.used(p)) mean.add(slots.sample[p]);
    write(at, mean.floor());
    last = at;
  }
  return true;
}

template <class Write> void write_any(const Slots& slots, const Write& write) {
  std::vector<Mean> means(static_cast<size_t>(slots.tokens));
  for (int64_t p = 0; p < slots.count; ++p)
    if (slots.used(p)) means[size_t(slots.checked_position(p))].add(slots.sample[p]);
  for (int64_t t = 0; t < slots.tokens; ++t)
    if (means[size_t(t)].count) write(t, means[size_t(t)].floor());
}

std::tuple<Tensor, Tensor> replace_tokens(const Tensor& input_ids_, const Tensor& positions_, const Tensor& targets_, const Tensor& sampled_) {
  ELECTRA_CHECK(input_ids_.scalar_type() == ScalarType::Long && input_ids_.dim() == 1, "replace_tokens: input_ids must be int64 of shape [T], got ",
                shape_string(input_ids_));
  ELECTRA_CHECK(positions_.dim() == 1, "replace_tokens: positions must have shape [P], got ", shape_string(positions_));
  const int64_t tokens = input_ids_.size(0), count = positions_.size(0);
  check_slots(positions_, count, "positions");
  check_slots(targets_, count, "targets");
  check_slots(sampled_, count, "sampled");
  const Tensor input_ids = dense(input_ids_), positions = dense(positions_), targets = dense(targets_), sampled = dense(sampled_);
  Tensor corrupted = torch::stable::empty_like(input_ids), labels = torch::stable::new_empty(input_ids, {tokens}, ScalarType::Bool);
  const int64_t* original = static_cast<const int64_t*>(input_ids.const_data_ptr());
  const Slots slots{static_cast<const int64_t*>(positions.const_data_ptr()), static_cast<const int64_t*>(targets.const_data_ptr()),
                    static_cast<const int64_t*>(sampled.const_data_ptr()), count, tokens};
  int64_t* ids = static_cast<int64_t*>(corrupted.mutable_data_ptr());
  bool* label = static_cast<bool*>(labels.mutable_data_ptr());
  if (tokens > 0) {
    std::memcpy(ids, original, size_t(tokens) * sizeof(int64_t));
    std::memset(label, 0, size_t(tokens));
  }
  const auto write = [&](int64_t at, int64_t id) {
    ids[at] = id;
    label[at] = id != original[at];
  };
  if (!write_sorted(slots, write)) write_any(slots, write);   // which writes every position anew
  return {corrupted, labels};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) { m.impl("replace_tokens", TORCH_BOX(&electra::replace_tokens)); }
