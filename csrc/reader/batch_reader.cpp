#include "reader/batch_reader.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace electra {
namespace {

const ReaderOptions& checked(const ReaderOptions& options) {
  options.check();
  if (options.threads < 1 || options.threads > 256)
    throw std::invalid_argument("BatchReader: threads must be from 1 to 256, got " + std::to_string(options.threads));
  if (options.prefetch < 1 || options.prefetch > 65536)
    throw std::invalid_argument("BatchReader: prefetch must be from 1 to 65536, got " + std::to_string(options.prefetch));
  return options;
}

}  // namespace

BatchReader::BatchReader(const std::vector<std::string>& paths, const ReaderOptions& options, StreamPosition start)
    : options_(checked(options)), corpus_(paths, options.tokens), stream_(corpus_, options, start), slots_(options.prefetch), position_(start) {
  workers_.reserve(options_.threads);
  try {
    for (uint32_t i = 0; i < options_.threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (...) {   // no more threads to be had: those that run must not outlive this object
    close();
    throw;
  }
}

BatchReader::~BatchReader() { close(); }

void BatchReader::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
  ready_.notify_all();
  const std::lock_guard lock(close_mutex_);
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

bool BatchReader::wait_for_room(uint64_t number) {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [&] { return closed_ || number < delivered_ + slots_.size(); });
  return !closed_;
}

void BatchReader::publish(uint64_t number, Slot content) {
  {
    const std::lock_guard lock(mutex_);
    slots_[number % slots_.size()] = std::move(content);
  }
  ready_.notify_all();
}

// One worker at a time decides on a batch, so that numbers and bins are handed out in order; filling goes on side by side.
void BatchReader::work() {
  while (true) {
    std::unique_lock deciding(stream_mutex_);
    const uint64_t number = issued_;
    if (exhausted_ || !wait_for_room(number)) return;
    ++issued_;
    try {
      exhausted_ = true;   // also if next() throws
      const auto bin = stream_.next();
      if (!bin) return publish(number, End{});
      exhausted_ = false;
      deciding.unlock();
      publish(number, Filled{fill(bin->examples), bin->next});
    } catch (...) {
      publish(number, std::current_exception());
    }
  }
}

BatchReader::Outcome BatchReader::next(std::chrono::milliseconds patience, PackedBatch& batch) {
  const auto began = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  const auto slot = [&]() -> Slot& { return slots_[delivered_ % slots_.size()]; };   // of the batch that is next, whichever thread asks
  ready_.wait_for(lock, patience, [&] { return closed_ || !std::holds_alternative<std::monostate>(slot()); });
  statistics_.wait_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (closed_) throw std::runtime_error("BatchReader: the reader is closed");
  if (std::holds_alternative<std::monostate>(slot())) return Outcome::kTimeout;
  if (std::holds_alternative<End>(slot())) return Outcome::kEnd;   // and stays there, as an exception does, for whoever asks again
  if (const auto* error = std::get_if<std::exception_ptr>(&slot())) std::rethrow_exception(*error);

  Filled filled = std::get<Filled>(std::move(slot()));
  slot() = std::monostate{};
  ++delivered_;
  position_ = filled.next;
  ++statistics_.batches;
  statistics_.sequences += filled.batch.sequences;
  statistics_.tokens += filled.batch.tokens;
  lock.unlock();
  room_.notify_one();   // only one worker ever waits there
  batch = std::move(filled.batch);
  return Outcome::kBatch;
}

StreamPosition BatchReader::position() const {
  const std::lock_guard lock(mutex_);
  return position_;
}

ReaderStatistics BatchReader::statistics() const {
  const std::lock_guard lock(mutex_);
  return statistics_;
}

PackedBatch BatchReader::fill(const std::vector<uint64_t>& examples) const {
  const uint32_t capacity = options_.tokens, most = options_.max_sequences;
  PackedBatch batch;
  batch.input_ids = std::make_unique_for_overwrite<int64_t[]>(capacity);
  batch.token_type_ids = std::make_unique_for_overwrite<int64_t[]>(capacity);
  batch.position_ids = std::make_unique_for_overwrite<int64_t[]>(capacity);
  batch.cu_seqlens = std::make_unique_for_overwrite<int32_t[]>(size_t(most) + 1);
  batch.cu_seqlens[0] = 0;
  for (const uint64_t example : examples) {
    corpus_.copy_example(example, &batch.input_ids[batch.tokens], &batch.token_type_ids[batch.tokens], &batch.position_ids[batch.tokens]);
    batch.tokens += corpus_.length(example);
    batch.cu_seqlens[++batch.sequences] = int32_t(batch.tokens);
  }
  std::fill(&batch.cu_seqlens[batch.sequences] + 1, &batch.cu_seqlens[most] + 1, int32_t(batch.tokens));
  std::fill(&batch.input_ids[0] + batch.tokens, &batch.input_ids[0] + capacity, options_.pad_id);
  std::fill(&batch.token_type_ids[0] + batch.tokens, &batch.token_type_ids[0] + capacity, int64_t(0));
  std::fill(&batch.position_ids[0] + batch.tokens, &batch.position_ids[0] + capacity, int64_t(0));
  return batch;
}

}  // namespace electra
