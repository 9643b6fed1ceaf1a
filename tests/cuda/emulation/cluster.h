// csrc/cuda/cluster.h in the emulator. (launch_cluster: launch.h)
#pragma once
#include "emulation/hopper.h"

namespace electra::cuda {

inline uint32_t cluster_rank() { return emulation::cluster_rank(); }
inline void cluster_arrive() { emulation::cluster_arrive(); }
inline void cluster_wait() { emulation::cluster_wait(); }
inline void cluster_sync() {
  emulation::cluster_arrive();
  emulation::cluster_wait();
}
template <class T> inline T* map_shared(T* p, uint32_t rank) { return static_cast<T*>(emulation::map_shared(p, rank)); }

}  // namespace electra::cuda
