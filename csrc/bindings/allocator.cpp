// keep_freed_memory: large buffers that a training step frees stay mapped, in huge pages, so that the next step does not pay for them page by page again.
//
// glibc serves blocks above 128 KiB (at most 32 MiB, it adapts) by mmap and gives them back on free. A training step allocates the same large tensors every
// time, and each comes back as fresh pages: a fault and 4 KiB of zeroing per page. With mmap off and trimming off the same memory is reused.
//
// And where Linux hands out huge pages on request ("madvise", the usual setting), nobody requests them for the heap: a step then walks some hundred thousand
// pages of 4 KiB, far more than the TLB holds. So the heap's coming gigabytes are reserved at once (addresses, not memory) and marked. They are real memory
// only from the first touch on, two MiB at a time.
//
// The price is memory: freed blocks are not given back to the system, and a heap fragments where separate mappings do not. Worst of all, an aligned allocation
// (torch asks for 64 bytes) cannot reuse a freed block of exactly its size until the 128-byte leaders around it leave glibc's thread cache, which holds seven:
// the same buffer made again and again takes up to eight places before it stays in one. Growth is bounded. See docs/notes/cpu-memory-bound-ops.md for figures.
#include "bindings/native.h"

#if defined(__GLIBC__)
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#endif

namespace electra {

#if defined(__GLIBC__)
// Extends the heap by as much as it can get, up to half of the machine's memory, and marks it for huge pages. Freeing the block leaves it on top of the heap,
// where it stays since trimming is off.
static void reserve_huge_pages() {
  constexpr uintptr_t huge = uintptr_t(2) << 20;
  for (size_t bytes = size_t(sysconf(_SC_PHYS_PAGES)) / 2 * size_t(sysconf(_SC_PAGESIZE)); bytes >= 64 * huge; bytes /= 2) {
    void* block = std::malloc(bytes);
    if (!block) continue;   // a limit on addresses (ulimit -v, strict overcommit): be content with less
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + huge - 1) & ~(huge - 1), end = (reinterpret_cast<uintptr_t>(block) + bytes) & ~(huge - 1);
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);   // refused where huge pages are off: small ones then
    std::free(block);
    return;
  }
}
#endif

static bool keep_freed_memory() {
#if defined(__GLIBC__)
  static const bool kept = [] {
    if (mallopt(M_MMAP_MAX, 0) != 1 || mallopt(M_TRIM_THRESHOLD, -1) != 1 || mallopt(M_TOP_PAD, 64 << 20) != 1) return false;
    reserve_huge_pages();
    return true;
  }();
  return kept;
#else
  return false;
#endif
}

void bind_allocator(pybind11::module_& m) {
  m.def("keep_freed_memory", &keep_freed_memory,
        "Keep large freed buffers mapped for reuse, in huge pages where the system has them, for this process and for good; True if the C library (glibc) could\n"
        "be told so.\n\n"
        "Call it before the first large tensor is made. Worth it where steps repeat the same allocations (training); the first steps still fault.\n"
        "Peak memory rises (by half, measured in training) and freed memory is not given back to the system until the process ends.\n"
        "No effect where another allocator (tcmalloc, jemalloc) is preloaded.");
}

}  // namespace electra
