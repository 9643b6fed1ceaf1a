// Asynchronous copies from global to shared memory (cp.async, sm_80 and later): the data is there only after copy_async_wait, for the thread that asked;
// for the others after a barrier as well.
#pragma once
#include "cuda/portable.h"

#ifdef ELECTRA_EMULATION
#include "emulation/copy.h"
#else

namespace electra::cuda {

// 16 bytes, both addresses 16-byte aligned, past L1. Not valid: `global` is not read and 16 zeros are written.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(uint32_t(__cvta_generic_to_shared(shared))), "l"(global), "r"(bytes) : "memory");
}

// The same for 4 bytes (4-byte aligned), through L1.
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" :: "r"(uint32_t(__cvta_generic_to_shared(shared))), "l"(global), "r"(bytes) : "memory");
}

// Closes a group of this thread's copies since the last commit (an empty group is fine).
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the N newest groups of this thread are still under way.
template <int N> __device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

}  // namespace electra::cuda

#endif
