// What the emulated forms of mbarrier.h, tma.h, wgmma.h and cluster.h call.
#pragma once
#include "emulation/runtime.h"

namespace electra::emulation {

void mbarrier_init(void* barrier, uint32_t arrivals);
void mbarrier_arrive(void* barrier, int64_t bytes_expected, int rank);   // rank -1: in this block
void mbarrier_wait(void* barrier, uint32_t parity);
void fence_async_proxy();

// A tensor as TMA sees it; lies in a CUtensorMap.
struct TensorMap {
  uint64_t magic;
  const unsigned char* data;
  uint64_t size[3], stride[3];   // elements, bytes; unused dimensions have size 1
  uint32_t box[3];
  int element, dims, swizzle_bits;
};
cudaError_t encode(TensorMap& map);   // checks it; a fault is kept as a launch's would be
void tma_load(void* shared, const TensorMap& map, void* barrier, int dims, int x, int y, int z);
void tma_load_multicast(void* shared, const TensorMap& map, void* barrier, int x, int y, uint32_t blocks);   // a bit a block
void tma_store(const TensorMap& map, const void* shared, int dims, int x, int y, int z);
void bulk_load(void* shared, const void* global, uint32_t bytes, void* barrier);
void bulk_store(void* global, const void* shared, uint32_t bytes);
void bulk_copy_to_block(void* shared, const void* from, uint32_t bytes, void* barrier, uint32_t rank);
void bulk_commit();
void bulk_wait(int groups_left, bool read_only);

uint32_t cluster_rank();
void cluster_arrive();
void cluster_wait();
void* map_shared(const void* p, uint32_t rank);

// The descriptor of an operand, its address being an offset in the block's dynamic shared memory.
uint64_t operand_descriptor(const void* shared, int swizzle, uint32_t leading, uint32_t stride);
struct WgmmaCall {
  int n;
  bool half, a_in_registers, a_mn, b_mn, accumulate;
  uint32_t a[4];
  uint64_t a_descriptor, b_descriptor;
};
void wgmma(float* d, const WgmmaCall& call);   // d: n / 2 registers
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int groups_left);

}  // namespace electra::emulation
