// csrc/cuda/mbarrier.h in the emulator.
#pragma once
#include "emulation/hopper.h"

namespace electra::cuda {

inline void mbarrier_init(Mbarrier* barrier, uint32_t arrivals) { emulation::mbarrier_init(barrier, arrivals); }
inline void mbarrier_fence_init() {}
inline void mbarrier_arrive(Mbarrier* barrier) { emulation::mbarrier_arrive(barrier, 0, -1); }
inline void mbarrier_arrive_expect(Mbarrier* barrier, uint32_t bytes) { emulation::mbarrier_arrive(barrier, bytes, -1); }
inline void mbarrier_arrive_remote(Mbarrier* barrier, uint32_t rank) { emulation::mbarrier_arrive(barrier, 0, int(rank)); }
inline void mbarrier_give_back_remote(Mbarrier* barrier, uint32_t rank) { emulation::mbarrier_arrive(barrier, 0, int(rank)); }
inline void mbarrier_wait(Mbarrier* barrier, uint32_t parity) { emulation::mbarrier_wait(barrier, parity); }
inline void mbarrier_wait_cluster(Mbarrier* barrier, uint32_t parity) { emulation::mbarrier_wait(barrier, parity); }
inline void fence_async_proxy() { emulation::fence_async_proxy(); }

}  // namespace electra::cuda
