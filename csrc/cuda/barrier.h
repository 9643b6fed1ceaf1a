// Named barriers of a block (1 to 15; 0 is __syncthreads): some warps meet while the others go on. Arriving without waiting lets a producer signal.
#pragma once
#include "cuda/portable.h"

#ifdef ELECTRA_EMULATION
#include "emulation/barrier.h"
#else

namespace electra::cuda {

// Waits until `threads` threads (a multiple of 32) have come to barrier `id`, by sync or by arrive. Whole warps call it.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(threads) : "memory"); }

// Counts as having come, and goes on.
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" :: "r"(id), "r"(threads) : "memory"); }

}  // namespace electra::cuda

#endif
