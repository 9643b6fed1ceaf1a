// csrc/cuda/tma.h in the emulator.
#pragma once
#include "emulation/hopper.h"

namespace electra::cuda {

inline cudaError_t make_tensor_map(CUtensorMap& map, const TensorBox& t) {
  emulation::TensorMap m{};
  m.data = static_cast<const unsigned char*>(t.data);
  m.element = element_bytes(t.type);
  m.dims = t.dims;
  m.swizzle_bits = int(t.swizzle);
  for (int i = 0; i < 3; ++i) {
    m.size[i] = i < t.dims ? t.size[i] : 1;
    m.box[i] = i < t.dims ? t.box[i] : 1;
    m.stride[i] = i == 0 ? m.element : i < t.dims ? t.stride[i - 1] : 0;
  }
  const cudaError_t error = emulation::encode(m);
  static_assert(sizeof m <= sizeof map);
  memcpy(&map, &m, sizeof m);
  return error;
}

inline emulation::TensorMap tensor_map(const CUtensorMap* map) {
  emulation::TensorMap m;
  memcpy(&m, map, sizeof m);
  return m;
}

inline void tma_prefetch(const CUtensorMap*) {}
inline void tma_load_2d(void* shared, const CUtensorMap* map, Mbarrier* barrier, int x, int y) { emulation::tma_load(shared, tensor_map(map), barrier, 2, x, y, 0); }
inline void tma_load_2d_multicast(void* shared, const CUtensorMap* map, Mbarrier* barrier, int x, int y, uint16_t blocks) {
  emulation::tma_load_multicast(shared, tensor_map(map), barrier, x, y, blocks);
}
inline void tma_load_3d(void* shared, const CUtensorMap* map, Mbarrier* barrier, int x, int y, int z) {
  emulation::tma_load(shared, tensor_map(map), barrier, 3, x, y, z);
}
inline void tma_store_2d(const CUtensorMap* map, const void* shared, int x, int y) { emulation::tma_store(tensor_map(map), shared, 2, x, y, 0); }
inline void tma_store_3d(const CUtensorMap* map, const void* shared, int x, int y, int z) { emulation::tma_store(tensor_map(map), shared, 3, x, y, z); }
inline void bulk_load(void* shared, const void* global, uint32_t bytes, Mbarrier* barrier) { emulation::bulk_load(shared, global, bytes, barrier); }
inline void bulk_store(void* global, const void* shared, uint32_t bytes) { emulation::bulk_store(global, shared, bytes); }
inline void bulk_copy_to_block(void* shared, const void* from, uint32_t bytes, Mbarrier* barrier, uint32_t rank) {
  emulation::bulk_copy_to_block(shared, from, bytes, barrier, rank);
}
inline void bulk_commit() { emulation::bulk_commit(); }
template <int N> inline void bulk_wait() { emulation::bulk_wait(N, false); }
template <int N> inline void bulk_wait_read() { emulation::bulk_wait(N, true); }

}  // namespace electra::cuda
