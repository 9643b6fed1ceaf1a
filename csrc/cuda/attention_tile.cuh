// Tiles of rows in shared memory: how they are loaded, read as operands of mma.sync, and how a result goes back to global memory.
//
// A tile is [rows][D] of 16-bit values. The 16-byte chunks of a row are exchanged among themselves (swizzled) so that the eight rows that one matrix of
// ldmatrix takes lie in eight different groups of four banks; so do eight lanes of a row that write 16 bytes each.
#pragma once
#include "cuda/attention.h"
#include "cuda/copy.h"
#include "cuda/mma.h"
#include "cuda/types.cuh"

namespace electra::cuda {

__host__ __device__ constexpr int round_up(int n, int step) { return (n + step - 1) / step * step; }
__host__ __device__ constexpr int divide_up(int n, int step) { return (n + step - 1) / step; }

// Element where chunk c of row r begins. A row of 64 or 128 elements starts at bank 0, so all three low bits of the row enter; rows of 32 or 96 start at bank 0 and
// 16 in turn, so two bits do, and the chunk stays among its four neighbours; four rows of 16 fill the banks, so one bit does.
template <int D> __device__ __forceinline__ int swizzled(int r, int c) {
  static_assert(D % 32 == 0 || D == 16);
  const int phase = D % 64 == 0 ? r & 7 : D == 16 ? r >> 2 & 1 : r >> 1 & 3;
  return r * D + ((c ^ phase) << 3);
}

__device__ __forceinline__ int lane_of_warp() { return int(threadIdx.x) % 32; }

// --- operands. D: elements in a row of the tile; rows begin at multiples of 16, so that the swizzle depends on the lane alone and one address, plus a constant,
// serves every row0. Layouts: mma.h.

// A [16 x 16] = tile[row0 …][16 kk …]
template <int D, class T> __device__ __forceinline__ void load_a(uint32_t (&a)[4], const T* tile, int row0, int kk) {
  const int lane = lane_of_warp();
  ldmatrix_x4(a, tile + row0 * D + swizzled<D>(lane & 15, 2 * kk + (lane >> 4)));
}

// A [16 x 16] = transpose of tile[k0 …][16 m …]
template <int D, class T> __device__ __forceinline__ void load_a_transposed(uint32_t (&a)[4], const T* tile, int k0, int m) {
  const int lane = lane_of_warp();
  ldmatrix_x4_trans(a, tile + k0 * D + swizzled<D>((lane & 7) + (lane >> 4 << 3), 2 * m + (lane >> 3 & 1)));
}

// B [16 x 16] = transpose of tile[n0 …][16 kk …]: b[0], b[1] for columns n0 … n0+7, b[2], b[3] for the next eight
template <int D, class T> __device__ __forceinline__ void load_b(uint32_t (&b)[4], const T* tile, int n0, int kk) {
  const int lane = lane_of_warp();
  ldmatrix_x4(b, tile + n0 * D + swizzled<D>((lane & 7) + (lane >> 4 << 3), 2 * kk + (lane >> 3 & 1)));
}

// B [16 x 16] = tile[k0 …][16 n …], in the same order
template <int D, class T> __device__ __forceinline__ void load_b_transposed(uint32_t (&b)[4], const T* tile, int k0, int n) {
  const int lane = lane_of_warp();
  ldmatrix_x4_trans(b, tile + k0 * D + swizzled<D>(lane & 15, 2 * n + (lane >> 4)));
}

// The accumulators of two neighbouring [16 x 8] blocks as one A operand [16 x 16].
template <class T> __device__ __forceinline__ void pack_operand(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = pack<T>(left[0], left[1]);
  a[1] = pack<T>(left[2], left[3]);
  a[2] = pack<T>(right[0], right[1]);
  a[3] = pack<T>(right[2], right[3]);
}

// 16 rows of a tile as A operands: in registers, or read anew at every use. `flip` is exclusive-ored to all (0x80008000 negates).
template <class T, int D, bool in_registers> struct RowOperand;

template <class T, int D> struct RowOperand<T, D, true> {
  uint32_t a[D / 16][4];
  __device__ __forceinline__ void set(const T* tile, int row0, uint32_t flip = 0) {
#pragma unroll
    for (int kk = 0; kk < D / 16; ++kk) {
      load_a<D>(a[kk], tile, row0, kk);
#pragma unroll
      for (int i = 0; i < 4; ++i) a[kk][i] ^= flip;
    }
  }
  __device__ __forceinline__ void get(uint32_t (&out)[4], int kk) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = a[kk][i];
  }
};

template <class T, int D> struct RowOperand<T, D, false> {
  const T* tile;
  uint32_t flip;
  __device__ __forceinline__ void set(const T* tile_, int row0, uint32_t flip_ = 0) {
    tile = tile_ + row0 * D;
    flip = flip_;
  }
  __device__ __forceinline__ void get(uint32_t (&out)[4], int kk) const {
    load_a<D>(out, tile, 0, kk);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] ^= flip;
  }
};

// d[m] [16 x 16] += a[m] [16 x D] · transpose of tile[n0 …]
template <class T, int D, int tiles, class Operand>
__device__ __forceinline__ void multiply_columns(float (&d)[tiles][2][4], const Operand (&a)[tiles], const T* tile, int n0) {
#pragma unroll
  for (int kk = 0; kk < D / 16; ++kk) {
    uint32_t b[4];
    load_b<D>(b, tile, n0, kk);
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      uint32_t row[4];
      a[m].get(row, kk);
      mma_m16n8k16<T>(d[m][0], row, b[0], b[1]);
      mma_m16n8k16<T>(d[m][1], row, b[2], b[3]);
    }
  }
}

// d[m] [16 x 8N] += a[m] [16 x 16] · tile[k0 …][16 n0 …]
template <class T, int D, int tiles, int N>
__device__ __forceinline__ void multiply_rows(float (&d)[tiles][N][4], const uint32_t (&a)[tiles][4], const T* tile, int k0, int n0 = 0) {
#pragma unroll
  for (int n = 0; n < N / 2; ++n) {
    uint32_t b[4];
    load_b_transposed<D>(b, tile, k0, n0 + n);
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      mma_m16n8k16<T>(d[m][2 * n], a[m], b[0], b[1]);
      mma_m16n8k16<T>(d[m][2 * n + 1], a[m], b[2], b[3]);
    }
  }
}

// --- global memory

// Row `row` of head `head`.
template <class T> __device__ __forceinline__ const T* row_pointer(const AttentionRows& rows, int64_t row, int head) {
  return static_cast<const T*>(rows.data) + row * rows.row_stride + head * rows.head_stride;
}

// Starts copying `count` rows into a tile of `rows`; rows behind them, and columns behind `dim`, become zero. `thread` of `threads` keeps to one chunk of the rows.
template <class T, int D, int threads, int rows> __device__ __forceinline__ void load_tile(T* tile, const T* from, int64_t row_stride, int count, int dim, int thread) {
  constexpr int chunks = D / 8, step = threads / chunks;
  const int c = thread % chunks, first = thread / chunks;
  if (step * chunks != threads && first >= step) return;
  from += first * row_stride + 8 * c;
  count = 8 * c < dim ? count : 0;
#pragma unroll
  for (int i = 0; i < rows; i += step, from += step * row_stride) {
    const int r = first + i, place = step % 8 == 0 ? swizzled<D>(first, c) + i * D : swizzled<D>(r, c);   // eight rows on, the swizzle is the same
    if (i + step <= rows || r < rows) copy_async_16(tile + place, from, r < count);
  }
}

// The same by the whole block.
template <class T, int D, int threads, int rows> __device__ __forceinline__ void load_tile(T* tile, const T* from, int64_t row_stride, int count, int dim) {
  load_tile<T, D, threads, rows>(tile, from, row_stride, count, dim, int(threadIdx.x));
}

// A tile of 128 rows of which only the first 64 are loaded, and computed with, if no more are there.
template <class T, int D, int threads> __device__ __forceinline__ void load_halves(T* tile, const T* from, int64_t row_stride, int count, int dim) {
  load_tile<T, D, threads, 64>(tile, from, row_stride, count, dim);
  if (count > 64) load_tile<T, D, threads, 64>(tile + 64 * D, from + 64 * row_stride, row_stride, count - 64, dim);
}

// x[i] of lane 4*group + t becomes x[t] of lane 4*group + i: the quad turns "my two columns of four blocks" into "my block, its eight columns".
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4]) {
  const int t = lane_of_warp() & 3;
#pragma unroll
  for (int bit = 2; bit > 0; bit /= 2) {
    const bool upper = t & bit;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const uint32_t received = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + bit], bit);
      x[i] = upper ? received : x[i];
      x[i + bit] = upper ? x[i + bit] : received;
    }
  }
}

// Writes factor[half] * d, rows group and group+8 of a [16 x 8N] result, 16 bytes a lane; only rows below `count` and columns below `dim`.
template <class T, int N>
__device__ __forceinline__ void store_tile(T* rows, int64_t row_stride, const float (&d)[N][4], const float (&factor)[2], int count, int dim) {
  static_assert(N % 4 == 0);
  const int lane = lane_of_warp(), group = lane >> 2, t = lane & 3;
#pragma unroll
  for (int n = 0; n < N; n += 4)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t x[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = pack<T>(d[n + i][2 * half] * factor[half], d[n + i][2 * half + 1] * factor[half]);
      transpose_quad(x);
      const int row = group + 8 * half, column = 8 * (n + t);
      if (row < count && column < dim) *reinterpret_cast<uint4*>(rows + row * row_stride + column) = make_uint4(x[0], x[1], x[2], x[3]);
    }
}

// Zeros one head of the rows [first, last) of a [rows, heads, dim] result: this block's share, as `part` of `parts`.
template <class T>
__device__ __forceinline__ void clear_rows(void* result, int heads, int head, int dim, int64_t first, int64_t last, int part, int parts) {
  const int column = 8 * int(threadIdx.x);
  if (column >= dim) return;
#pragma unroll 1
  for (int64_t row = first + part; row < last; row += parts)
    *reinterpret_cast<uint4*>(static_cast<T*>(result) + (row * heads + head) * dim + column) = make_uint4(0, 0, 0, 0);
}

// The padding rows of the forward: zeros, and the log-sum-exp of no key.
template <class T> __device__ __forceinline__ void clear_padding(const AttentionForward& p, int head, int part, int parts) {
  const int64_t first = p.cu_seqlens_q[p.batch];
  clear_rows<T>(p.out, p.heads, head, p.dim, first, p.rows_q, part, parts);
#pragma unroll 1
  for (int64_t row = first + part * int(blockDim.x) + int(threadIdx.x); row < p.rows_q; row += parts * int(blockDim.x)) p.lse[head * p.rows_q + row] = -INFINITY;
}

// The padding rows of the backward: of dq, and of dk and dv.
template <class T> __device__ __forceinline__ void clear_queries(const AttentionBackward& p, int head, int part, int parts) {
  clear_rows<T>(p.dq, p.heads, head, p.dim, p.cu_seqlens_q[p.batch], p.rows_q, part, parts);
}

template <class T> __device__ __forceinline__ void clear_keys(const AttentionBackward& p, int head, int part, int parts) {
  clear_rows<T>(p.dk, p.heads, head, p.dim, p.cu_seqlens_k[p.batch], p.rows_k, part, parts);
  clear_rows<T>(p.dv, p.heads, head, p.dim, p.cu_seqlens_k[p.batch], p.rows_k, part, parts);
}

template <class T> __device__ __forceinline__ void clear_padding(const AttentionBackward& p, int head, int part, int parts) {
  clear_queries<T>(p, head, part, parts);
  clear_keys<T>(p, head, part, parts);
}

}  // namespace electra::cuda
