// Forward of generator_head on Hopper (wgmma, TMA): the sweep of generator_head_forward.cu for up to 256 features, with the same partial results.
//
// A block has 128 slots, 64 for each of two groups of four warps, and a part of the vocabulary in tiles of 256 columns: four groups of the sampler, one Philox call. A
// producer warp fetches the slots' rows once and the weight's ahead; the two blocks of a cluster fetch half of each chunk of it, and both get both halves. The groups
// take turns (named barriers): while one multiplies, the other computes the exponentials of its tile. At K = 128 both take some 1050 clocks a tile: 1024 on the tensor
// cores, 1088 for 16384 exponentials.
#include "common/philox.h"
#include "cuda/barrier.h"
#include "cuda/cluster.h"
#include "cuda/dropout.cuh"
#include "cuda/exponent.cuh"
#include "cuda/generator_head_forward.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tma.h"
#include "cuda/types.cuh"
#include "cuda/wgmma.h"

namespace electra::cuda {
namespace {

constexpr int consumers = 2, consumer_rows = hopper_rows / consumers;
constexpr int rows_bytes = hopper_rows * 128, stage_bytes = hopper_columns * 128, bias_bytes = hopper_columns * 4;   // of a chunk of 64 features; of a tile
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

struct SharedMemory {
  unsigned char *rows, *ring;   // [chunks][128 slots][128 bytes], [stages][256 columns][128 bytes]: swizzled by TMA
  float* bias;                  // [places][256]
  Barriers* barriers;

  __device__ SharedMemory(unsigned char* memory, int chunks)
      : rows(memory), ring(memory + chunks * rows_bytes), bias(reinterpret_cast<float*>(ring + hopper_stages * stage_bytes)),
        barriers(reinterpret_cast<Barriers*>(bias + bias_places(chunks) * hopper_columns)) {}
};

int64_t shared_bytes(int features) {
  const int chunks = chunks_of(features);
  return chunks * rows_bytes + hopper_stages * stage_bytes + bias_places(chunks) * bias_bytes + int64_t(sizeof(Barriers));
}

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
__device__ __forceinline__ void produce(const SweepArguments& call, const CUtensorMap* hidden, const CUtensorMap* weight, const SharedMemory& s, int first, int tile, int end) {
  const int chunks = chunks_of(call.features), share = int(cluster_rank());
  mbarrier_arrive_expect(&s.barriers->rows, uint32_t(chunks * rows_bytes));
  for (int c = 0; c < chunks; ++c) tma_load_2d(s.rows + c * rows_bytes, hidden, &s.barriers->rows, c * chunk_features, first);
  Place stage, place;
  for (; tile < end; ++tile) {
    for (int c = 0; c < chunks; ++c) {
      Mbarrier* full = &s.barriers->full[stage.at];
      mbarrier_wait(&s.barriers->empty[stage.at], stage.parity ^ 1);   // in all blocks: each fetches for all
      mbarrier_arrive_expect(full, stage_bytes + (c == 0 ? bias_bytes : 0));
      tma_load_2d_multicast(s.ring + stage.at * stage_bytes + share * share_bytes, weight, full, c * chunk_features, tile * hopper_columns + share * share_rows, whole_cluster);
      if (c == 0) bulk_load(s.bias + place.at * hopper_columns, call.bias + int64_t(tile) * hopper_columns, bias_bytes, full);
      stage.next(hopper_stages);
    }
    place.next(bias_places(chunks));
  }
}

// Logits of a warp's 16 slots: d[4 * (8q + j) + 2h + e] belongs to row 8h + lane/4 and column 64q + 8j + 2 * (lane%4) + e of the tile.
using Logits = float[hopper_columns / 2];

// A consumer warp's results. The four lanes of a row know the same of it, but for the mass, of which each has the part of one group in four.
template <bool plain> struct HopperVisitor {
  const SweepArguments& call;
  int lane, row, part, first_tile;   // row: of the warp's 16
  PhiloxStream stream;
  PhiloxCounter draw[2];             // of one of four tiles each
  int target[2];                     // -1: none to leave out
  float top[2], mass[2], score[2];
  int top_group[2], score_group[2];

  __device__ HopperVisitor(const SweepArguments& call_, int row_, int part_, int first_tile_)
      : call(call_), lane(int(threadIdx.x) % 32), row(row_), part(part_), first_tile(first_tile_), stream(random_stream(call_.rng, call_.site)) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      target[h] = !plain && call.disallow_correct && slot(h) < call.slots ? int(call.targets[slot(h)]) : -1;
      top[h] = score[h] = -INFINITY;
      mass[h] = 0.f;
      top_group[h] = score_group[h] = 0;
    }
  }

  __device__ __forceinline__ int slot(int h) const { return row + 8 * h + lane / 4; }

  // Of one group of a row: its largest logit and its sum of exponentials, less the column `without` if that is among this lane's. `scaled`: of the sampler's exponents.
  template <bool scaled> __device__ __forceinline__ void statistics(const Logits& d, int q, int h, int without, float& peak, float& sum) const {
    const auto exponent = [&](int c) {
      const float x = d[4 * (8 * q + c / 2) + 2 * h + c % 2];
      return scaled ? (64 * q + 8 * (c / 2) + c % 2 == without ? -INFINITY : x * call.sharpness) : x;
    };
    peak = -INFINITY;
#pragma unroll
    for (int c = 0; c < 16; ++c) peak = fmaxf(peak, exponent(c));
    peak = warp_max<4>(peak);
    const float base = scaled ? (peak == -INFINITY ? 0.f : peak) : exponent_base(peak);
    sum = 0.f;
#pragma unroll
    for (int c = 0; c < 16; ++c) sum += fast_exp2(scaled ? exponent(c) - base : fmaf(exponent(c), log2_e, -base));
    sum = warp_sum<4>(sum);
  }

  // Lane t of a row gets word t of the tile's call, which lane s of the four has made.
  __device__ __forceinline__ uint32_t word_of(int h, int s) const {
    const int from = (lane & ~3) + s;
    const uint32_t w0 = __shfl_sync(full_warp, draw[h].c0, from), w1 = __shfl_sync(full_warp, draw[h].c1, from), w2 = __shfl_sync(full_warp, draw[h].c2, from),
                   w3 = __shfl_sync(full_warp, draw[h].c3, from);
    return philox_word({w0, w1, w2, w3}, lane % 4);
  }

  // Bit of each lane whose group is the first with the row's largest value, where that is more than `best`, which it becomes.
  __device__ __forceinline__ uint32_t improve(float value, float& best, int& best_group, int tile) const {
    const float largest = warp_max<4>(value);
    const uint32_t equal = __ballot_sync(full_warp, value == largest) >> (lane & ~3) & 15u;
    const int group = __ffs(int(equal)) - 1;
    const bool better = largest > best;
    if (better) {
      best = largest;
      best_group = tile * groups_per_draw + group;
    }
    return __ballot_sync(full_warp, better && lane % 4 == group);
  }

  __device__ __forceinline__ void keep(const Logits& d, const uint32_t (&better)[2], float* store) const {
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if ((better[h] & 0x11111111u << q) == 0) continue;
        if ((better[h] >> (lane & ~3) >> q & 1) == 0) continue;
        float* out = store + (int64_t(part) * call.partials.rows + slot(h)) * group_columns + 2 * (lane % 4);
#pragma unroll
        for (int j = 0; j < 8; ++j) store_vector<2>(out + 8 * j, {d[4 * (8 * q + j) + 2 * h], d[4 * (8 * q + j) + 2 * h + 1]});
      }
  }

  __device__ __forceinline__ void visit(Logits& d, const float* bias, int tile) {
#pragma unroll
    for (int j = 0; j < hopper_columns / 8; ++j) {
      float b[2];
      load_vector<2>(bias + 8 * j + 2 * (lane % 4), b);
#pragma unroll
      for (int e = 0; e < 4; ++e) d[4 * j + e] += b[e % 2];
    }
    const int s = (tile - first_tile) % 4;
    if (s == 0)
#pragma unroll
      for (int h = 0; h < 2; ++h) draw[h] = philox_draw(stream, uint32_t(slot(h)), uint32_t(tile + lane % 4));

    float peak[2], sum[2], sample_peak[2], sample_sum[2];   // of group lane%4; the sampler's peak as an exponent of base 2
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float p, m;
        statistics<false>(d, q, h, -1, p, m);
        if (lane % 4 == q) {
          peak[h] = p;
          sum[h] = m;
        }
        if constexpr (!plain) {
          statistics<true>(d, q, h, target[h] < 0 ? -1 : target[h] - tile * hopper_columns - 2 * (lane % 4), p, m);
          if (lane % 4 == q) {
            sample_peak[h] = p;
            sample_sum[h] = m;
          }
        }
      }

    uint32_t better_top[2], better_score[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float before = top[h];
      better_top[h] = improve(peak[h], top[h], top_group[h], tile);
      const float base = exponent_base(top[h]);
      mass[h] = mass[h] * fast_exp2(before * log2_e - base) + sum[h] * fast_exp2(peak[h] * log2_e - base);
      if constexpr (plain) {
        sample_peak[h] = exponent_base(peak[h]);
        sample_sum[h] = sum[h];
      }
      const float exponential = -log1pf(-sampler_uniform(word_of(h, s)));
      better_score[h] = improve(sample_peak[h] + fast_log2(sample_sum[h]) - fast_log2(exponential), score[h], score_group[h], tile);
    }
    keep(d, better_top, call.partials.top_logits);
    keep(d, better_score, call.partials.score_logits);
  }

  __device__ __forceinline__ void store() const {
    const GeneratorPartials& p = call.partials;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t at = int64_t(part) * p.rows + slot(h);
      const float sum = warp_sum<4>(mass[h]);
      if (lane % 4 != 0) continue;
      p.top[at] = top[h];
      p.mass[at] = sum;
      p.score[at] = score[h];
      p.top_group[at] = top_group[h];
      p.score_group[at] = score_group[h];
    }
  }
};

// A warp's products have read a stage: it tells every block of the cluster.
__device__ __forceinline__ void release(Mbarrier* empty) {
  const int lane = int(threadIdx.x) % 32;
  if (lane < hopper_cluster) mbarrier_give_back_remote(empty, uint32_t(lane));
}

template <class T, bool plain> __device__ __forceinline__ void consume(const SweepArguments& call, const SharedMemory& s, int first, int part, int tile, int end) {
  const int consumer = warpgroup() - 1, chunks = chunks_of(call.features), places = bias_places(chunks);
  HopperVisitor<plain> visitor(call, first + consumer * consumer_rows + int(threadIdx.x) % 128 / 32 * 16, part, tile);
  const Operand rows = wgmma_operand(s.rows + consumer * consumer_rows * 128, Swizzle::bytes_128, 0, 1024);
  mbarrier_wait(&s.barriers->rows, 0);
  if (consumer == 1) named_barrier_arrive(turn, 128 * consumers);   // the first turn is consumer 0's
  Logits d;
  Place stage;
  for (int place = 0; tile < end; ++tile) {
    named_barrier_sync(turn + consumer, 128 * consumers);
    int before = 0;
    for (int c = 0; c < chunks; ++c) {
      mbarrier_wait(&s.barriers->full[stage.at], stage.parity);
      wgmma_fence();
      const Operand a = rows + uint32_t(c * rows_bytes), b = wgmma_operand(s.ring + stage.at * stage_bytes, Swizzle::bytes_128, 0, 1024);
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
    if (consumer == 0 || tile + 1 < end) named_barrier_arrive(turn + 1 - consumer, 128 * consumers);
    wgmma_wait<0>();
    wgmma_hold(d);
    release(&s.barriers->empty[before]);
    visitor.visit(d, s.bias + place * hopper_columns, tile);
    place = place + 1 == places ? 0 : place + 1;
  }
  visitor.store();
}

template <class T, bool plain>
__global__ void __launch_bounds__(hopper_threads, 1)
generator_sweep_hopper_kernel(const __grid_constant__ CUtensorMap hidden, const __grid_constant__ CUtensorMap weight, const __grid_constant__ SweepArguments call) {
  ELECTRA_DYNAMIC_SHARED(unsigned char, memory);
  const int first = int(blockIdx.x) * hopper_rows, part = int(blockIdx.y), tile = part * call.tiles_per_part;
  const int end = tile + call.tiles_per_part < call.tiles ? tile + call.tiles_per_part : call.tiles;
  if (!any_used<hopper_cluster * hopper_rows, hopper_threads>(call, first - int(cluster_rank()) * hopper_rows)) return;

  const SharedMemory s(memory, chunks_of(call.features));
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
    consume<T, plain>(call, s, first, part, tile, end);
  }
  __syncwarp();
  cluster_sync();   // the others may still have something to say to this block's barriers
}

// Boxes of 64 features and 128 rows; what lies behind the last feature or row is zeros.
cudaError_t rows_map(CUtensorMap& map, DType type, const void* data, int rows, int features) {
  return make_tensor_map(map, {type, data, 2, {uint64_t(features), uint64_t(rows), 1}, {uint64_t(features) * 2, 0}, {chunk_features, hopper_rows, 1}, Swizzle::bytes_128});
}

template <class T, bool plain> cudaError_t launch(const SweepArguments& call, DType type, dim3 grid, cudaStream_t stream) {
  CUtensorMap hidden, weight;
  cudaError_t error = rows_map(hidden, type, call.hidden, call.slots, call.features);
  if (error == cudaSuccess) error = rows_map(weight, type, call.weight, call.columns, call.features);
  if (error != cudaSuccess) return error;
  return ELECTRA_LAUNCH_CLUSTER((generator_sweep_hopper_kernel<T, plain>), hopper_cluster, grid, dim3(hopper_threads), size_t(shared_bytes(call.features)), stream, hidden, weight, call);
}

}  // namespace

cudaError_t launch_hopper_sweep(const SweepArguments& call, DType type, bool plain, dim3 grid, cudaStream_t stream) {
  return dispatch_16_bit(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return plain ? launch<T, true>(call, type, grid, stream) : launch<T, false>(call, type, grid, stream);
  });
}

}  // namespace electra::cuda
