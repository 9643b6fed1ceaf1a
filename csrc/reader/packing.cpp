#include "reader/packing.h"

#include <set>
#include <stdexcept>
#include <string>
#include <utility>

namespace electra {

Bins pack_window(std::span<const uint32_t> lengths, uint32_t tokens, uint32_t max_sequences) {
  std::vector<uint32_t> bin_of(lengths.size()), sequences;
  std::set<std::pair<uint32_t, uint32_t>> open;   // (room, bin) of the bins that can take more
  for (size_t i = 0; i < lengths.size(); ++i) {
    const uint32_t length = lengths[i];
    if (length == 0 || length > tokens)
      throw std::invalid_argument("pack_window: example " + std::to_string(i) + " has " + std::to_string(length) + " tokens, expected 1 to " +
                                  std::to_string(tokens));
    const auto best = open.lower_bound({length, 0});
    const bool is_new = best == open.end();
    const uint32_t bin = is_new ? uint32_t(sequences.size()) : best->second;
    const uint32_t room = (is_new ? tokens : best->first) - length;
    if (is_new) sequences.push_back(0);
    const bool closes = ++sequences[bin] == max_sequences || room == 0;
    if (is_new) {
      if (!closes) open.emplace(room, bin);
    } else {
      auto node = open.extract(best);   // the node is used again: no allocation per example
      if (!closes) {
        node.value() = {room, bin};
        open.insert(std::move(node));
      }
    }
    bin_of[i] = bin;
  }

  Bins bins;
  bins.begins.assign(sequences.size() + 1, 0);
  for (size_t b = 0; b < sequences.size(); ++b) bins.begins[b + 1] = bins.begins[b] + sequences[b];
  bins.members.resize(lengths.size());
  std::vector<uint32_t> next(bins.begins.begin(), bins.begins.end() - 1);
  for (size_t i = 0; i < lengths.size(); ++i) bins.members[next[bin_of[i]]++] = uint32_t(i);
  return bins;
}

}  // namespace electra
