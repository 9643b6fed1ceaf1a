// Device half of layer_norm_columns.h.
#pragma once
#include "cuda/layer_norm_columns.h"
#include "cuda/layer_norm_row.cuh"

namespace electra::cuda {

// Whether this block is the last of `count` to call with this counter: then it sees what the others wrote before they called. All threads must call.
__device__ __forceinline__ bool last_to_arrive(unsigned* arrived, int count) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(arrived, 1u) == unsigned(count - 1);
  __syncthreads();
  if (last) __threadfence();
  return last;
}

// write(column, sums of four columns from there on) for the sums over `count` rows of `pitch` floats, first to last.
template <class Write>
__device__ __forceinline__ void sum_rows(const float* rows, int count, int pitch, int columns, Write&& write) {
  constexpr int at_once = 8;   // loads under way
  for (int column = 4 * threadIdx.x; column < columns; column += 4 * blockDim.x) {
    float4 total = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int r = 0; r < count; r += at_once) {
      float4 part[at_once];
#pragma unroll
      for (int k = 0; k < at_once; ++k)   // past L1, which may hold what was here before
        part[k] = r + k < count ? __ldcg(reinterpret_cast<const float4*>(rows + int64_t(r + k) * pitch + column)) : make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
      for (int k = 0; k < at_once; ++k) {
        total.x += part[k].x;
        total.y += part[k].y;
        total.z += part[k].z;
        total.w += part[k].w;
      }
    }
    write(column, total);
  }
}

// After every block has written its row of sums.blocks: write(column, sum over all blocks), once for every column. All threads must call.
template <class Write>
__device__ __forceinline__ void finish_column_sums(const ColumnSums& sums, Write&& write) {
  const int group = blockIdx.x / sums.group_size, first = group * sums.group_size;
  const int blocks = min(sums.group_size, int(gridDim.x) - first);
  if (!last_to_arrive(sums.arrived + 1 + group, blocks)) return;
  sum_rows(sums.blocks + int64_t(first) * sums.pitch, blocks, sums.pitch, sums.columns, [&](int column, float4 total) {
    *reinterpret_cast<float4*>(sums.groups + int64_t(group) * sums.pitch + column) = total;
  });
  if (!last_to_arrive(sums.arrived, sums.group_count)) return;
  sum_rows(sums.groups, sums.group_count, sums.pitch, sums.columns, [&](int column, float4 total) {
    write(column, total.x);
    if (column + 1 < sums.columns) write(column + 1, total.y);
    if (column + 2 < sums.columns) write(column + 2, total.z);
    if (column + 3 < sums.columns) write(column + 3, total.w);
  });
}

// One element of a parameter's gradient.
template <class T> __device__ __forceinline__ void store_element(const ParameterGradient& gradient, int i, float value) {
  const float one[1] = {value};
  store_parameter<T>(gradient, i, one);
}

// Adds up one array of the block's warps, each of which holds sums for all the columns of its layout, in the order of the warps, into out[n]. `shared` holds
// warps * L::columns floats and may be reused after the call.
template <class L, int warps>
__device__ __forceinline__ void sum_over_warps(float (&x)[L::vectors][L::width], int n, float* shared, float* out) {
  static_assert(L::lanes == 32 || L::lanes == 16, "a row is a warp's or half a warp's");
  float* const mine = shared + threadIdx.x / 32 * L::columns;
#pragma unroll
  for (int v = 0; v < L::vectors; ++v) {
    if constexpr (L::lanes == 16) {
#pragma unroll
      for (int i = 0; i < L::width; ++i) x[v][i] += __shfl_xor_sync(full_warp, x[v][i], 16);
    }
    if (threadIdx.x % 32 < L::lanes && L::inside(v, n)) store_vector<L::width>(mine + L::column(v), x[v]);
  }
  __syncthreads();
  for (int column = threadIdx.x; column < n; column += 32 * warps) {
    float total = 0.f;
#pragma unroll 4
    for (int warp = 0; warp < warps; ++warp) total += shared[warp * L::columns + column];
    out[column] = total;
  }
  __syncthreads();
}

}  // namespace electra::cuda
