// Outputs too large for the caches: how they are allocated and written. Figures: docs/notes/cpu-memory-bound-ops.md.
#pragma once
#include <initializer_list>

#include "cpu/tensors.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace electra {

// An uninitialised tensor of the shape and dtype of `like`. A large one comes as fresh memory as a rule, and each page costs a fault when it is first written: more time
// than the op itself takes. The system is asked for pages of 2 MiB where it gives them on request, and only for such as the tensor fills: no more memory is used.
inline Tensor empty_output(const Tensor& like) {
  Tensor t = torch::stable::empty_like(like);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t data = uintptr_t(t.mutable_data_ptr()), first = (data + page - 1) / page * page, last = (data + uintptr_t(t.numel()) * t.element_size()) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);   // a wish: where it is refused nothing is lost
#endif
  return t;
}

// Whether an op writes outputs of `bytes` in all past the caches: they would not stay there until they are read, and a line that is written whole need not be read first.
// Rows must be aligned to cache lines.
inline bool writes_past_caches(int64_t bytes, int64_t row_bytes, std::initializer_list<const void*> outputs) {
  constexpr int64_t line = 64, cached = int64_t(8) << 20;
  bool aligned = row_bytes % line == 0;
  for (const void* p : outputs) aligned &= uintptr_t(p) % line == 0;
  return aligned && bytes > cached;
}

}  // namespace electra
