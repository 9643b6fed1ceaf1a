// Forward of generator_head on Hopper (wgmma, TMA): the sweep of generator_head_forward.cu, with the same partial results.
//
// A block has 128 slots, 64 for each of two groups of four warps, and a part of the vocabulary in tiles of 256 columns: four groups of the sampler, one Philox call. A
// producer warp fetches the weight ahead, in chunks of 64 features; the two blocks of a cluster fetch half of each, and both get both halves.
//
// resident (up to 256 features): the slots' rows are fetched once. The groups take turns (named barriers): while one multiplies, the other computes the exponentials of
// its tile. At K = 128 both take some 1050 clocks a tile: 1024 on the tensor cores, 1088 for 16384 exponentials.
// Else: the rows come with every chunk of the weight, which both groups multiply as it comes; exponentials are some 2500 clocks after 16 a feature of products.
#include "cuda/barrier.h"
#include "cuda/cluster.h"
#include "cuda/generator_head_hopper.cuh"
#include "cuda/tma.h"
#include "cuda/wgmma.h"

namespace electra::cuda {
namespace {

constexpr int consumers = 2, consumer_rows = hopper_rows / consumers;
constexpr int rows_bytes = hopper_rows * 128, weight_bytes = hopper_columns * 128, bias_bytes = hopper_columns * 4;   // of a chunk of 64 features; of a tile
template <bool resident> constexpr int stage_bytes = weight_bytes + (resident ? 0 : rows_bytes);
constexpr int share_rows = hopper_columns / hopper_cluster, share_bytes = share_rows * 128;   // of a chunk of the weight: what one block fetches for all
constexpr uint16_t whole_cluster = (1 << hopper_cluster) - 1;
static_assert(share_rows == hopper_rows, "one box for both matrices");
constexpr int turn = 1;   // first of the named barriers by which the consumers take turns

// A tile's bias must live until both consumers have used it. The producer has waited for a stage to be free, hence for products of the tile that many stages ago, and
// whoever multiplies in that one is done with those before.
__host__ __device__ constexpr int bias_places(int chunks) { return (hopper_stages + chunks - 1) / chunks + 1; }
__host__ __device__ constexpr int chunks_of(int features) { return (features + chunk_features - 1) / chunk_features; }

struct Barriers {
  Mbarrier rows, full[hopper_stages], empty[hopper_stages];
};

template <bool resident> struct SharedMemory {
  unsigned char *rows, *ring;   // [chunks][128 slots][128 bytes] if resident; [stages]: [256 columns][128 bytes], and the rows if not: swizzled by TMA
  float* bias;                  // [places][256]
  Barriers* barriers;

  __device__ SharedMemory(unsigned char* memory, int chunks)
      : rows(memory), ring(memory + (resident ? chunks * rows_bytes : 0)), bias(reinterpret_cast<float*>(ring + hopper_stages * stage_bytes<resident>)),
        barriers(reinterpret_cast<Barriers*>(bias + bias_places(chunks) * hopper_columns)) {}

  static int64_t bytes(int features) {
    const int chunks = chunks_of(features);
    return (resident ? chunks * rows_bytes : 0) + hopper_stages * stage_bytes<resident> + bias_places(chunks) * bias_bytes + int64_t(sizeof(Barriers));
  }
  __device__ __forceinline__ unsigned char* stage(int at) const { return ring + at * stage_bytes<resident>; }
};

// A place in a ring, and the parity of the round.
struct Place {
  int at = 0, parity = 0;
  __device__ __forceinline__ void next(int places) {
    if (++at == places) {
      at = 0;
      parity ^= 1;
    }
  }
};

// The same for a warp's threads, and known to be so: ptxas orders wgmma one after another where it cannot tell that a warp stays together.
__device__ __forceinline__ int warpgroup() { return __shfl_sync(full_warp, int(threadIdx.x) / 128, 0); }

// One thread.
template <bool resident>
__device__ __forceinline__ void produce(const SweepArguments& call, const CUtensorMap* hidden, const CUtensorMap* weight, const SharedMemory<resident>& s, int first, int tile,
                                        int end) {
  const int chunks = chunks_of(call.features), share = int(cluster_rank());
  if constexpr (resident) {
    mbarrier_arrive_expect(&s.barriers->rows, uint32_t(chunks * rows_bytes));
    for (int c = 0; c < chunks; ++c) tma_load_2d(s.rows + c * rows_bytes, hidden, &s.barriers->rows, c * chunk_features, first);
  }
  Place stage, place;
  for (; tile < end; ++tile) {
#pragma unroll 1
    for (int c = 0; c < chunks; ++c) {
      Mbarrier* full = &s.barriers->full[stage.at];
      unsigned char* to = s.stage(stage.at);
      mbarrier_wait(&s.barriers->empty[stage.at], stage.parity ^ 1);   // in all blocks: each fetches for all
      mbarrier_arrive_expect(full, stage_bytes<resident> + (c == 0 ? bias_bytes : 0));
      tma_load_2d_multicast(to + share * share_bytes, weight, full, c * chunk_features, tile * hopper_columns + share * share_rows, whole_cluster);
      if constexpr (!resident) tma_load_2d(to + weight_bytes, hidden, full, c * chunk_features, first);
      if (c == 0) bulk_load(s.bias + place.at * hopper_columns, call.bias + int64_t(tile) * hopper_columns, bias_bytes, full);
      stage.next(hopper_stages);
    }
    place.next(bias_places(chunks));
  }
}

// A warp's products have read a stage: it tells every block of the cluster.
__device__ __forceinline__ void release(Mbarrier* empty) {
  const int lane = int(threadIdx.x) % 32;
  if (lane < hopper_cluster) mbarrier_give_back_remote(empty, uint32_t(lane));
}

template <class T, bool plain, bool resident>
__device__ __forceinline__ void consume(const SweepArguments& call, const SharedMemory<resident>& s, int first, int part, int tile, int end) {
  const int consumer = warpgroup() - 1, chunks = chunks_of(call.features), places = bias_places(chunks);
  HopperVisitor<plain> visitor(call, first + consumer * consumer_rows + int(threadIdx.x) % 128 / 32 * 16, part, tile);
  if constexpr (resident) {
    mbarrier_wait(&s.barriers->rows, 0);
    if (consumer == 1) named_barrier_arrive(turn, 128 * consumers);   // the first turn is consumer 0's
  }
  Logits d;
  Place stage;
  for (int place = 0; tile < end; ++tile) {
    if constexpr (resident) named_barrier_sync(turn + consumer, 128 * consumers);
    int before = 0;
#pragma unroll 1
    for (int c = 0; c < chunks; ++c) {
      mbarrier_wait(&s.barriers->full[stage.at], stage.parity);
      wgmma_fence();
      const unsigned char *columns = s.stage(stage.at), *rows = (resident ? s.rows + c * rows_bytes : columns + weight_bytes) + consumer * consumer_rows * 128;
      const Operand a = wgmma_operand(rows, Swizzle::bytes_128, 0, 1024), b = wgmma_operand(columns, Swizzle::bytes_128, 0, 1024);
#pragma unroll
      for (int k = 0; k < chunk_features / 16; ++k) wgmma<hopper_columns, T>(d, a + 32 * k, b + 32 * k, c > 0 || k > 0);
      wgmma_commit();   // of every chunk: ptxas adds fences where a group ends outside the loop that has its products
      if (c > 0) {
        wgmma_wait<1>();
        release(&s.barriers->empty[before]);
      }
      before = stage.at;
      stage.next(hopper_stages);
    }
    if (resident && (consumer == 0 || tile + 1 < end)) named_barrier_arrive(turn + 1 - consumer, 128 * consumers);
    wgmma_wait<0>();
    wgmma_hold(d);
    release(&s.barriers->empty[before]);
    visitor.visit(d, s.bias + place * hopper_columns, tile);
    place = place + 1 == places ? 0 : place + 1;
  }
  visitor.store();
}

template <class T, bool plain, bool resident>
__global__ void __launch_bounds__(hopper_threads, 1)
generator_sweep_hopper_kernel(const __grid_constant__ CUtensorMap hidden, const __grid_constant__ CUtensorMap weight, const __grid_constant__ SweepArguments call) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, memory);
  const int first = int(blockIdx.x) * hopper_rows, part = int(blockIdx.y), tile = part * call.tiles_per_part;
  const int end = tile + call.tiles_per_part < call.tiles ? tile + call.tiles_per_part : call.tiles;
  if (!any_used<hopper_cluster * hopper_rows, hopper_threads>(call, first - int(cluster_rank()) * hopper_rows)) return;

  const SharedMemory<resident> s(memory, chunks_of(call.features));
  if (threadIdx.x == 0) {
    mbarrier_init(&s.barriers->rows, 1);
    for (int i = 0; i < hopper_stages; ++i) {
      mbarrier_init(&s.barriers->full[i], 1);
      mbarrier_init(&s.barriers->empty[i], hopper_cluster * 4 * consumers);   // every warp says so for itself: it waits for its own products
    }
    mbarrier_fence_init();
    tma_prefetch(&hidden);
    tma_prefetch(&weight);
  }
  cluster_sync();
  if (warpgroup() == 0) {
    release_registers<40>();
    if (threadIdx.x == 0) produce(call, &hidden, &weight, s, first, tile, end);
  } else {
    acquire_registers<232>();
    consume<T, plain, resident>(call, s, first, part, tile, end);
  }
  __syncwarp();
  cluster_sync();   // the others may still have something to say to this block's barriers
}

// Boxes of 64 features and 128 rows; what lies behind the last feature or row is zeros.
cudaError_t rows_map(CUtensorMap& map, DType type, const void* data, int rows, int features) {
  return make_tensor_map(map, {type, data, 2, {uint64_t(features), uint64_t(rows), 1}, {uint64_t(features) * 2, 0}, {chunk_features, hopper_rows, 1}, Swizzle::bytes_128});
}

template <class T, bool plain, bool resident> cudaError_t launch(const SweepArguments& call, DType type, dim3 grid, cudaStream_t stream) {
  CUtensorMap hidden, weight;
  cudaError_t error = rows_map(hidden, type, call.hidden, call.slots, call.features);
  if (error == cudaSuccess) error = rows_map(weight, type, call.weight, call.columns, call.features);
  if (error != cudaSuccess) return error;
  return ELECTRA_LAUNCH_CLUSTER((generator_sweep_hopper_kernel<T, plain, resident>), hopper_cluster, grid, dim3(hopper_threads),
                                size_t(SharedMemory<resident>::bytes(call.features)), stream, hidden, weight, call);
}

template <class T, bool plain> cudaError_t launch(const SweepArguments& call, DType type, dim3 grid, cudaStream_t stream) {
  return call.features <= hopper_resident_features ? launch<T, plain, true>(call, type, grid, stream) : launch<T, plain, false>(call, type, grid, stream);
}

}  // namespace

cudaError_t launch_hopper_sweep(const SweepArguments& call, DType type, bool plain, dim3 grid, cudaStream_t stream) {
  return dispatch_16_bit(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return plain ? launch<T, true>(call, type, grid, stream) : launch<T, false>(call, type, grid, stream);
  });
}

}  // namespace electra::cuda
