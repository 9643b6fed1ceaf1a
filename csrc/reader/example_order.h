// Which examples a window takes, and in which order: of one corpus, or of several that are mixed at fixed rates. Computed, not stored.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "reader/permutation.h"

namespace electra {

// One corpus of a mixture: examples begin … begin + examples - 1 of all that were opened.
struct MixturePart {
  uint64_t begin = 0, examples = 0;
  uint64_t rate = 0;   // examples in a window, in units of 2^-32
};

// One corpus: the epoch's permutation of its examples, window by window.
//
// A mixture: windows are numbered through all epochs, g = 0, 1, …. Before window g part k has given floor(g · rate_k) examples, which are the first ones of its
// own endless sequence of epochs: example number j is the one at place j mod n_k of its permutation for epoch j / n_k. So a small corpus repeats while a large one is
// read once, no share drifts, and any window can be made without those before it. The examples of a window come in an order of their own, so that packing meets
// all parts everywhere. An epoch of a mixture is as many windows as hold as many examples as all parts have.
class ExampleOrder {
 public:
  // `mixture` is empty for one corpus.
  ExampleOrder(uint64_t examples, uint64_t window, int64_t seed, bool shuffle, const std::vector<MixturePart>& mixture);

  uint64_t windows() const { return windows_; }   // of an epoch
  bool mixed() const { return !mixture_.empty(); }
  std::vector<uint64_t> window(uint64_t epoch, uint64_t window) const;

 private:
  std::vector<uint64_t> mixed_window(uint64_t epoch, uint64_t window) const;
  // Appends examples first … last - 1 of the endless sequence of part k.
  void append(size_t k, uint64_t first, uint64_t last, std::vector<uint64_t>& out) const;

  const uint64_t examples_, window_, windows_;
  const int64_t seed_;
  const bool shuffle_;
  const std::vector<MixturePart> mixture_;
};

}  // namespace electra
