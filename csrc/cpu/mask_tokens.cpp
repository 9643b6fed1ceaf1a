// mask_tokens on the CPU (docs/design.md, "Random numbers"). A few integers a token: no instruction set would show, so there is no kernel file.
#include <cmath>

#include "cpu/tensors.h"

namespace electra {
namespace {

constexpr uint32_t selection_row = 0, decision_row = 1, replacement_row = 2, replacement_decision_block = uint32_t(1) << 31;
constexpr int64_t unused = -100;

uint32_t word_at(const PhiloxStream& stream, uint32_t row, uint32_t first_block, int64_t index) {
  return philox_word(philox_draw(stream, row, first_block + uint32_t(index / 4)), int(index % 4));
}

struct Special {
  std::vector<int64_t> ids;   // sorted
  explicit Special(const Tensor& t_) {
    const Tensor t = dense(t_);
    const int64_t* p = static_cast<const int64_t*>(t.const_data_ptr());
    ids.assign(p, p + t.numel());
    std::sort(ids.begin(), ids.end());
  }
  bool has(int64_t id) const { return std::binary_search(ids.begin(), ids.end(), id); }
};

struct Call {
  const int64_t* input_ids;
  const int32_t* cu_seqlens;
  int64_t mask_id;
  double probability;
  int64_t max_per_sequence;
  uint64_t decide;            // a decision word below this writes [MASK]
  PhiloxStream stream;
};

// How many tokens of a sequence with this many tokens and candidates are chosen.
int64_t number_to_choose(const Call& call, int64_t length, int64_t candidates) {
  if (length == 0) return 0;
  int64_t k = int64_t(std::nearbyint(double(length) * call.probability));   // the default rounding: half to even
  if (call.max_per_sequence >= 0) k = std::min(k, call.max_per_sequence);
  return std::min(std::max<int64_t>(k, 1), candidates);
}

std::vector<int64_t> candidates_of(const Call& call, const Special& special, int64_t begin, int64_t end) {
  std::vector<int64_t> candidates;
  candidates.reserve(size_t(end - begin));
  for (int64_t t = begin; t < end; ++t)
    if (!special.has(call.input_ids[t])) candidates.push_back(t);
  return candidates;
}

// The k candidates with the smallest (word, index), their positions ascending.
void choose(const Call& call, const std::vector<int64_t>& candidates, int64_t k, int64_t* ids, int64_t* positions) {
  std::vector<std::pair<uint32_t, int64_t>> keys(candidates.size());
  PhiloxCounter words{};
  int64_t block = -1;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const int64_t t = candidates[i];
    if (t / 4 != block) words = philox_draw(call.stream, selection_row, uint32_t(block = t / 4));
    keys[i] = {philox_word(words, int(t % 4)), t};
  }
  if (k < int64_t(keys.size())) std::nth_element(keys.begin(), keys.begin() + k, keys.end());
  for (int64_t j = 0; j < k; ++j) positions[j] = keys[j].second;
  std::sort(positions, positions + k);
  for (int64_t j = 0; j < k; ++j)
    if (word_at(call.stream, decision_row, 0, positions[j]) < call.decide) ids[positions[j]] = call.mask_id;
}

void choose_with_replacement(const Call& call, int64_t sequence, int64_t first_token, const std::vector<int64_t>& candidates, int64_t k, int64_t* ids,
                             int64_t* positions) {
  const uint32_t row = replacement_row + uint32_t(sequence);
  for (int64_t d = 0; d < k; ++d) {
    const uint64_t pick = uint64_t(word_at(call.stream, row, 0, d)) * uint64_t(candidates.size()) >> 32;
    positions[d] = candidates[pick];
    if (word_at(call.stream, row, replacement_decision_block, d) < call.decide && positions[d] != first_token) ids[positions[d]] = call.mask_id;
  }
}

std::tuple<Tensor, Tensor, Tensor> mask_tokens(const Tensor& input_ids_, const Tensor& cu_seqlens_, const Tensor& special_ids, int64_t mask_id, double probability,
                                               int64_t max_predictions, int64_t max_per_sequence, double replace_probability, bool with_replacement,
                                               const Tensor& rng, int64_t site) {
  const char* op = "mask_tokens";
  ELECTRA_CHECK(input_ids_.scalar_type() == ScalarType::Long && input_ids_.dim() == 1, op, ": input_ids must be int64 of shape [T], got ", shape_string(input_ids_));
  ELECTRA_CHECK(special_ids.scalar_type() == ScalarType::Long && special_ids.dim() == 1, op, ": special_ids must be int64 of shape [n], got ",
                shape_string(special_ids));
  ELECTRA_CHECK(probability >= 0.0 && probability <= 1.0, op, ": probability must be in [0, 1], got ", probability);
  ELECTRA_CHECK(replace_probability >= 0.0 && replace_probability <= 1.0, op, ": replace_probability must be in [0, 1], got ", replace_probability);
  ELECTRA_CHECK(max_predictions >= 0, op, ": max_predictions must be at least 0, got ", max_predictions);
  const Tensor input_ids = dense(input_ids_), cu_seqlens = checked_cu_seqlens(cu_seqlens_, input_ids_.size(0), op, "cu_seqlens");
  const int64_t tokens = input_ids.size(0), sequences = cu_seqlens.size(0) - 1;
  const Special special(special_ids);
  const Call call = {static_cast<const int64_t*>(input_ids.const_data_ptr()), static_cast<const int32_t*>(cu_seqlens.const_data_ptr()), mask_id, probability,
                     max_per_sequence, uint64_t(std::floor(replace_probability * 4294967296.0)), stream_of(rng, site, op)};

  Tensor masked_ids = torch::stable::empty_like(input_ids);
  Tensor positions = torch::stable::new_empty(input_ids, {max_predictions}), targets = torch::stable::new_empty(input_ids, {max_predictions});
  int64_t* ids = static_cast<int64_t*>(masked_ids.mutable_data_ptr());
  int64_t *slots = static_cast<int64_t*>(positions.mutable_data_ptr()), *target = static_cast<int64_t*>(targets.mutable_data_ptr());
  std::copy(call.input_ids, call.input_ids + tokens, ids);

  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, tokens / std::max<int64_t>(1, sequences)));
  std::vector<int64_t> first_slot(size_t(sequences) + 1, 0);
  torch::stable::parallel_for(0, sequences, grain, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      int64_t candidates = 0;
      for (int64_t t = call.cu_seqlens[b]; t < call.cu_seqlens[b + 1]; ++t) candidates += !special.has(call.input_ids[t]);
      first_slot[b + 1] = number_to_choose(call, call.cu_seqlens[b + 1] - call.cu_seqlens[b], candidates);
    }
  });
  for (int64_t b = 0; b < sequences; ++b) first_slot[b + 1] += first_slot[b];
  const int64_t used = first_slot[sequences];
  ELECTRA_CHECK(used <= max_predictions, op, ": max_predictions must be at least the number of chosen tokens (", used, "), got ", max_predictions,
                "; max_predictions_bound always suffices");
  torch::stable::parallel_for(0, sequences, grain, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const int64_t begin = call.cu_seqlens[b], k = first_slot[b + 1] - first_slot[b];
      if (k == 0) continue;
      const std::vector<int64_t> candidates = candidates_of(call, special, begin, call.cu_seqlens[b + 1]);
      if (with_replacement) choose_with_replacement(call, b, begin, candidates, k, ids, slots + first_slot[b]);
      else choose(call, candidates, k, ids, slots + first_slot[b]);
    }
  });
  for (int64_t p = 0; p < max_predictions; ++p) {
    if (p >= used) slots[p] = 0;
    target[p] = p < used ? call.input_ids[slots[p]] : unused;
  }
  return {masked_ids, positions, targets};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) { m.impl("mask_tokens", TORCH_BOX(&electra::mask_tokens)); }
