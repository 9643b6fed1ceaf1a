// Independent pieces of work of unequal size on torch's threads, each thread with working memory of its own.
#pragma once
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "cpu/tensors.h"

namespace electra {

// Working memory that a thread keeps from call to call: fresh pages would cost more than some of the kernels that write them.
class WorkingMemory {
 public:
  static void* of_this_thread(int64_t bytes) {
    thread_local WorkingMemory memory;
    if (memory.bytes_ < bytes) {
      memory.data_.reset();
      memory.bytes_ = 0;
      const size_t rounded = (size_t(bytes) + 63) / 64 * 64;
      memory.data_.reset(std::aligned_alloc(64, rounded));
      if (!memory.data_) throw std::bad_alloc();
      memory.bytes_ = int64_t(rounded);
    }
    return memory.data_.get();
  }

 private:
  struct Free { void operator()(void* p) const { std::free(p); } };
  std::unique_ptr<void, Free> data_;
  int64_t bytes_ = 0;
};

// body(item, memory) for every item of [0, items), handed out in order to whichever thread is free. The items must not depend on each other: then the results do
// not depend on the number of threads either.
template <class Body>
inline void for_each_item(int64_t items, int64_t bytes, const Body& body) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(items, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    void* memory = WorkingMemory::of_this_thread(bytes);
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < items; i = next.fetch_add(1, std::memory_order_relaxed)) body(i, memory);
  });
}

}  // namespace electra
