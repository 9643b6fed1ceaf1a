// csrc/cuda/barrier.h in the emulator.
#pragma once
#include "emulation/runtime.h"

namespace electra::cuda {

inline void named_barrier_sync(int id, int threads) { emulation::named_barrier_sync(id, threads); }
inline void named_barrier_arrive(int id, int threads) { emulation::named_barrier_arrive(id, threads); }

}  // namespace electra::cuda
