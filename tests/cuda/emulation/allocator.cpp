// A CPU allocator for torch that remembers every tensor, keeps them apart, and poisons fresh memory (NaN in every floating-point type), so that a kernel that
// leaves its tensor, or reads what nobody wrote, is found out.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "emulation/tensors.h"

namespace electra::emulation {
namespace {

constexpr size_t alignment = 64;   // torch's own; also the least distance between two tensors

std::mutex guard;
std::map<uintptr_t, size_t> tensors;   // begin -> bytes
uintptr_t last_begin, last_end;        // of the tensor found last

void release(void* p) {
  if (!p) return;
  const std::lock_guard<std::mutex> lock(guard);
  tensors.erase(reinterpret_cast<uintptr_t>(p));
  last_begin = last_end = 0;
  std::free(static_cast<char*>(p) - alignment);
}

struct GuardedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
    const size_t padded = (bytes + alignment - 1) / alignment * alignment;
    char* block = static_cast<char*>(std::aligned_alloc(alignment, padded + 2 * alignment));
    if (!block) throw std::bad_alloc();
    char* p = block + alignment;
    std::memset(block, 0xff, padded + 2 * alignment);
    const std::lock_guard<std::mutex> lock(guard);
    tensors[reinterpret_cast<uintptr_t>(p)] = bytes;
    return {p, p, &release, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
};

GuardedAllocator allocator;
c10::Allocator* before;

}  // namespace

bool in_tensor(uintptr_t p, size_t bytes) {
  if (p >= last_begin && p + bytes <= last_end) return true;
  const std::lock_guard<std::mutex> lock(guard);
  auto after = tensors.upper_bound(p);
  if (after == tensors.begin()) return false;
  const auto [begin, size] = *--after;
  if (p + bytes > begin + size) return false;
  last_begin = begin;
  last_end = begin + size;
  return true;
}

bool nearest_tensor(uintptr_t p, size_t& size, ptrdiff_t& offset) {
  const std::lock_guard<std::mutex> lock(guard);
  const auto after = tensors.upper_bound(p);
  ptrdiff_t nearest = 4096;
  const auto consider = [&](uintptr_t begin, size_t bytes) {
    const ptrdiff_t distance = p < begin ? ptrdiff_t(begin - p) : p < begin + bytes ? 0 : ptrdiff_t(p - begin - bytes);
    if (distance >= nearest) return;
    nearest = distance;
    size = bytes;
    offset = ptrdiff_t(p - begin);
  };
  if (after != tensors.end()) consider(after->first, after->second);
  if (after != tensors.begin()) consider(std::prev(after)->first, std::prev(after)->second);
  return nearest < 4096;
}

}  // namespace electra::emulation

// Be torch's CPU allocator, or give the office back. Tensors made before are no memory that a kernel may touch.
extern "C" void electra_emulation_guard_tensors(int on) {
  using namespace electra::emulation;
  if (on && !before) {
    before = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&allocator, 255);
  } else if (!on && before) {
    c10::SetCPUAllocator(before, 255);
    before = nullptr;
  }
}
