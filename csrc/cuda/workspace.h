// Cuts one allocation into arrays. Plain C++: the same walk, once without memory to count the bytes, once with it.
#pragma once
#include <stdint.h>

namespace electra::cuda {

class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T> T* take(int64_t count) {
    T* p = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
    bytes_ += (count * int64_t(sizeof(T)) + 255) / 256 * 256;   // every array as aligned as the allocation
    return p;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

}  // namespace electra::cuda
