// Barriers in shared memory (mbarrier, sm_90): threads arrive, asynchronous copies report the bytes they brought, and a phase is complete when both have come
// in the number announced. Phases alternate in parity, from 0; a thread waits for the phase of a parity.
//
//   if (threadIdx.x == 0) { mbarrier_init(&full, 1); mbarrier_fence_init(); }
//   __syncthreads();
//   if (threadIdx.x == 0) { mbarrier_arrive_expect(&full, bytes); tma_load_2d(tile, &map, &full, x, y); }
//   mbarrier_wait(&full, 0);
#pragma once
#include "cuda/portable.h"

namespace electra::cuda {

struct alignas(8) Mbarrier { uint64_t state; };

}  // namespace electra::cuda

#ifdef ELECTRA_EMULATION
#include "emulation/mbarrier.h"
#else

namespace electra::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// `arrivals` complete a phase (together with the bytes expected in it). By one thread; others may use it after mbarrier_fence_init and a barrier.
__device__ __forceinline__ void mbarrier_init(Mbarrier* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Makes initialised barriers known to the cluster and to asynchronous copies.
__device__ __forceinline__ void mbarrier_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void mbarrier_arrive(Mbarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(shared_address(barrier)) : "memory");
}

// Arrives, and adds `bytes` to what asynchronous copies must bring before the phase is complete.
__device__ __forceinline__ void mbarrier_arrive_expect(Mbarrier* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(shared_address(barrier)), "r"(bytes) : "memory");
}

// Arrives at the barrier in the same place of block `rank` of the cluster.
__device__ __forceinline__ void mbarrier_arrive_remote(Mbarrier* barrier, uint32_t rank) {
  asm volatile("{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\nmbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}"
               :: "r"(shared_address(barrier)), "r"(rank) : "memory");
}

// The same for what only asynchronous operations touch, a tile that wgmma has read, say: ordinary accesses are not made known to the other block, which would take a
// fence of the whole GPU.
__device__ __forceinline__ void mbarrier_give_back_remote(Mbarrier* barrier, uint32_t rank) {
  asm volatile("{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\nmbarrier.arrive.shared::cluster.b64 _, [remote];\n}"
               :: "r"(shared_address(barrier)), "r"(rank) : "memory");
}

// Returns when the phase of this parity is complete (at once where the one after it is under way).
__device__ __forceinline__ void mbarrier_wait(Mbarrier* barrier, uint32_t parity) {
  asm volatile("{\n.reg .pred done;\nTRY:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra TRY;\nDONE:\n}"
               :: "r"(shared_address(barrier)), "r"(parity) : "memory");
}

// The same where other blocks of the cluster arrive: their accesses before it are seen after it.
__device__ __forceinline__ void mbarrier_wait_cluster(Mbarrier* barrier, uint32_t parity) {
  asm volatile("{\n.reg .pred done;\nTRY:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra TRY;\nDONE:\n}"
               :: "r"(shared_address(barrier)), "r"(parity) : "memory");
}

// What this thread wrote to shared memory by ordinary stores is seen by asynchronous copies and wgmma after it (and a barrier, for other threads' use).
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace electra::cuda

#endif
