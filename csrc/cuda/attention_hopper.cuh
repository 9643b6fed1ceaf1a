// What the attention kernels of Hopper (wgmma, TMA) share. Tiles are [rows][64] of 16-bit values with the 128-byte swizzle, fetched in boxes of 64 rows of one head;
// columns behind the head dimension arrive as zeros. Boxes do not end where a sequence does: what they bring from behind it may be anything, NaN included. So rows
// that are summed over are made zero first (clear_tail), since 0 * NaN is NaN; in rows that are not, it stays where it is and is not stored.
#pragma once
#include "cuda/attention_config.cuh"
#include "cuda/attention_launch.h"
#include "cuda/attention_math.cuh"
#include "cuda/attention_sequence.cuh"
#include "cuda/attention_tile.cuh"
#include "cuda/tma.h"
#include "cuda/wgmma.h"

namespace electra::cuda {

inline constexpr int hopper_dim = attention_config::hopper_dim, box_rows = 64, box_bytes = box_rows * hopper_dim * 2;

inline cudaError_t boxes_of(CUtensorMap& map, const AttentionProblem& p, const AttentionRows& rows, int64_t count) {
  return make_tensor_map(map, {p.type, rows.data, 3, {uint64_t(p.dim), uint64_t(count), uint64_t(p.heads)}, {uint64_t(rows.row_stride) * 2, uint64_t(rows.head_stride) * 2},
                               {hopper_dim, box_rows, 1}, Swizzle::bytes_128});
}

// The rows of as many boxes as `count` rows need, and their bytes.
__device__ __forceinline__ int fetched_rows(int count) { return round_up(count, box_rows); }
__device__ __forceinline__ uint32_t fetched_bytes(int count) { return uint32_t(fetched_rows(count) * hopper_dim * 2); }

// One thread: starts fetching `count` rows of a head, from packed row `row` on, in whole boxes. `barrier` has been told of their bytes.
template <class T> __device__ __forceinline__ void fetch_rows(T* tile, const CUtensorMap* map, Mbarrier* barrier, int row, int head, int count) {
#pragma unroll 1
  for (int i = 0; i < count; i += box_rows) tma_load_3d(tile + i * hopper_dim, map, barrier, 0, row + i, head);
}

// Makes the rows of a tile from `count` to `rows` zero, as lane `lane` of `lanes`, for asynchronous readers. A barrier must follow.
template <class T> __device__ __forceinline__ void clear_tail(T* tile, int count, int rows, int lane, int lanes) {
  constexpr int pieces = hopper_dim / 8;
#pragma unroll 1
  for (int i = count * pieces + lane; i < rows * pieces; i += lanes) reinterpret_cast<uint4*>(tile)[i] = make_uint4(0, 0, 0, 0);
  fence_async_proxy();
}

// Operands of wgmma in such tiles. The next 16 of a row are row_step bytes on, the next 16 rows column_step bytes.
inline constexpr uint32_t row_step = 32, column_step = 16 * hopper_dim * 2;
template <class T> __device__ __forceinline__ Operand rows_operand(const T* tile) { return wgmma_operand(tile, Swizzle::bytes_128, 0, 1024); }   // summed along rows: Major::k
template <class T> __device__ __forceinline__ Operand columns_operand(const T* tile) { return rows_operand(tile); }   // summed along columns, 64 wide: Major::mn

// A place in a ring of a power of two, by the number of places taken before: one register.
template <int places> struct Ring {
  static_assert((places & (places - 1)) == 0);
  uint32_t taken = 0;
  __device__ __forceinline__ int at() const { return int(taken % places); }
  __device__ __forceinline__ uint32_t parity() const { return taken / places % 2; }
};

// Accumulators of 16 neighbouring columns, 4 * 2 of d from element `first` on, as the operand that multiplies 16 rows.
template <class T, int R> __device__ __forceinline__ void pack_columns(uint32_t (&a)[4], const float (&d)[R], int first) {
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = pack<T>(d[first + 2 * i], d[first + 2 * i + 1]);
}

// Writes factor[half] * d, the rows group and group+8 of a warp, 64 columns of one head, as store_tile does.
template <class T> __device__ __forceinline__ void store_rows(T* rows, int64_t row_stride, const float (&d)[hopper_dim / 2], const float (&factor)[2], int count, int dim) {
  float blocks[hopper_dim / 8][4];
#pragma unroll
  for (int i = 0; i < hopper_dim / 2; ++i) blocks[i / 4][i % 4] = d[i];
  store_tile<T>(rows, row_stride, blocks, factor, count, dim);
}

}  // namespace electra::cuda
