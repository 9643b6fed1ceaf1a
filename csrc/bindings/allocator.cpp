// keep_freed_memory: large buffers that a training step frees stay mapped, so that the next step does not pay for them page by page again.
//
// glibc serves blocks above 128 KiB (at most 32 MiB, it adapts) by mmap and gives them back on free. A training step allocates the same large tensors every
// time, and each comes back as fresh pages: a fault and 4 KiB of zeroing per page. With mmap off and trimming off the same memory is reused. Peak memory rises
// somewhat (a heap fragments where separate mappings do not) and is not given back to the system. See docs/notes/cpu-memory-bound-ops.md for figures.
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
        "Call it before the first large tensor is made. Worth it where steps repeat the same allocations (training); peak memory rises somewhat and freed\n"
        "memory is not given back to the system until the process ends. No effect where another allocator (tcmalloc, jemalloc) is preloaded.");
}

}  // namespace electra
