#include "reader/bin_stream.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

namespace electra {
namespace {

constexpr uint64_t kMost32 = std::numeric_limits<uint32_t>::max();   // epochs and windows are 32-bit words of the counter

void require(bool ok, const std::string& message) {
  if (!ok) throw std::invalid_argument("BatchReader: " + message);
}

}  // namespace

void StreamOptions::check() const {
  require(tokens >= 1 && tokens <= uint32_t(std::numeric_limits<int32_t>::max()),
          "tokens must be from 1 to 2^31 - 1, got " + std::to_string(tokens));
  require(max_sequences >= 1 && max_sequences <= tokens,
          "max_sequences must be from 1 to tokens=" + std::to_string(tokens) + ", got " + std::to_string(max_sequences));
  require(window >= 1 && window < kMost32, "window must be from 1 to 2^32 - 2, got " + std::to_string(window));
  require(world >= 1, "world must be at least 1, got 0");
  require(rank < world,
          "rank must be below world=" + std::to_string(world) + ", got " + std::to_string(rank));
}

Window::Window(const Corpus& corpus, const StreamOptions& options, uint64_t epoch, uint64_t window) {
  const uint64_t begin = window * options.window, end = std::min(begin + options.window, corpus.examples());
  const KeyedPermutation shuffled(corpus.examples(), Shuffled::kExamples, options.seed, epoch, 0);
  std::vector<uint32_t> lengths;
  examples_.reserve(end - begin);
  lengths.reserve(end - begin);
  for (uint64_t i = begin; i < end; ++i) {
    examples_.push_back(options.shuffle ? shuffled(i) : i);
    lengths.push_back(corpus.length(examples_.back()));
    tokens_ += lengths.back();
  }
  bins_ = pack_window(lengths, options.tokens, options.max_sequences);
  order_.resize(bins_.count());
  std::iota(order_.begin(), order_.end(), uint32_t(0));
  if (options.shuffle) {
    const KeyedPermutation permuted(bins_.count(), Shuffled::kBins, options.seed, epoch, window);
    for (uint32_t& bin : order_) bin = uint32_t(permuted(bin));
  }
}

std::vector<uint64_t> Window::bin(uint32_t b) const {
  const auto members = bins_.bin(order_[b]);
  std::vector<uint64_t> examples(members.size());
  std::transform(members.begin(), members.end(), examples.begin(), [&](uint32_t member) { return examples_[member]; });
  return examples;
}

BinStream::BinStream(const Corpus& corpus, const StreamOptions& options, StreamPosition start)
    : corpus_(corpus), options_(options), windows_((corpus.examples() - 1) / options.window + 1), position_(start) {
  require(windows_ <= kMost32, "window must be at least " + std::to_string(corpus.examples() / kMost32 + 1) + " for a corpus of " +
                                   std::to_string(corpus.examples()) + " examples, got " + std::to_string(options.window));
  window_ = std::make_unique<Window>(corpus, options_, 0, 0);
  bins_per_epoch_ = window_->bins() * (double(corpus.tokens()) / double(window_->tokens()));

  const std::string named = "state names epoch " + std::to_string(start.epoch) + ", window " + std::to_string(start.window) + ", bin " +
                            std::to_string(start.bin) + ", but ";
  const std::string cause = ": was it saved with other shards or options?";
  require(start.epoch <= kMost32, named + "epochs end at 2^32 - 1" + cause);
  require(start.window < windows_, named + "an epoch has " + std::to_string(windows_) + " windows" + cause);
  if (at_end()) {
    require(start.epoch == options_.epochs && start.window == 0 && start.bin == 0, named + "there are " + std::to_string(options_.epochs) + " epochs" + cause);
    return;
  }
  if (start.epoch != 0 || start.window != 0) window_ = std::make_unique<Window>(corpus, options_, start.epoch, start.window);
  require(start.bin < window_->bins(), named + "this window has " + std::to_string(window_->bins()) + " bins" + cause);
}

void BinStream::advance() {
  if (++position_.bin < window_->bins()) return;
  window_.reset();
  position_.bin = 0;
  if (++position_.window < windows_) return;
  position_.window = 0;
  ++position_.epoch;
}

std::optional<BinStream::Bin> BinStream::next() {
  std::optional<Bin> mine;
  for (uint32_t rank = 0; rank < options_.world && !at_end(); ++rank) {
    if (!window_) window_ = std::make_unique<Window>(corpus_, options_, position_.epoch, position_.window);
    if (rank == options_.rank) mine = Bin{window_->bin(uint32_t(position_.bin)), {}};
    advance();
  }
  if (mine) mine->next = position_;
  return mine;
}

}  // namespace electra
