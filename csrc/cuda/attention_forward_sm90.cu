// Attention forward on Hopper, classes (a) and (b): lengths at most 512, D = 64, no causal mask. Blocks stay, one a multiprocessor, and take a head of a sequence after
// the other. Three groups of four warps take 64 queries each in turn; a fourth fetches for them:
//
//   warp 0   fetches: K and V in slots of 128 keys, a ring of four, which all queries of the head read (so K and V come from memory once, and those of the next heads
//            while this one is computed: all of it at 512 keys, up to four heads at 128); queries in two places for each group
//   warp 1   makes the rows of V behind the sequence zero
//   warp 2   clears the padding rows
//
// A group computes scores Q Kᵀ by wgmma from shared memory; the probabilities stay in its registers as the left operand of P V. A tile's P V is left under way while
// the scores of the next are asked for, and the dropout bits of those (which need no scores) are drawn while it waits for both.
//
// Per 64 queries x 128 keys: 512 clocks of the tensor cores, 512 of the exponentials, with dropout about 570 of instructions; so at S = 512 the three have to overlap,
// which is what three groups are for. At S = 128 memory binds: 64 KiB a head (307 TFLOP/s at 4.8 TB/s).
#include "cuda/attention_forward_hopper.cuh"

namespace electra::cuda {
namespace {

using Config = attention_config::ForwardHopper;
constexpr int consumers = Config::consumers, slots = Config::slots, slot_keys = Config::slot_keys, query_stages = Config::query_stages;
static_assert(slots * slot_keys == attention_config::resident_keys, "all keys of a head are there at once");
static_assert(query_stages == 2);

template <class T, bool dropout> struct Memory {
  T keys[slots][slot_keys * hopper_dim], values[slots][slot_keys * hopper_dim];
  T queries[consumers][query_stages][box_rows * hopper_dim];
  Draws draws[dropout ? 4 * consumers : 1][2][2];   // of a warp: 64 keys, eight queries
  PhiloxStream stream;                              // the same for all: here it takes no registers
  Mbarrier keys_full[slots], values_full[slots], values_clean[slots], empty[slots];
  Mbarrier queries_full[consumers][query_stages], queries_empty[consumers][query_stages];
};

// A head of a sequence, and how its work is cut. Nothing is fetched if there are no queries or no keys.
struct Item {
  Sequence sequence;
  int head, query_tiles, key_tiles;

  __device__ __forceinline__ Item(const AttentionForward& p, int index) : sequence(p, index / p.heads), head(index % p.heads) {
    query_tiles = divide_up(sequence.nq, box_rows);
    key_tiles = sequence.nq > 0 ? divide_up(sequence.nk, slot_keys) : 0;
  }
};

__device__ __forceinline__ int items_of(const AttentionForward& p) { return p.batch * p.heads; }

// Tile j of an item is for consumer (turn + j) % consumers; the next item goes on from there.
__device__ __forceinline__ int next_turn(int turn, const Item& item) { return (turn + item.query_tiles) % consumers; }

struct Maps { const CUtensorMap *q, *k, *v; };

// One thread.
template <class Memory> __device__ __forceinline__ void produce(const AttentionForward& p, const Maps& maps, Memory& memory) {
  Ring<slots> slot;
  uint32_t fetched = 0;   // tiles of queries for each consumer, modulo 4, two bits each: the stage, and its parity
  int turn = 0;
#pragma unroll 1
  for (int index = int(blockIdx.x); index < items_of(p); index += int(gridDim.x)) {
    const Item item(p, index);
    const auto fetch_queries = [&](int first, int last) {
#pragma unroll 1
      for (int j = first; j < last; ++j) {
        const int consumer = (turn + j) % consumers, shift = 2 * consumer, count = fetched >> shift & 3, stage = count & 1;
        fetched = (fetched & ~(3u << shift)) | uint32_t(count + 1 & 3) << shift;
        Mbarrier* full = &memory.queries_full[consumer][stage];
        mbarrier_wait(&memory.queries_empty[consumer][stage], uint32_t(count >> 1 ^ 1));
        mbarrier_arrive_expect(full, box_bytes);
        fetch_rows(memory.queries[consumer][stage], maps.q, full, item.sequence.first_q + j * box_rows, item.head, box_rows);
      }
    };
    if (item.key_tiles > 0) {
      const int first_round = min(consumers, item.query_tiles);
      fetch_queries(0, first_round);
#pragma unroll 1
      for (int i = 0; i < item.key_tiles; ++i, ++slot.taken) {
        const int key = i * slot_keys, count = min(slot_keys, item.sequence.nk - key);
        mbarrier_wait(&memory.empty[slot.at()], slot.parity() ^ 1);
        mbarrier_arrive_expect(&memory.keys_full[slot.at()], fetched_bytes(count));
        fetch_rows(memory.keys[slot.at()], maps.k, &memory.keys_full[slot.at()], item.sequence.first_k + key, item.head, count);
        mbarrier_arrive_expect(&memory.values_full[slot.at()], fetched_bytes(count));
        fetch_rows(memory.values[slot.at()], maps.v, &memory.values_full[slot.at()], item.sequence.first_k + key, item.head, count);
      }
      fetch_queries(first_round, item.query_tiles);
    }
    turn = next_turn(turn, item);
  }
}

// One warp: whatever lies behind the last key weighs nothing, but must be a number.
template <class Memory> __device__ __forceinline__ void clean_values(const AttentionForward& p, Memory& memory) {
  const int lane = lane_of_warp();
  Ring<slots> slot;
#pragma unroll 1
  for (int index = int(blockIdx.x); index < items_of(p); index += int(gridDim.x)) {
    const Item item(p, index);
#pragma unroll 1
    for (int i = 0; i < item.key_tiles; ++i, ++slot.taken) {
      mbarrier_wait(&memory.values_full[slot.at()], slot.parity());
      const int count = min(slot_keys, item.sequence.nk - i * slot_keys);
      clear_tail(memory.values[slot.at()], count, fetched_rows(count), lane, 32);
      __syncwarp();
      if (lane == 0) {
        mbarrier_arrive(&memory.values_clean[slot.at()]);
        mbarrier_arrive(&memory.empty[slot.at()]);
      }
    }
  }
}

// One warp: zeros behind the last sequence, and the log-sum-exp of no key.
template <class T> __device__ __forceinline__ void clear_padding_rows(const AttentionForward& p) {
  const int64_t first = p.cu_seqlens_q[p.batch], row_vectors = p.heads * p.dim / 8, thread = int64_t(blockIdx.x) * 32 + lane_of_warp(), threads = int64_t(gridDim.x) * 32;
#pragma unroll 1
  for (int64_t i = first * row_vectors + thread; i < p.rows_q * row_vectors; i += threads) static_cast<uint4*>(p.out)[i] = make_uint4(0, 0, 0, 0);
#pragma unroll 1
  for (int64_t row = first + thread; row < p.rows_q; row += threads)
#pragma unroll 1
    for (int head = 0; head < p.heads; ++head) p.lse[head * p.rows_q + row] = -INFINITY;
}

__device__ __forceinline__ int before(const Ring<slots>& slot) { return int((slot.taken - 1) % slots); }

// One group of warps. Every warp says for itself that it has read a slot: it waits for its own products.
//
// Registers are scarce in the loop over keys: what can be had again from memory is not kept over it.
template <class T, bool dropout> __device__ __forceinline__ void consume(const AttentionForward& p, Memory<T, dropout>& memory) {
  const int consumer = __shfl_sync(full_warp, int(threadIdx.x) / 128 - 1, 0), warp = __shfl_sync(full_warp, int(threadIdx.x) % 128 / 32, 0);
  const bool first_lane = lane_of_warp() == 0;
  Draws (&draws)[2][2] = memory.draws[dropout ? 4 * consumer + warp : 0];
  HopperQueries<T, dropout> own(p);
  Ring<slots> first_slot;
  Ring<query_stages> stage;
  int turn = 0;
#pragma unroll 1
  for (int index = int(blockIdx.x); index < items_of(p); index += int(gridDim.x)) {
    int tile = (consumer - turn + consumers) % consumers;
    {
      const Item item(p, index);
      turn = next_turn(turn, item);
      if (tile >= item.query_tiles) {   // no part in this head; its slots must be there, or this would count for those before
#pragma unroll 1
        for (int i = 0; i < item.key_tiles; ++i, ++first_slot.taken) {
          mbarrier_wait(&memory.keys_full[first_slot.at()], first_slot.parity());
          if (first_lane) mbarrier_arrive(&memory.empty[first_slot.at()]);
        }
        continue;
      }
    }
#pragma unroll 1
    for (bool last = false; !last; tile += consumers) {
      own.start();
      {
        const Item item(p, index);
        last = tile + consumers >= item.query_tiles;
        if (item.key_tiles > 0) {
          const int keys = item.sequence.nk;
          const uint32_t random_row = uint32_t(item.sequence.first_q + tile * box_rows + 16 * warp) * p.heads + item.head;
          Ring<slots> slot = first_slot;
          const auto step = [&](auto size, int key) {
            constexpr int count = decltype(size)::value;
            float s[count / 2];
            uint32_t weights[count / 16][4];
            mbarrier_wait(&memory.keys_full[slot.at()], slot.parity());
            own.template multiply_keys<count>(s, rows_operand(memory.queries[consumer][stage.at()]), rows_operand(memory.keys[slot.at()]));
            if constexpr (dropout) own.template draw<count>(draws, memory.stream, random_row, key / 16);
            wgmma_wait<0>();
            wgmma_hold(s);
            wgmma_hold(own.out);
            if (last && first_lane && key > 0) mbarrier_arrive(&memory.empty[before(slot)]);
            own.template weigh<count>(weights, s, keys - key, draws);
            mbarrier_wait(keys - key < count ? &memory.values_clean[slot.at()] : &memory.values_full[slot.at()], slot.parity());
            own.template multiply_values<count>(weights, columns_operand(memory.values[slot.at()]));
            ++slot.taken;
          };
          mbarrier_wait(&memory.queries_full[consumer][stage.at()], stage.parity());
          int key = 0;
#pragma unroll 1
          for (; keys - key > slot_keys / 2; key += slot_keys) step(std::integral_constant<int, slot_keys>{}, key);
          if (key < keys) step(std::integral_constant<int, slot_keys / 2>{}, key);
          wgmma_wait<0>();
          wgmma_hold(own.out);
          if (first_lane) {
            mbarrier_arrive(&memory.queries_empty[consumer][stage.at()]);
            if (last) mbarrier_arrive(&memory.empty[before(slot)]);
          }
          ++stage.taken;
          if (last) first_slot = slot;
        }
      }
      const Item item(p, index);
      const int query = tile * box_rows + 16 * warp;
      own.finish(item.sequence.first_q + query, item.head, item.sequence.nq - query);
    }
  }
}

template <class T, bool dropout>
__global__ void __launch_bounds__(Config::threads, 1)
attention_forward_hopper(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v, const __grid_constant__ AttentionForward p) {
  using Memory = Memory<T, dropout>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < slots; ++i) {
      mbarrier_init(&memory->keys_full[i], 1);
      mbarrier_init(&memory->values_full[i], 1);
      mbarrier_init(&memory->values_clean[i], 1);
      mbarrier_init(&memory->empty[i], 4 * consumers + 1);
    }
    for (int c = 0; c < consumers; ++c)
      for (int i = 0; i < query_stages; ++i) {
        mbarrier_init(&memory->queries_full[c][i], 1);
        mbarrier_init(&memory->queries_empty[c][i], 4);
      }
    mbarrier_fence_init();
    if constexpr (dropout) memory->stream = random_stream(p.dropout);
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    release_registers<Config::producer_registers>();
    const int warp = int(threadIdx.x) / 32;
    if (threadIdx.x == 0) produce(p, {&q, &k, &v}, *memory);
    if (warp == 1) clean_values(p, *memory);
    if (warp == 2) clear_padding_rows<T>(p);
  } else {
    acquire_registers<Config::consumer_registers>();
    consume<T, dropout>(p, *memory);
  }
}

template <class T, bool dropout> cudaError_t launch(const AttentionForward& p, cudaStream_t stream) {
  CUtensorMap q, k, v;
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = boxes_of(q, p, p.q, p.rows_q);
  if (error == cudaSuccess) error = boxes_of(k, p, p.k, p.rows_k);
  if (error == cudaSuccess) error = boxes_of(v, p, p.v, p.rows_k);
  if (error != cudaSuccess) return error;
  const unsigned heads = blocks_of_heads(p);
  return ELECTRA_LAUNCH((attention_forward_hopper<T, dropout>), dim3(heads < unsigned(processors) ? heads : unsigned(processors)), dim3(Config::threads),
                        sizeof(Memory<T, dropout>), stream, q, k, v, p);
}

}  // namespace

int64_t forward_hopper_shared(const AttentionForward& p) { return has_dropout(p) ? sizeof(Memory<__half, true>) : sizeof(Memory<__half, false>); }

cudaError_t launch_forward_hopper(const AttentionForward& p, cudaStream_t stream) {
  return dispatch_16_bit(p.type, [&](auto type) {
    using T = typename decltype(type)::type;
    return has_dropout(p) ? launch<T, true>(p, stream) : launch<T, false>(p, stream);
  });
}

}  // namespace electra::cuda
