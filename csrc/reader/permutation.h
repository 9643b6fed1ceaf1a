// A keyed permutation of 0 … n-1 that is computed, not stored: the order of the examples of an epoch, and of the bins of a window.
//
// A Feistel network over b bits, 2^(b-1) < n <= 2^b, split into halves of floor(b/2) and ceil(b/2) bits, permutes 0 … 2^b-1; walking along its cycle
// until a value below n comes (fewer than two steps on average) restricts it to a permutation of 0 … n-1 (Black and Rogaway, "Ciphers with Arbitrary
// Finite Domains", CT-RSA 2002). The round function is Philox4x32. See docs/design.md, "Packed batches".
#pragma once
#include <bit>
#include <cstdint>

#include "common/philox.h"

namespace electra {

// What a permutation orders: c1 of the counter that derives its key.
enum class Shuffled : uint32_t { kExamples = 0, kBins = 1, kMixture = 2 };

class KeyedPermutation {
 public:
  // The order of the examples of an epoch (`which` is the number of their corpus in a mixture, else 0), or of the bins or the mixed examples of window `which`.
  KeyedPermutation(uint64_t n, Shuffled what, int64_t seed, uint64_t epoch, uint64_t which)
      : n_(n), bits_(n > 1 ? std::bit_width(n - 1) : 0) {
    const PhiloxStream stream = philox_stream(seed, int64_t(epoch), kSite);
    const PhiloxCounter derived = philox_draw(stream, uint32_t(what), uint32_t(which));
    key_ = {derived.c0, derived.c1};
  }

  uint64_t size() const { return n_; }

  uint64_t operator()(uint64_t i) const {
    if (bits_ == 0) return i;
    do {
      i = encrypt(i);
    } while (i >= n_);
    return i;
  }

 private:
  static constexpr int kRounds = 8;
  static constexpr uint32_t kSite = 0x52454144;   // "READ": no op has a site this high

  uint64_t encrypt(uint64_t value) const {
    const int low_bits = bits_ / 2, high_bits = bits_ - low_bits;   // each at most 32
    const uint32_t low_mask = uint32_t((uint64_t(1) << low_bits) - 1), high_mask = uint32_t((uint64_t(1) << high_bits) - 1);
    uint32_t low = uint32_t(value) & low_mask, high = uint32_t(value >> low_bits);
    for (uint32_t round = 0; round < kRounds; round += 2) {
      high ^= philox4x32({low, round, 0, 0}, key_).c0 & high_mask;
      low ^= philox4x32({high, round + 1, 0, 0}, key_).c0 & low_mask;
    }
    return (uint64_t(high) << low_bits) | low;
  }

  uint64_t n_;
  int bits_;
  PhiloxKey key_;
};

}  // namespace electra
