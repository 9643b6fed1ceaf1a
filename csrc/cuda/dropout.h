// Dropout as it crosses the boundary: plain C++. The device half is dropout.cuh; the rule is docs/design.md, "Random numbers".
#pragma once
#include <stdint.h>

namespace electra::cuda {

// `rng` points at (seed, step) in device memory, so that nothing waits for the host and a captured graph draws afresh when the tensor changes.
// A byte is kept if it is below `threshold`; 256 keeps everything (no dropout, rng may be null).
struct Dropout {
  const int64_t* rng = nullptr;
  int64_t site = 0;
  int threshold = 256;
  float scale = 1.f;   // 256 / threshold
};

}  // namespace electra::cuda
