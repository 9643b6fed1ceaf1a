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
  uint64_t together = 0;
  for (const MixturePart& part : mixture) {
    require(part.examples > 0, "every corpus of a mixture must have examples");
    require(part.rate <= window << 32, "no corpus of a mixture can give more than the window's " + std::to_string(window) + " examples");
    together += part.rate;
  }
  // Rounding down takes less than one example from each part, so that no window is empty.
  require(mixture.empty() || together >= uint64_t(mixture.size()) << 32,
          "the rates of the " + std::to_string(mixture.size()) + " corpora of a mixture must come to at least as many examples in a window");
}

Window::Window(const Corpus& corpus, const ExampleOrder& order, const StreamOptions& options, uint64_t epoch, uint64_t window)
    : examples_(order.window(epoch, window)) {
  std::vector<uint32_t> lengths;
  lengths.reserve(examples_.size());
  for (const uint64_t example : examples_) {
    lengths.push_back(corpus.length(example));
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
    : corpus_(corpus), options_(options), order_(corpus.examples(), options.window, options.seed, options.shuffle, options.mixture), position_(start) {
  require(order_.windows() <= kMost32, "window must be at least " + std::to_string(corpus.examples() / kMost32 + 1) + " for a corpus of " +
                                   std::to_string(corpus.examples()) + " examples, got " + std::to_string(options.window));
  uint64_t parts = 0;
  for (const MixturePart& part : options.mixture) parts += part.examples;
  require(options.mixture.empty() || parts == corpus.examples(),
          "the corpora of the mixture have " + std::to_string(parts) + " examples, the shards " + std::to_string(corpus.examples()));
  window_ = packed(0, 0);
  bins_per_epoch_ = window_->bins() * (order_.mixed() ? double(order_.windows()) : double(corpus.tokens()) / double(window_->tokens()));

  const std::string named = "state names epoch " + std::to_string(start.epoch) + ", window " + std::to_string(start.window) + ", bin " +
                            std::to_string(start.bin) + ", but ";
  const std::string cause = ": was it saved with other shards or options?";
  require(start.epoch <= kMost32, named + "epochs end at 2^32 - 1" + cause);
  require(start.window < order_.windows(), named + "an epoch has " + std::to_string(order_.windows()) + " windows" + cause);
  if (at_end()) {
    require(start.epoch == options_.epochs && start.window == 0 && start.bin == 0, named + "there are " + std::to_string(options_.epochs) + " epochs" + cause);
    return;
  }
  if (start.epoch != 0 || start.window != 0) window_ = packed(start.epoch, start.window);
  require(start.bin < window_->bins(), named + "this window has " + std::to_string(window_->bins()) + " bins" + cause);
}

std::unique_ptr<Window> BinStream::packed(uint64_t epoch, uint64_t window) const {
  return std::make_unique<Window>(corpus_, order_, options_, epoch, window);
}

void BinStream::advance() {
  if (++position_.bin < window_->bins()) return;
  window_.reset();
  position_.bin = 0;
  if (++position_.window < order_.windows()) return;
  position_.window = 0;
  ++position_.epoch;
}

std::optional<BinStream::Bin> BinStream::next() {
  std::optional<Bin> mine;
  for (uint32_t rank = 0; rank < options_.world && !at_end(); ++rank) {
    if (!window_) window_ = packed(position_.epoch, position_.window);
    if (rank == options_.rank) mine = Bin{window_->bin(uint32_t(position_.bin)), {}};
    advance();
  }
  if (mine) mine->next = position_;
  return mine;
}

}  // namespace electra
