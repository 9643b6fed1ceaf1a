// The endless (or bounded) sequence of bins: epochs of windows of bins, from a saved position on. Which examples a batch holds is decided here and nowhere else.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "reader/corpus.h"
#include "reader/example_order.h"
#include "reader/packing.h"

namespace electra {

struct StreamOptions {
  uint32_t tokens = 0;           // T: capacity of a bin
  uint32_t max_sequences = 0;    // B: most examples of a bin
  uint64_t window = 0;           // examples packed together
  int64_t seed = 0;
  bool shuffle = true;           // otherwise examples and bins come in their own order
  uint64_t epochs = 0;           // 0: endless
  uint32_t rank = 0, world = 1;  // this stream takes bin number rank of each group of world consecutive bins
  std::vector<MixturePart> mixture;   // empty: one corpus

  void check() const;   // throws std::invalid_argument if one is out of range
};

// The next bin to come, of all ranks together.
struct StreamPosition {
  uint64_t epoch = 0, window = 0, bin = 0;
};

// The examples of one window, in bins in the order of delivery. A pure function of corpus, options, epoch and window.
class Window {
 public:
  Window(const Corpus& corpus, const ExampleOrder& order, const StreamOptions& options, uint64_t epoch, uint64_t window);

  uint32_t bins() const { return bins_.count(); }
  uint64_t tokens() const { return tokens_; }
  std::vector<uint64_t> bin(uint32_t b) const;   // the numbers of its examples

 private:
  std::vector<uint64_t> examples_;
  Bins bins_;
  std::vector<uint32_t> order_;   // delivery → bin
  uint64_t tokens_ = 0;
};

class BinStream {
 public:
  struct Bin {
    std::vector<uint64_t> examples;
    StreamPosition next;   // where the stream goes on behind this bin's group
  };

  // The options are checked. Throws std::invalid_argument if there is no such position.
  BinStream(const Corpus& corpus, const StreamOptions& options, StreamPosition start);

  std::optional<Bin> next();   // nothing behind the last epoch

  // Bins of an epoch of all ranks, extrapolated from the first window of epoch 0 (exact if that is all; a mixture's windows are all alike).
  double estimated_bins_per_epoch() const { return bins_per_epoch_; }

 private:
  bool at_end() const { return options_.epochs != 0 && position_.epoch >= options_.epochs; }
  void advance();
  std::unique_ptr<Window> packed(uint64_t epoch, uint64_t window) const;

  const Corpus& corpus_;
  const StreamOptions options_;
  const ExampleOrder order_;
  StreamPosition position_;
  std::unique_ptr<Window> window_;   // that of position_, packed when it is first needed
  double bins_per_epoch_ = 0;
};

}  // namespace electra
