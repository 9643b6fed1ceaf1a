// Packing the examples of one window into bins, each the content of one batch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace electra {

struct Bins {
  std::vector<uint32_t> members;   // positions in the window, bin after bin, ascending inside a bin
  std::vector<uint32_t> begins;    // [bins + 1], bin b holds members[begins[b]] … members[begins[b+1] - 1]

  uint32_t count() const { return uint32_t(begins.size() - 1); }
  std::span<const uint32_t> bin(uint32_t b) const { return std::span(members).subspan(begins[b], begins[b + 1] - begins[b]); }
};

// Best fit in the order given: each example goes into the bin with the least room that still takes it (the oldest of equals), or opens a new one.
// A bin is full with `tokens` tokens or `max_sequences` examples.
//
// The order given is a random one, and sorting it by length first (best fit decreasing) was measured to be worse here: it sends the short examples into bins of
// their own, which a bound on the sequences leaves half empty. In random order every bin gets its share of short ones, and fill is 99 % with 64 bins in a window.
//
// Throws std::invalid_argument if a length is 0 or more than `tokens`.
Bins pack_window(std::span<const uint32_t> lengths, uint32_t tokens, uint32_t max_sequences);

}  // namespace electra
