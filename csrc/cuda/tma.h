// The tensor memory accelerator (sm_90): boxes of a tensor, and plain runs of bytes, copied between global and shared memory without threads.
//
// Loads report their bytes to an mbarrier (what lies outside the tensor arrives as zeros and counts); stores are waited for by groups of the thread that asked,
// like cp.async. One thread asks. Shared addresses are aligned to 128 bytes (1024 with 128-byte swizzle), bulk copies to 16.
#pragma once
#include <cuda.h>

#include <atomic>

#include "cuda/dtype.h"
#include "cuda/mbarrier.h"
#include "cuda/swizzle.h"

namespace electra::cuda {

// A tensor of up to three dimensions, the innermost first: sizes in elements, strides of the outer ones in bytes (multiples of 16), and the box that one copy
// moves (each at most 256 elements; a row of it at most the swizzle's bytes, if there is one).
struct TensorBox {
  DType type;
  const void* data;   // 16-byte aligned
  int dims;           // 2 or 3
  uint64_t size[3];
  uint64_t stride[2];
  uint32_t box[3];
  Swizzle swizzle;
};

constexpr int element_bytes(DType type) { return type == DType::f32 ? 4 : 2; }

}  // namespace electra::cuda

#ifdef ELECTRA_EMULATION
#include "emulation/tma.h"
#else

namespace electra::cuda {

// What a kernel takes as `const __grid_constant__ CUtensorMap`. The driver's function is found at run time: nothing links to libcuda.
inline cudaError_t make_tensor_map(CUtensorMap& map, const TensorBox& t) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                              CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static std::atomic<void*> known = nullptr;   // stays once it was found; any thread may be the first
  void* function = known;
  if (!function) {
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
    const cudaError_t error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    if (error != cudaSuccess) return error;
    if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
    known = function;
  }
  constexpr CUtensorMapDataType types[] = {CU_TENSOR_MAP_DATA_TYPE_FLOAT32, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16};
  constexpr CUtensorMapSwizzle swizzles[] = {CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_SWIZZLE_32B, CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_SWIZZLE_128B};
  const cuuint64_t size[] = {t.size[0], t.size[1], t.size[2]}, stride[] = {t.stride[0], t.stride[1]};
  const cuuint32_t box[] = {t.box[0], t.box[1], t.box[2]}, every_element[] = {1, 1, 1};
  const CUresult result = reinterpret_cast<Encode>(function)(&map, types[int(t.type)], cuuint32_t(t.dims), const_cast<void*>(t.data), size, stride, box, every_element,
                                                             CU_TENSOR_MAP_INTERLEAVE_NONE, swizzles[int(t.swizzle)], CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                                             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map) { asm volatile("prefetch.tensormap [%0];" :: "l"(map) : "memory"); }

// The box at element (x, y) or (x, y, z), which may lie outside in part.
__device__ __forceinline__ void tma_load_2d(void* shared, const CUtensorMap* map, Mbarrier* barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
               :: "r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y) : "memory");
}

// The same for every block of the cluster whose bit is set in `blocks`: each gets the box in the place of `shared`, and is told by its barrier in the place of `barrier`.
__device__ __forceinline__ void tma_load_2d_multicast(void* shared, const CUtensorMap* map, Mbarrier* barrier, int x, int y, uint16_t blocks) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;"
               :: "r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "h"(blocks) : "memory");
}

__device__ __forceinline__ void tma_load_3d(void* shared, const CUtensorMap* map, Mbarrier* barrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
               :: "r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z) : "memory");
}

// What lies outside the tensor is not written.
__device__ __forceinline__ void tma_store_2d(const CUtensorMap* map, const void* shared, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];"
               :: "l"(map), "r"(shared_address(shared)), "r"(x), "r"(y) : "memory");
}

__device__ __forceinline__ void tma_store_3d(const CUtensorMap* map, const void* shared, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];"
               :: "l"(map), "r"(shared_address(shared)), "r"(x), "r"(y), "r"(z) : "memory");
}

// `bytes`: a multiple of 16.
__device__ __forceinline__ void bulk_load(void* shared, const void* global, uint32_t bytes, Mbarrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :: "r"(shared_address(shared)), "l"(global), "r"(bytes), "r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void bulk_store(void* global, const void* shared, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" :: "l"(global), "r"(shared_address(shared)), "r"(bytes) : "memory");
}

// To the same place of block `rank` of the cluster, which is told by its barrier (the same place as `barrier` here).
__device__ __forceinline__ void bulk_copy_to_block(void* shared, const void* from, uint32_t bytes, Mbarrier* barrier, uint32_t rank) {
  asm volatile("{\n.reg .b32 to, told;\nmapa.shared::cluster.u32 to, %0, %4;\nmapa.shared::cluster.u32 told, %3, %4;\n"
               "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [to], [%1], %2, [told];\n}"
               :: "r"(shared_address(shared)), "r"(shared_address(from)), "r"(bytes), "r"(shared_address(barrier)), "r"(rank) : "memory");
}

// Groups of this thread's stores.
__device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// At most the N newest groups are under way: the others are written; with _read, have been read from shared memory, which may be written again.
template <int N> __device__ __forceinline__ void bulk_wait() { asm volatile("cp.async.bulk.wait_group %0;" :: "n"(N) : "memory"); }
template <int N> __device__ __forceinline__ void bulk_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" :: "n"(N) : "memory"); }

}  // namespace electra::cuda

#endif
