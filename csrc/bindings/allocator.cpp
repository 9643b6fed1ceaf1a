// keep_freed_memory: large buffers that a training step frees stay mapped, so that the next step does not pay for them page by page again.
//
// glibc serves blocks above 128 KiB (at most 32 MiB, it adapts) by mmap and gives them back on free. A training step allocates the same large tensors every
// time, and each comes back as fresh pages: a fault and 4 KiB of zeroing per page. With mmap off and trimming off the same memory is reused.
//
// The price is memory: freed blocks are not given back to the system, and a heap fragments where separate mappings do not. Worst of all, an aligned allocation
// (torch asks for 64 bytes) cannot reuse a freed block of exactly its size until the 128-byte leaders around it leave glibc's thread cache, which holds seven:
// the same buffer made again and again takes up to eight places before it stays in one. Growth is bounded. See docs/notes/cpu-memory-bound-ops.md for figures.
#include "bindings/native.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace electra {

static bool keep_freed_memory() {
#if defined(__GLIBC__)
  return mallopt(M_MMAP_MAX, 0) == 1 && mallopt(M_TRIM_THRESHOLD, -1) == 1 && mallopt(M_TOP_PAD, 64 << 20) == 1;
#else
  return false;
#endif
}

void bind_allocator(pybind11::module_& m) {
  m.def("keep_freed_memory", &keep_freed_memory,
        "Keep large freed buffers mapped for reuse, for this process and for good; True if the C library (glibc) could be told so.\n\n"
        "Call it before the first large tensor is made. Worth it where steps repeat the same allocations (training); the first steps still fault.\n"
        "Peak memory rises (by half, measured in training) and freed memory is not given back to the system until the process ends.\n"
        "No effect where another allocator (tcmalloc, jemalloc) is preloaded.");
}

}  // namespace electra
