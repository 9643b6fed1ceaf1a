// Attention backward on Hopper, class (b): lengths at most 512, D = 64, no causal mask. A cluster of up to four blocks has a head of a sequence; block r owns the 128 keys
// from 128 r on, whose dk and dv stay in its registers, and the 128 queries from there on, whose dq it writes. All queries come by, 128 at a time, its own last.
//
// A block's part of another block's dq goes straight into that block's shared memory, where each sender has a place; when all are done, every block adds its parts in
// the order of the senders. So: one kernel, five products, a fixed order of all sums, no float32 buffer in memory, and one wait of the cluster for the sums. Another, at
// the start, is for the rows' log-sum-exps and deltas (rowsum(dO ∘ O)), which each block makes for its own queries.
//
// The products of 128 keys and 128 queries: as in attention_backward_short_sm90.cu, two groups of four warps with 64 keys each. 2560 clocks of the tensor cores, 1024 of
// the exponentials, and with dropout about as many of instructions as the first. dO of the next queries is fetched once these are done with, Q a step earlier.
#include "cuda/attention_backward_hopper.cuh"
#include "cuda/cluster.h"
#include "cuda/reduce.cuh"

namespace electra::cuda {
namespace {

using Config = attention_config::BackwardHopper;
constexpr int rows = Config::block_rows, threads = Config::threads, warps = threads / 32, query_stages = Config::query_stages, blocks = rows / 16;
static_assert(warps * 16 == rows && query_stages == 2);

template <class T> struct Memory {
  T keys[rows * hopper_dim], values[rows * hopper_dim], queries[query_stages][rows * hopper_dim], grads[rows * hopper_dim];
  union {
    Draws draws[warps][4];                           // of 32 queries each; then, the first tile in the same place for every warp,
    T score_gradients[rows / box_rows][rows * box_rows];   // of 64 queries each: [keys][64]
  };
  float lse[attention_config::resident_keys], delta[attention_config::resident_keys];   // of all queries
  Mbarrier keys_ready, queries_ready[query_stages], grads_ready;

  // Behind it: parts of dq from the other blocks of the cluster, in the order of their ranks.
  __device__ __forceinline__ float4* part(int from, int to) { return reinterpret_cast<float4*>(this + 1) + (from < to ? from : from - 1) * (hopper_dim / 8 * threads) + threadIdx.x; }
  static int64_t bytes(int cluster) { return int64_t(sizeof(Memory)) + (cluster - 1) * int64_t(rows * hopper_dim * sizeof(float)); }
};
static_assert(sizeof(Draws[4]) == 16 * box_rows * 2, "a warp writes dS where its own draws were");

struct Maps { const CUtensorMap *q, *k, *v, *grad; };

// A block's share of a head. It has no keys, or no queries, if their number is not positive.
struct Share {
  Sequence sequence;
  int head, cluster, rank, keys, queries, query_tiles;

  __device__ __forceinline__ Share(const AttentionBackward& p, int cluster_)
      : sequence(p, int(blockIdx.x) / cluster_ / p.heads), head(int(blockIdx.x) / cluster_ % p.heads), cluster(cluster_), rank(int(cluster_rank())) {
    keys = sequence.nk - rows * rank;
    queries = sequence.nq - rows * rank;
    query_tiles = divide_up(sequence.nq, rows);
  }

  // The tile of queries of step j; the last is the block's own, if it has any.
  __device__ __forceinline__ int tile(int j) const { return (rank + 1 + j) % query_tiles; }

  // One thread: fetches rows of step j.
  template <class T> __device__ __forceinline__ void fetch(T* to, const CUtensorMap* map, Mbarrier* barrier, int j) const {
    if (j >= query_tiles) return;
    const int row = rows * tile(j), count = min(rows, sequence.nq - row);
    mbarrier_arrive_expect(barrier, fetched_bytes(count));
    fetch_rows(to, map, barrier, sequence.first_q + row, head, count);
  }
};

// All threads: the rows of a tile behind the sequence become zero, for all.
template <class T> __device__ __forceinline__ void clear_behind(T* tile, int count) {
  if (count >= rows) return;
  clear_tail(tile, count, rows, int(threadIdx.x), threads);
  __syncthreads();
}

// lse and delta of the block's queries, two threads to each.
template <class T> __device__ __forceinline__ void find_statistics(const AttentionBackward& p, const Share& share, Memory<T>& memory) {
  const int query = int(threadIdx.x) / 2, part = int(threadIdx.x) % 2, place = rows * share.rank + query;
  const int64_t row = share.sequence.first_q + place;
  float sum = 0.f;
  if (query < share.queries) {
    const T *grad = row_pointer<T>(p.grad, row, share.head), *out = static_cast<const T*>(p.out) + (row * p.heads + share.head) * p.dim;
#pragma unroll
    for (int i = 0; i < hopper_dim / 16; ++i) {
      const int column = 8 * (part + 2 * i);
      if (column >= p.dim) continue;
      const uint4 g = load_words(grad + column), o = load_words(out + column);
      const uint32_t gs[4] = {g.x, g.y, g.z, g.w}, os[4] = {o.x, o.y, o.z, o.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float2 x = unpack<T>(gs[e]), y = unpack<T>(os[e]);
        sum += x.x * y.x + x.y * y.y;
      }
    }
  }
  sum = warp_sum<2>(sum);
  if (part != 0) return;
  memory.lse[place] = base_2(query < share.queries ? p.lse[share.head * p.rows_q + row] : -INFINITY);
  memory.delta[place] = sum / p.dropout.scale;
}

// Those of the other blocks' queries.
template <class T> __device__ __forceinline__ void gather_statistics(const Share& share, Memory<T>& memory) {
#pragma unroll 1
  for (int i = int(threadIdx.x); i < rows * share.query_tiles; i += threads) {
    if (i / rows == share.rank) continue;
    const Memory<T>* other = map_shared(&memory, uint32_t(i / rows));
    memory.lse[i] = other->lse[i];
    memory.delta[i] = other->delta[i];
  }
}

using Accumulators = float[hopper_dim / 2];

// dk and dv of the block's keys, of which there are some, and the parts of dq, the last of which stays.
template <class T, bool dropout>
__device__ __forceinline__ void differentiate_keys(const AttentionBackward& p, const Maps& maps, const Share& share, Memory<T>& memory, Accumulators& dq) {
  const int warp = int(threadIdx.x) / 32, group_key = warp / 4 * box_rows;
  const float factor = p.scale * log2_e;
  Accumulators dk, dv;
#pragma unroll
  for (int i = 0; i < hopper_dim / 2; ++i) dk[i] = dv[i] = 0.f;
#pragma unroll 1
  for (int j = 0; j < share.query_tiles; ++j) {
    const int tile = share.tile(j), first = rows * tile, count = share.sequence.nq - first;
    T* queries = memory.queries[j % query_stages];
    uint32_t weights[blocks][4], ds[blocks][4];
    mbarrier_wait(&memory.queries_ready[j % query_stages], uint32_t(j / query_stages % 2));
    clear_behind(queries, count);
    {
      float s[8 * blocks];
      wgmma_fence();
      multiply_rows_by_rows<T, rows>(s, memory.keys + group_key * hopper_dim, queries);
      wgmma_commit();
      if constexpr (dropout)
        draw_columns<blocks>(memory.draws[warp], random_stream(p.dropout), uint32_t(share.sequence.first_q + first) * p.heads + share.head, p.heads, blocks * share.rank + warp);
      wgmma_wait<0>();
      wgmma_hold(s);
      weigh_columns<T, dropout, blocks>(weights, s, memory.lse + first, factor, share.keys - 16 * warp, memory.draws[warp], threshold_pair(p.dropout.threshold));
    }
    mbarrier_wait(&memory.grads_ready, uint32_t(j % 2));
    clear_behind(memory.grads, count);
    {
      float dp[8 * blocks];
      uint32_t kept[blocks][4];
#pragma unroll
      for (int i = 0; i < blocks; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) kept[i][e] = weights[i][e];
        keep<T, dropout>(kept[i]);
      }
      wgmma_hold(kept);
      wgmma_fence();
      multiply_rows_by_rows<T, rows>(dp, memory.values + group_key * hopper_dim, memory.grads);
      wgmma_commit();
      multiply_by_tile<T, blocks>(dv, kept, memory.grads, true);
      wgmma_commit();
      wgmma_wait<1>();   // dV is multiplied while dS is computed
      wgmma_hold(dp);
      __syncwarp();   // the draws have been read
#pragma unroll
      for (int half = 0; half < 2; ++half)
        differentiate_columns<T, dropout>(ds + 4 * half, weights + 4 * half, dp + 32 * half, memory.delta + first + box_rows * half, memory.score_gradients[half], 16 * warp);
      wgmma_wait<0>();
      wgmma_hold(dv);
    }
    __syncthreads();   // dS is there for all, and dO has been read
    if (threadIdx.x == 0) share.fetch(memory.grads, maps.grad, &memory.grads_ready, j + 1);
    __syncwarp();
    wgmma_hold(ds);
    wgmma_fence();
    multiply_by_tile<T, blocks>(dk, ds, queries, true);
    wgmma_commit();
    multiply_transposed<T, blocks>(dq, memory.score_gradients[warp / 4], memory.keys);
    wgmma_hold(dk);
    __syncthreads();   // dS and these queries have been read
    if (threadIdx.x == 0) share.fetch(queries, maps.q, &memory.queries_ready[j % query_stages], j + query_stages);
    __syncwarp();
    if (tile == share.rank) continue;
    float4* part = map_shared(memory.part(share.rank, tile), uint32_t(tile));
#pragma unroll
    for (int i = 0; i < hopper_dim / 8; ++i) part[i * threads] = make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
  }
  const int64_t row = share.sequence.first_k + rows * share.rank + 16 * warp;
  store_gradient_rows<T>(p.dk, p, row, share.head, dk, p.scale * p.dropout.scale, share.keys - 16 * warp);
  store_gradient_rows<T>(p.dv, p, row, share.head, dv, p.dropout.scale, share.keys - 16 * warp);
}

template <class T, bool dropout>
__global__ void __launch_bounds__(Config::threads, 1)
attention_backward_hopper(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v,
                          const __grid_constant__ CUtensorMap grad, const __grid_constant__ AttentionBackward p, const int cluster) {
  using Memory = Memory<T>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  const Maps maps = {&q, &k, &v, &grad};
  const Share share(p, cluster);
  const Sequence& sequence = share.sequence;
  const int b = int(blockIdx.x) / cluster / p.heads;
  clear_padding<T>(p, share.head, b * cluster + share.rank, int(gridDim.x) / p.heads);
  if (sequence.nq == 0 || sequence.nk == 0) {   // at most one of these has rows
    clear_rows<T>(p.dq, p.heads, share.head, p.dim, sequence.first_q, sequence.first_q + sequence.nq, share.rank, cluster);
    clear_rows<T>(p.dk, p.heads, share.head, p.dim, sequence.first_k, sequence.first_k + sequence.nk, share.rank, cluster);
    clear_rows<T>(p.dv, p.heads, share.head, p.dim, sequence.first_k, sequence.first_k + sequence.nk, share.rank, cluster);
    return;
  }
  if (share.keys <= 0 && share.queries <= 0) return;   // nobody asks it for anything, and the cluster waits for those that are left
  if (threadIdx.x == 0 && share.keys > 0) {
    mbarrier_init(&memory->keys_ready, 1);
    mbarrier_init(&memory->grads_ready, 1);
    for (int i = 0; i < query_stages; ++i) mbarrier_init(&memory->queries_ready[i], 1);
    mbarrier_fence_init();
    const int count = min(rows, share.keys), row = sequence.first_k + rows * share.rank;
    mbarrier_arrive_expect(&memory->keys_ready, 2 * fetched_bytes(count));
    fetch_rows(memory->keys, &k, &memory->keys_ready, row, share.head, count);
    share.fetch(memory->queries[0], &q, &memory->queries_ready[0], 0);
    fetch_rows(memory->values, &v, &memory->keys_ready, row, share.head, count);
    share.fetch(memory->grads, &grad, &memory->grads_ready, 0);
    share.fetch(memory->queries[1], &q, &memory->queries_ready[1], 1);
  }
  if (share.queries > 0) find_statistics(p, share, *memory);
  cluster_sync();   // all blocks have theirs, and have begun
  Accumulators dq;
#pragma unroll
  for (int i = 0; i < hopper_dim / 2; ++i) dq[i] = 0.f;
  if (share.keys > 0) {
    gather_statistics(share, *memory);
    mbarrier_wait(&memory->keys_ready, 0);
    clear_tail(memory->keys, share.keys, rows, int(threadIdx.x), threads);
    clear_tail(memory->values, share.keys, rows, int(threadIdx.x), threads);
    __syncthreads();
    differentiate_keys<T, dropout>(p, maps, share, *memory, dq);
  }
  cluster_sync();   // all parts of dq are there, and no block that is still asked for anything has ended
  if (share.queries <= 0) return;
#pragma unroll 1
  for (int from = 0; rows * from < sequence.nk; ++from) {
    if (from == share.rank) continue;
    const float4* part = memory->part(from, share.rank);
#pragma unroll
    for (int i = 0; i < hopper_dim / 8; ++i) {
      const float4 x = part[i * threads];
      dq[4 * i] += x.x, dq[4 * i + 1] += x.y, dq[4 * i + 2] += x.z, dq[4 * i + 3] += x.w;
    }
  }
  const int own = 16 * (int(threadIdx.x) / 32);
  store_gradient_rows<T>(p.dq, p, sequence.first_q + rows * share.rank + own, share.head, dq, p.scale * p.dropout.scale, share.queries - own);
}

int cluster_size(const AttentionBackward& p) { return p.max_seqlen_q <= 2 * rows && p.max_seqlen_k <= 2 * rows ? 2 : 4; }

template <class T, bool dropout> cudaError_t launch(const AttentionBackward& p, cudaStream_t stream) {
  CUtensorMap q, k, v, grad;
  cudaError_t error = boxes_of(q, p, p.q, p.rows_q);
  if (error == cudaSuccess) error = boxes_of(k, p, p.k, p.rows_k);
  if (error == cudaSuccess) error = boxes_of(v, p, p.v, p.rows_k);
  if (error == cudaSuccess) error = boxes_of(grad, p, p.grad, p.rows_q);
  if (error != cudaSuccess) return error;
  const int cluster = cluster_size(p);
  return ELECTRA_LAUNCH_CLUSTER((attention_backward_hopper<T, dropout>), unsigned(cluster), dim3(blocks_of_heads(p) * unsigned(cluster)), dim3(Config::threads),
                                size_t(Memory<T>::bytes(cluster)), stream, q, k, v, grad, p, cluster);
}

}  // namespace

int64_t backward_hopper_shared(const AttentionBackward& p) { return Memory<__half>::bytes(cluster_size(p)); }

cudaError_t launch_backward_hopper(const AttentionBackward& p, cudaStream_t stream) {
  return dispatch_16_bit(p.type, [&](auto type) {
    using T = typename decltype(type)::type;
    return has_dropout(p) ? launch<T, true>(p, stream) : launch<T, false>(p, stream);
  });
}

}  // namespace electra::cuda
