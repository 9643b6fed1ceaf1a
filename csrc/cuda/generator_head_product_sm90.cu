// Backward of generator_head in chunks, on Hopper (wgmma, TMA): the two products of generator_head_product.cu, with the same blocks and parts.
//
// A block has 256 x 128 results: two groups of four warps with 128 rows each, and a producer warp that fetches 64 terms a stage, in boxes of 64 x 64 values (TMA, 128-byte
// swizzle). Two blocks of a cluster, neighbours in the features, need the same rows of d: each fetches half of them for both. So a block takes 32 KiB from L2 for the 1024
// clocks of a stage's products instead of 48, where L2 gives some 24 bytes a clock and multiprocessor: 1.3 times what the tensor cores need, not 2.
#include "cuda/cluster.h"
#include "cuda/generator_head_product.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tma.h"
#include "cuda/wgmma.h"

namespace electra::cuda {
namespace {

constexpr int box = 64, box_bytes = box * box * 2, row_boxes = product_rows / box, column_boxes = product_columns / box;
constexpr int consumers = 2, consumer_boxes = row_boxes / consumers, threads = 128 * (1 + consumers), stages = 4;
static_assert(product_depth == box && column_boxes * box == product_columns && (row_boxes + column_boxes) * box_bytes == product_stage_bytes);

struct Barriers { Mbarrier full[stages], empty[stages]; };

constexpr int shared_bytes = stages * product_stage_bytes + int(sizeof(Barriers));

__device__ __forceinline__ int warpgroup() { return __shfl_sync(full_warp, int(threadIdx.x) / 128, 0); }

// One thread.
template <bool is_dhidden>
__device__ __forceinline__ void produce(const ProductArguments& call, const CUtensorMap* d, const CUtensorMap* other, unsigned char* ring, Barriers* barriers, int cluster, int first_row,
                                        int first_column, int begin, int end) {
  const int share = row_boxes / cluster, first_box = int(cluster_rank()) * share, shift = is_dhidden ? 0 : call.first;
  int stage = 0, parity = 1;
#pragma unroll 1
  for (int at = begin; at < end; at += product_depth) {
    Mbarrier* full = &barriers->full[stage];
    unsigned char *a = ring + stage * product_stage_bytes, *b = a + row_boxes * box_bytes;
    mbarrier_wait(&barriers->empty[stage], parity);   // in all blocks of the cluster: each fetches for all
    mbarrier_arrive_expect(full, product_stage_bytes);
#pragma unroll 1
    for (int i = first_box; i < first_box + share; ++i) {
      const int row = first_row + box * i;
      tma_load_2d_multicast(a + i * box_bytes, d, full, is_dhidden ? row : at, is_dhidden ? at : row, uint16_t((1 << cluster) - 1));
    }
#pragma unroll
    for (int i = 0; i < column_boxes; ++i) tma_load_2d(b + i * box_bytes, other, full, first_column + box * i, at + shift);
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

template <class T, bool is_dhidden>
__device__ __forceinline__ void consume(const ProductArguments& call, unsigned char* ring, Barriers* barriers, int cluster, int first_row, int first_column, int part, int begin,
                                        int end) {
  // d lies as [terms][rows] for dhidden, as [rows][terms] for dweight; the other matrix as [terms][features].
  constexpr Major d_major = is_dhidden ? Major::mn : Major::k;
  constexpr int d_step = is_dhidden ? 16 * 128 : 32, other_step = 16 * 128;   // bytes to the next 16 terms
  const int consumer = warpgroup() - 1, lane = int(threadIdx.x) % 32;
  float acc[consumer_boxes][product_columns / 2] = {};
  int stage = 0, parity = 0, before = 0;
#pragma unroll 1
  for (int at = begin; at < end; at += product_depth) {
    const unsigned char *a = ring + stage * product_stage_bytes, *b = a + row_boxes * box_bytes;
    mbarrier_wait(&barriers->full[stage], parity);
    wgmma_fence();
    const Operand columns = wgmma_operand(b, Swizzle::bytes_128, box_bytes, 1024);
#pragma unroll
    for (int i = 0; i < consumer_boxes; ++i) {
      const Operand rows = wgmma_operand(a + (consumer * consumer_boxes + i) * box_bytes, Swizzle::bytes_128, box_bytes, 1024);
#pragma unroll
      for (int k = 0; k < product_depth / 16; ++k) wgmma<product_columns, T, d_major, Major::mn>(acc[i], rows + d_step * k, columns + other_step * k, true);
    }
    wgmma_commit();
    if (at > begin) {
      wgmma_wait<1>();
      if (lane < cluster) mbarrier_give_back_remote(&barriers->empty[before], uint32_t(lane));
    }
    before = stage;
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < consumer_boxes; ++i) wgmma_hold(acc[i]);

  const float factor = product_factor<is_dhidden>(call);
#pragma unroll
  for (int i = 0; i < consumer_boxes; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = first_row + (consumer * consumer_boxes + i) * box + int(threadIdx.x) % 128 / 32 * 16 + 8 * h + lane / 4;
#pragma unroll
      for (int j = 0; j < product_columns / 8; ++j)
        store_product<T, is_dhidden>(call, part, row, first_column + 8 * j + 2 * (lane % 4), acc[i][4 * j + 2 * h] * factor, acc[i][4 * j + 2 * h + 1] * factor);
    }
}

template <class T, bool is_dhidden>
__global__ void __launch_bounds__(threads, 1)
generator_product_hopper_kernel(const __grid_constant__ CUtensorMap d, const __grid_constant__ CUtensorMap other, const __grid_constant__ ProductArguments call, int cluster) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, ring);
  Barriers* barriers = reinterpret_cast<Barriers*>(ring + stages * product_stage_bytes);
  const int first_column = int(blockIdx.x) * product_columns, first_row = int(blockIdx.y) * product_rows, part = int(blockIdx.z), slots = used_slots(call);
  if (is_dhidden && first_row >= slots) return;   // nobody reads those partial sums; the same for all blocks of a cluster
  const int begin = is_dhidden ? part * call.depth_per_part : 0, end = end_of_terms<is_dhidden>(call, begin, slots);
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      mbarrier_init(&barriers->full[i], 1);
      mbarrier_init(&barriers->empty[i], uint32_t(cluster * 4 * consumers));   // every warp says so for itself: it waits for its own products
    }
    mbarrier_fence_init();
  }
  cluster_sync();
  if (warpgroup() == 0) {
    release_registers<40>();
    if (threadIdx.x == 0) produce<is_dhidden>(call, &d, &other, ring, barriers, cluster, first_row, first_column, begin, end);
  } else {
    acquire_registers<232>();
    consume<T, is_dhidden>(call, ring, barriers, cluster, first_row, first_column, part, begin, end);
  }
  __syncwarp();
  cluster_sync();   // the other may still have something to say to this block's barriers
}

cudaError_t boxes_of(CUtensorMap& map, DType type, const void* data, int rows, int columns) {
  return make_tensor_map(map, {type, data, 2, {uint64_t(columns), uint64_t(rows), 1}, {uint64_t(columns) * 2, 0}, {box, box, 1}, Swizzle::bytes_128});
}

}  // namespace

cudaError_t launch_hopper_product(const ProductArguments& call, bool is_dhidden, DType type, dim3 grid, cudaStream_t stream) {
  CUtensorMap d, other;
  cudaError_t error = boxes_of(d, type, call.d, call.padded_columns, call.slots);
  if (error == cudaSuccess) error = boxes_of(other, type, call.other, call.others, call.features);
  if (error != cudaSuccess) return error;
  const int cluster = grid.x % 2 == 0 ? 2 : 1;
  return dispatch_16_bit(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (is_dhidden) return ELECTRA_LAUNCH_CLUSTER((generator_product_hopper_kernel<T, true>), unsigned(cluster), grid, dim3(threads), size_t(shared_bytes), stream, d, other, call, cluster);
    return ELECTRA_LAUNCH_CLUSTER((generator_product_hopper_kernel<T, false>), unsigned(cluster), grid, dim3(threads), size_t(shared_bytes), stream, d, other, call, cluster);
  });
}

}  // namespace electra::cuda
