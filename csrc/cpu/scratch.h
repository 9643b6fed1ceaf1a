// Memory of one task of a parallel loop, aligned to a cache line; freed when the task ends.
#pragma once
#include <stdint.h>

#include <new>

namespace electra {

class Scratch {
 public:
  explicit Scratch(int64_t bytes) : data_(::operator new(size_t(bytes > 0 ? bytes : 1), alignment)) {}
  ~Scratch() { ::operator delete(data_, alignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return data_; }

 private:
  static constexpr std::align_val_t alignment{64};
  void* data_;
};

}  // namespace electra
