#include "reader/example_order.h"

#include <algorithm>

namespace electra {
namespace {

// floor(windows · rate), the rate in units of 2^-32.
uint64_t given_before(uint64_t windows, uint64_t rate) { return uint64_t((static_cast<unsigned __int128>(windows) * rate) >> 32); }

}  // namespace

ExampleOrder::ExampleOrder(uint64_t examples, uint64_t window, int64_t seed, bool shuffle, const std::vector<MixturePart>& mixture)
    : examples_(examples), window_(window), windows_((examples - 1) / window + 1), seed_(seed), shuffle_(shuffle), mixture_(mixture) {}

std::vector<uint64_t> ExampleOrder::window(uint64_t epoch, uint64_t window) const {
  if (mixed()) return mixed_window(epoch, window);
  const uint64_t begin = window * window_, end = std::min(begin + window_, examples_);
  const KeyedPermutation shuffled(examples_, Shuffled::kExamples, seed_, epoch, 0);
  std::vector<uint64_t> examples;
  examples.reserve(end - begin);
  for (uint64_t i = begin; i < end; ++i) examples.push_back(shuffle_ ? shuffled(i) : i);
  return examples;
}

std::vector<uint64_t> ExampleOrder::mixed_window(uint64_t epoch, uint64_t window) const {
  const uint64_t number = epoch * windows_ + window;
  std::vector<uint64_t> parts, examples;
  for (size_t k = 0; k < mixture_.size(); ++k)
    append(k, given_before(number, mixture_[k].rate), given_before(number + 1, mixture_[k].rate), parts);
  if (!shuffle_) return parts;
  const KeyedPermutation interleaved(parts.size(), Shuffled::kMixture, seed_, epoch, window);
  examples.reserve(parts.size());
  for (uint64_t i = 0; i < parts.size(); ++i) examples.push_back(parts[interleaved(i)]);
  return examples;
}

void ExampleOrder::append(size_t k, uint64_t first, uint64_t last, std::vector<uint64_t>& out) const {
  const MixturePart& part = mixture_[k];
  while (first < last) {
    const uint64_t epoch = first / part.examples, end = std::min(last, (epoch + 1) * part.examples);
    const KeyedPermutation shuffled(part.examples, Shuffled::kExamples, seed_, epoch, k);
    for (; first < end; ++first) {
      const uint64_t place = first - epoch * part.examples;
      out.push_back(part.begin + (shuffle_ ? shuffled(place) : place));
    }
  }
}

}  // namespace electra
