// Worker threads that fill packed batches ahead of time and hand them out in order.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "reader/bin_stream.h"
#include "reader/corpus.h"

namespace electra {

// T tokens of whole examples end to end, then padding.
struct PackedBatch {
  std::unique_ptr<int64_t[]> input_ids, token_type_ids, position_ids;   // [T]
  std::unique_ptr<int32_t[]> cu_seqlens;                                // [B + 1], behind the last example the total repeats
  uint32_t tokens = 0, sequences = 0;                                   // those of examples
};

struct ReaderOptions : StreamOptions {
  int64_t pad_id = 0;
  uint32_t threads = 1;
  uint32_t prefetch = 1;   // most batches filled ahead of the consumer
};

struct ReaderStatistics {
  uint64_t batches = 0, sequences = 0, tokens = 0;   // delivered
  double wait_seconds = 0;                           // the consumer waited in next()
};

class BatchReader {
 public:
  BatchReader(const std::vector<std::string>& paths, const ReaderOptions& options, StreamPosition start);
  ~BatchReader();   // close()

  enum class Outcome { kBatch, kEnd, kTimeout };
  // The next batch in order; at the end of the stream or after `patience` none. Throws what a worker threw, or std::runtime_error once closed.
  Outcome next(std::chrono::milliseconds patience, PackedBatch& batch);

  // Position behind the last delivered batch: a reader started there delivers what this one would.
  StreamPosition position() const;
  ReaderStatistics statistics() const;
  // Stops and joins the workers. A next() that waits in another thread throws.
  void close();

  const ReaderOptions& options() const { return options_; }
  const Corpus& corpus() const { return corpus_; }
  double estimated_batches_per_epoch() const { return stream_.estimated_bins_per_epoch() / options_.world; }

 private:
  struct Filled {
    PackedBatch batch;
    StreamPosition next;
  };
  struct End {};
  // Empty while a worker fills it.
  using Slot = std::variant<std::monostate, Filled, End, std::exception_ptr>;

  void work();
  bool wait_for_room(uint64_t number);
  void publish(uint64_t number, Slot content);
  PackedBatch fill(const std::vector<uint64_t>& examples) const;

  const ReaderOptions options_;
  const Corpus corpus_;

  std::mutex stream_mutex_;   // taken before mutex_; held by the worker that decides on the next batch, also while it waits for room
  BinStream stream_;
  uint64_t issued_ = 0;
  bool exhausted_ = false;   // the stream has ended or failed

  mutable std::mutex mutex_;
  std::condition_variable room_, ready_;
  std::vector<Slot> slots_;   // batch number n is in slot n % prefetch
  uint64_t delivered_ = 0;
  bool closed_ = false;
  StreamPosition position_;
  ReaderStatistics statistics_;

  std::mutex close_mutex_;
  std::vector<std::thread> workers_;
};

}  // namespace electra
