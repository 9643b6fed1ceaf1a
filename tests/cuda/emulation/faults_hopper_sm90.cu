// Small kernels for the tests of the emulated Hopper instructions (tests/cuda/test_emulation_hopper.py): right when `fault` is 0, with one deliberate fault
// otherwise. nvcc compiles them too, so that the headers' PTX is tested as far as it can be without a GPU.
#include <string>

#include "cuda/barrier.h"
#include "cuda/cluster.h"
#include "cuda/tma.h"
#include "cuda/types.cuh"
#include "cuda/wgmma.h"

namespace electra::cuda {
namespace {

__device__ void init(Mbarrier* barrier, uint32_t arrivals) {
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, arrivals);
    mbarrier_fence_init();
  }
  __syncthreads();
}

// out [planes, rows, columns] = the box at (x, y, z), zeros outside. Faults: 1 no wait, 2 expects too few bytes, 3 expects too many, 4 waits for the wrong parity,
// 5 the barrier is not initialised for all before it is used, 6 another thread reads without having waited.
template <Swizzle swizzle, int dims> __global__ void load_box(const __grid_constant__ CUtensorMap map, float* out, int columns, int rows, int planes, int x, int y, int z, int fault) {
  ELECTRA_DYNAMIC_SHARED(float, tile);
  __shared__ Mbarrier full;
  const int n = columns * rows * planes;
  if (fault == 5) {
    if (threadIdx.x == 0) mbarrier_init(&full, 1);
  } else {
    init(&full, 1);
  }
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, 4 * n + (fault == 2 ? -16 : fault == 3 ? 16 : 0));
    if (dims == 2) tma_load_2d(tile, &map, &full, x, y);
    else tma_load_3d(tile, &map, &full, x, y, z);
  }
  if (fault != 1 && (fault != 6 || threadIdx.x < 32)) mbarrier_wait(&full, fault == 4);
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = tile[swizzled<swizzle>(4 * i) / 4];
}

// The rest of a tensor from (x, y) on, as far as a box of [rows, columns] covers it, becomes 0, 1, 2, … counted in the box. Faults: 1 no fence, 2 shared memory is
// written again too early, 3 ends too early, 4 no barrier between the writes and the store, 5 not committed.
__global__ void store_box(const __grid_constant__ CUtensorMap map, float*, int columns, int rows, int, int x, int y, int, int fault) {
  ELECTRA_DYNAMIC_SHARED(float, tile);
  for (int i = threadIdx.x; i < columns * rows; i += blockDim.x) tile[i] = float(i);
  if (fault != 1) fence_async_proxy();
  if (fault != 4) __syncthreads();
  if (threadIdx.x != 0) return;
  tma_store_2d(&map, tile, x, y);
  if (fault != 5) bulk_commit();
  if (fault == 2) tile[0] = 1.f;
  if (fault != 3) bulk_wait_read<0>();
  tile[0] = 1.f;
}

// out = 2 in, n floats in tiles of 128 by bulk copies: thread 0 loads ahead in two stages, the others compute. Faults: 1 a stage is filled again before it is
// free, 2 consumers do not say that it is free, 3 the wrong parity for the full stage.
__global__ void stages(const float* in, float* out, int n, int fault) {
  ELECTRA_DYNAMIC_SHARED(float, shared);   // two stages in, one out
  __shared__ Mbarrier full[2], empty[2];
  constexpr int tile = 128;
  float* result = shared + 2 * tile;
  init(&full[0], 1);
  init(&full[1], 1);
  init(&empty[0], 128);
  init(&empty[1], 128);
  const int tiles = n / tile;
  if (threadIdx.x == 128) {
    for (int i = 0; i < tiles; ++i) {
      const int stage = i % 2, round = i / 2;
      if (round > 0 && fault != 1) mbarrier_wait(&empty[stage], (round - 1) & 1);
      mbarrier_arrive_expect(&full[stage], 4 * tile);
      bulk_load(shared + stage * tile, in + i * tile, 4 * tile, &full[stage]);
    }
  }
  if (threadIdx.x >= 128) return;
  for (int i = 0; i < tiles; ++i) {
    const int stage = i % 2, round = i / 2;
    mbarrier_wait(&full[stage], (round & 1) ^ (fault == 3));
    const float x = shared[stage * tile + threadIdx.x];
    if (fault != 2) mbarrier_arrive(&empty[stage]);
    if (threadIdx.x == 0) bulk_wait_read<0>();
    named_barrier_sync(1, 128);
    result[threadIdx.x] = 2.f * x;
    fence_async_proxy();
    named_barrier_sync(1, 128);
    if (threadIdx.x == 0) {
      bulk_store(out + i * tile, result, 4 * tile);
      bulk_commit();
    }
  }
  if (threadIdx.x == 0) bulk_wait<0>();
}

// How an operand of [rows, 64] (rows of A, columns of B) lies in shared memory: boxes of `row` bytes along the contiguous index, as TMA brings them.
template <Swizzle swizzle, Major major, int rows> struct Tile {
  static constexpr int depth = 64, row = swizzle_bytes(swizzle), elements = row / 2;
  static constexpr int along = major == Major::k ? depth : rows, across = major == Major::k ? rows : depth;
  static constexpr int box = across * row, boxes = along / elements, bytes = boxes * box;

  static __device__ void load(unsigned char* shared, const CUtensorMap* map, Mbarrier* full) {
    for (int b = 0; b < boxes; ++b) tma_load_2d(shared + b * box, map, full, b * elements, 0);
  }
  // The 16 k from 16 * step on.
  static __device__ Operand operand(const unsigned char* shared, int step, int fault) {
    const int k = 16 * step, wrong = fault == 3 ? 1024 : 0;
    if constexpr (major == Major::mn) {
      return swizzle == Swizzle::none ? wgmma_operand(shared + k * row, swizzle, 8 * row, box + wrong) : wgmma_operand(shared + k * row, swizzle, box, 8 * row + wrong);
    } else {
      const int offset = k / elements * box + k % elements * 2;
      return wgmma_operand(shared + offset, swizzle, box, 8 * row + wrong);
    }
  }
  static TensorBox tensor(const void* data, DType type) {
    return {type, data, 2, {uint64_t(along), uint64_t(across), 1}, {uint64_t(2 * along), 0}, {uint32_t(elements), uint32_t(across), 1}, swizzle};
  }
};

// out [64 x N] = A [64 x 64] B [64 x N]; a_row: A from global memory by registers. Faults: 1 no wgmma_fence, 2 no wait, 3 a wrong stride, 4 an operand written by
// ordinary stores without fence, 5 the operand is overwritten before the wait.
template <int N, class T, Swizzle swizzle, bool registers, Major a_major, Major b_major>
__global__ void gemm(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map, const T* a_row, float* out, int fault) {
  using A = Tile<swizzle, a_major, 64>;
  using B = Tile<swizzle, b_major, N>;
  ELECTRA_DYNAMIC_SHARED(unsigned char, a);
  unsigned char* b = a + A::bytes;
  __shared__ Mbarrier full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, A::bytes + B::bytes);
    A::load(a, &a_map, &full);
    B::load(b, &b_map, &full);
  }
  mbarrier_wait(&full, 0);
  if (fault == 4) {
    if (threadIdx.x == 0) reinterpret_cast<T*>(b)[0] = from_float<T>(1.f);
    __syncthreads();
  }
  const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  uint32_t fragments[4][4];
  if (registers)
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) fragments[step][i] = *reinterpret_cast<const uint32_t*>(a_row + (16 * warp + group + 8 * (i & 1)) * 64 + 16 * step + 8 * (i >> 1) + 2 * t);
  float d[N / 2];
  if (fault != 1) wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const Operand columns = B::operand(b, step, fault);
    if constexpr (registers) wgmma<N, T, b_major>(d, fragments[step], columns, step > 0);
    else wgmma<N, T, a_major, b_major>(d, A::operand(a, step, 0), columns, step > 0);
  }
  wgmma_commit();
  if (fault == 5) *reinterpret_cast<T*>(b + 2 * threadIdx.x) = from_float<T>(0.f);
  if (fault != 2) wgmma_wait<0>();
  wgmma_hold(d);
#pragma unroll
  for (int r = 0; r < N / 2; ++r) out[(16 * warp + group + 8 * (r >> 1 & 1)) * N + 8 * (r >> 2) + 2 * t + (r & 1)] = d[r];
  if (fault == 2) wgmma_wait<0>();
}

// Two groups under way: d holds the first product, e the second, which is waited for later. out [2][64 x 64]; without fault e is read when both are done.
// Fault 1: too early.
__global__ void two_groups(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map, float* out, int fault) {
  using A = Tile<Swizzle::bytes_128, Major::k, 64>;
  ELECTRA_DYNAMIC_SHARED(unsigned char, a);
  __shared__ Mbarrier full;
  init(&full, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(&full, 2 * A::bytes);
    A::load(a, &a_map, &full);
    A::load(a + A::bytes, &b_map, &full);
  }
  mbarrier_wait(&full, 0);
  float d[32], e[32];
  wgmma_fence();
  for (int step = 0; step < 4; ++step) wgmma<64, __nv_bfloat16>(d, A::operand(a, step, 0), A::operand(a + A::bytes, step, 0), step > 0);
  wgmma_commit();
  for (int step = 0; step < 4; ++step) wgmma<64, __nv_bfloat16>(e, A::operand(a + A::bytes, step, 0), A::operand(a, step, 0), step > 0);
  wgmma_commit();
  wgmma_wait<1>();
  wgmma_hold(d);
  const auto store = [&](const float(&x)[32], float* to) {
    for (int r = 0; r < 32; ++r) to[(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * (r >> 1 & 1)) * 64 + 8 * (r >> 2) + threadIdx.x % 4 * 2 + (r & 1)] = x[r];
  };
  store(d, out);
  if (fault == 1) store(e, out + 4096);
  wgmma_wait<0>();
  wgmma_hold(e);
  if (fault != 1) store(e, out + 4096);
}

// Every block of a cluster sums the row of each of its fellows: out[block][i] = Σ over ranks of (rank + 1) * in[i], in the order of ranks. Faults: 1 no barrier before,
// 2 none after.
__global__ void exchange(const float* in, float* out, int fault) {
  ELECTRA_DYNAMIC_SHARED(float, row);
  const int t = threadIdx.x;
  row[t] = in[t] * float(cluster_rank() + 1);
  if (fault != 1) cluster_sync();
  float sum = 0.f;
  for (int rank = 0; rank < 4; ++rank) sum += map_shared(row, rank)[t];
  out[blockIdx.x * blockDim.x + t] = sum;
  if (fault != 2) cluster_sync();
}

// Block r sends its row to block r + 1 of its cluster by a bulk copy, and says by a remote arrival that it has the one it got. Fault 1: the receiver does not wait.
__global__ void ring(const float* in, float* out, int fault) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, shared);
  float *mine = reinterpret_cast<float*>(shared), *got = mine + 64;
  Mbarrier *full = reinterpret_cast<Mbarrier*>(got + 64), *taken = full + 1;
  const uint32_t rank = cluster_rank(), next = (rank + 1) % 4, before = (rank + 3) % 4;
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(full, 1);
    mbarrier_init(taken, 64);
    mbarrier_fence_init();
    mbarrier_arrive_expect(full, 256);
  }
  mine[t] = in[t] + float(rank);
  fence_async_proxy();
  cluster_sync();
  if (t == 0) bulk_copy_to_block(got, mine, 256, full, next);
  if (fault != 1) mbarrier_wait(full, 0);
  out[blockIdx.x * 64 + t] = got[t];
  mbarrier_arrive_remote(taken, before);
  mbarrier_wait_cluster(taken, 0);
  cluster_sync();
}

// Two blocks fetch eight rows each of a tile of 16 x 32, for both: out[block] = Σ over tiles i of (i + 1) * tile i. Faults: 1 a block fetches when its own threads have read
// the tile before, 2 it waits for its own half only, 3 it fetches for the other block only, 4 it ends while the other may have something to say.
__global__ void shares(const __grid_constant__ CUtensorMap map, float* out, int tiles, int fault) {
  ELECTRA_DYNAMIC_SHARED(float, tile);
  Mbarrier *full = reinterpret_cast<Mbarrier*>(tile + 512), *empty = full + 1;
  const int t = threadIdx.x, rank = int(cluster_rank());
  if (t == 0) {
    mbarrier_init(full, 1);
    mbarrier_init(empty, fault == 1 ? 64 : 128);
    mbarrier_fence_init();
  }
  cluster_sync();
  float sum[8] = {};
  for (int i = 0; i < tiles; ++i) {
    if (t == 0) {
      if (i > 0) mbarrier_wait_cluster(empty, (i - 1) & 1);
      mbarrier_arrive_expect(full, fault == 2 ? 1024 : 2048);
      tma_load_2d_multicast(tile + 256 * rank, &map, full, 0, 16 * i + 8 * rank, fault == 3 ? 1 << (1 - rank) : 3);
    }
    mbarrier_wait(full, i & 1);
    for (int j = 0; j < 8; ++j) sum[j] += float(i + 1) * tile[64 * j + t];
    for (int to = 0; to < 2; ++to)
      if (fault != 1 || to == rank) mbarrier_arrive_remote(empty, to);
    __syncwarp();   // thread 0's own warp
  }
  for (int j = 0; j < 8; ++j) out[512 * rank + 64 * j + t] = sum[j];
  if (fault != 4) cluster_sync();
}

struct Call {
  int fault;
  const void *a, *b;
  float* out;
  int n[8];
};

template <int N, class T, Swizzle swizzle, bool registers, Major a_major, Major b_major> cudaError_t run_gemm(const Call& c) {
  using A = Tile<swizzle, a_major, 64>;
  using B = Tile<swizzle, b_major, N>;
  const DType type = std::is_same_v<T, __half> ? DType::f16 : DType::bf16;
  CUtensorMap a, b;
  if (const cudaError_t error = make_tensor_map(a, A::tensor(c.a, type)); error != cudaSuccess) return error;
  if (const cudaError_t error = make_tensor_map(b, B::tensor(c.b, type)); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH((gemm<N, T, swizzle, registers, a_major, b_major>), 1, 128, A::bytes + B::bytes, nullptr, a, b, static_cast<const T*>(c.a), c.out, c.fault);
}

template <Swizzle swizzle> cudaError_t gemm_64(const Call& c, bool registers, bool a_mn, bool b_mn) {
  using T = __nv_bfloat16;
  if (registers) return b_mn ? run_gemm<64, T, swizzle, true, Major::k, Major::mn>(c) : run_gemm<64, T, swizzle, true, Major::k, Major::k>(c);
  if (a_mn) return b_mn ? run_gemm<64, T, swizzle, false, Major::mn, Major::mn>(c) : run_gemm<64, T, swizzle, false, Major::mn, Major::k>(c);
  return b_mn ? run_gemm<64, T, swizzle, false, Major::k, Major::mn>(c) : run_gemm<64, T, swizzle, false, Major::k, Major::k>(c);
}

// n: swizzle, A in registers, A mn-major, B mn-major, N, float16. Not 64 or float16: 128-byte swizzle, k-major, from shared memory.
cudaError_t run_gemm(const Call& c) {
  const int* n = c.n;
  if (n[4] == 8) return run_gemm<8, __nv_bfloat16, Swizzle::bytes_128, false, Major::k, Major::k>(c);
  if (n[4] == 192) return run_gemm<192, __nv_bfloat16, Swizzle::bytes_128, false, Major::k, Major::mn>(c);
  if (n[4] == 256) return run_gemm<256, __half, Swizzle::bytes_128, true, Major::k, Major::k>(c);
  if (n[5]) return run_gemm<64, __half, Swizzle::bytes_128, false, Major::k, Major::k>(c);
  switch (n[0]) {
    case 0: return gemm_64<Swizzle::none>(c, n[1], n[2], n[3]);
    case 1: return gemm_64<Swizzle::bytes_32>(c, n[1], n[2], n[3]);
    case 2: return gemm_64<Swizzle::bytes_64>(c, n[1], n[2], n[3]);
    default: return gemm_64<Swizzle::bytes_128>(c, n[1], n[2], n[3]);
  }
}

// a: a float tensor of n[0] columns, n[1] rows, n[2] planes (0: two dimensions); a box of n[3] x n[4] at n[5], n[6]; swizzle n[7].
template <class Kernel> cudaError_t with_box(const Call& c, Kernel kernel, int dims, int planes) {
  const uint64_t columns = uint64_t(c.n[0]), rows = uint64_t(c.n[1]);
  const TensorBox box = {DType::f32, c.a, dims, {columns, rows, uint64_t(c.n[2])}, {4 * columns, 4 * columns * rows}, {uint32_t(c.n[3]), uint32_t(c.n[4]), uint32_t(planes)}, Swizzle(c.n[7])};
  CUtensorMap map;
  if (const cudaError_t error = make_tensor_map(map, box); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH(kernel, 1, 64, size_t(c.n[3]) * c.n[4] * planes * 4, nullptr, map, c.out, c.n[3], c.n[4], planes, c.n[5], c.n[6], 1, c.fault);
}

cudaError_t run_load(const Call& c) {
  switch (c.n[7]) {
    case 0: return with_box(c, load_box<Swizzle::none, 2>, 2, 1);
    case 1: return with_box(c, load_box<Swizzle::bytes_32, 2>, 2, 1);
    case 2: return with_box(c, load_box<Swizzle::bytes_64, 2>, 2, 1);
    default: return with_box(c, load_box<Swizzle::bytes_128, 2>, 2, 1);
  }
}

// a: a float tensor of 32 columns and 16 * n[0] rows.
cudaError_t run_shares(const Call& c) {
  CUtensorMap map;
  const TensorBox box = {DType::f32, c.a, 2, {32, 16 * uint64_t(c.n[0]), 1}, {128, 0}, {32, 8, 1}, Swizzle::none};
  if (const cudaError_t error = make_tensor_map(map, box); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH_CLUSTER(shares, 2, 2, 64, 2048 + 2 * sizeof(Mbarrier), nullptr, map, c.out, c.n[0], c.fault);
}

cudaError_t run_two_groups(const Call& c) {
  using A = Tile<Swizzle::bytes_128, Major::k, 64>;
  CUtensorMap a, b;
  if (const cudaError_t error = make_tensor_map(a, A::tensor(c.a, DType::bf16)); error != cudaSuccess) return error;
  if (const cudaError_t error = make_tensor_map(b, A::tensor(c.b, DType::bf16)); error != cudaSuccess) return error;
  return ELECTRA_LAUNCH(two_groups, 1, 128, 2 * A::bytes, nullptr, a, b, c.out, c.fault);
}

}  // namespace
}  // namespace electra::cuda

// A cudaError_t, or -1 for an unknown kernel.
extern "C" int run_fault(const char* name, int fault, const void* a, const void* b, float* out, const int* n) {
  using namespace electra::cuda;
  Call c = {fault, a, b, out, {}};
  for (int i = 0; i < 8; ++i) c.n[i] = n[i];
  const std::string kernel = name;
  const float* in = static_cast<const float*>(a);
  if (kernel == "load_2d") return run_load(c);
  if (kernel == "load_3d") return with_box(c, load_box<Swizzle::bytes_128, 3>, 3, 2);
  if (kernel == "store_2d") return with_box(c, store_box, 2, 1);
  if (kernel == "stages") return ELECTRA_LAUNCH(stages, 1, 160, 3 * 128 * sizeof(float), nullptr, in, out, n[0], fault);
  if (kernel == "gemm") return run_gemm(c);
  if (kernel == "two_groups") return run_two_groups(c);
  if (kernel == "shares") return run_shares(c);
  if (kernel == "exchange") return ELECTRA_LAUNCH_CLUSTER(exchange, 4, 8, 64, 64 * sizeof(float), nullptr, in, out, fault);
  if (kernel == "ring") return ELECTRA_LAUNCH_CLUSTER(ring, 4, 4, 64, 1024, nullptr, in, out, fault);
  return -1;
}
