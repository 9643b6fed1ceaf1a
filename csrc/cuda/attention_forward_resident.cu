// Attention forward, class (b): K and V of the head stay in shared memory (lengths at most 512, D = 64, no causal mask). One block computes the whole head; they are
// read from memory once, and after its first rows a warp waits for no other.
//
// Traffic per head: 8 * S * D bytes for 4 * S² * D FLOP. At S = 512 the tensor cores and the exponentials bind, not memory (1228 TFLOP/s would at 4.8 TB/s).
#include "cuda/attention_config.cuh"
#include "cuda/attention_forward.cuh"

namespace electra::cuda {
namespace {

template <int warps> using Config = attention_config::ForwardResident<warps>;
constexpr int D = attention_config::resident_dim, most_steps = attention_config::resident_keys / keys_of_step;

// Shared memory: K, V [keys rounded up][D], Q [rows of all warps][D], and the draws of a step.
template <class T, int warps> struct Memory {
  T *keys, *values, *queries;
  Draws* draws;   // of a step, 2 * row_tiles a warp
  __device__ __forceinline__ Memory(T* shared, const AttentionForward& p) {
    const int rows = round_up(int(p.max_seqlen_k), keys_of_step);
    keys = shared;
    values = keys + rows * D;
    queries = values + rows * D;
    draws = reinterpret_cast<Draws*>(queries + Config<warps>::rows * D);
  }
  static int64_t bytes(const AttentionForward& p) {
    return int64_t(2 * round_up(int(p.max_seqlen_k), keys_of_step) + Config<warps>::rows) * D * 2 + (has_dropout(p) ? 2 * Config<warps>::row_tiles * warps * sizeof(Draws) : 0);
  }
};

// Waits until at most `groups` groups of copies are under way.
__device__ __forceinline__ void wait_for_all_but(int groups) {
  static_assert(most_steps == 8);
  switch (groups) {
    case 0: return copy_async_wait<0>();
    case 1: return copy_async_wait<1>();
    case 2: return copy_async_wait<2>();
    case 3: return copy_async_wait<3>();
    case 4: return copy_async_wait<4>();
    case 5: return copy_async_wait<5>();
    case 6: return copy_async_wait<6>();
    case 7: return copy_async_wait<7>();
    default: return copy_async_wait<8>();
  }
}

template <class T, int warps, bool dropout>
__global__ void __launch_bounds__(Config<warps>::threads, Config<warps>::blocks) attention_forward_resident(const AttentionForward p) {
  using Rows = QueryRows<T, D, Config<warps>::row_tiles, dropout>;
  constexpr int threads = Config<warps>::threads, own_rows = 16 * Config<warps>::row_tiles;
  ELECTRA_DYNAMIC_SHARED(T, shared);
  const int b = int(blockIdx.x) / p.heads, head = int(blockIdx.x) % p.heads, warp = int(threadIdx.x) / 32;
  const Sequence sequence(p, b);
  const Memory<T, warps> memory(shared, p);
  const int steps = divide_up(sequence.nk, keys_of_step);
  T* own_queries = memory.queries + warp * own_rows * D;
  const auto load_queries = [&](int row) {
    const T* q = row_pointer<T>(p.q, sequence.first_q + row, head);
    load_tile<T, D, 32, own_rows>(own_queries, q, p.q.row_stride, sequence.nq - row, p.dim, lane_of_warp());
    copy_async_commit();
  };

  // A group of copies for the queries and one per 64 keys: the first pass computes with those that are there.
  load_queries(warp * own_rows);
  const T *k = row_pointer<T>(p.k, sequence.first_k, head), *v = row_pointer<T>(p.v, sequence.first_k, head);
#pragma unroll 1
  for (int i = 0; i < steps; ++i) {
    const int key = i * keys_of_step, count = sequence.nk - key;
    load_tile<T, D, threads, keys_of_step>(memory.keys + key * D, k + key * p.k.row_stride, p.k.row_stride, count, p.dim);
    load_tile<T, D, threads, keys_of_step>(memory.values + key * D, v + key * p.v.row_stride, p.v.row_stride, count, p.dim);
    copy_async_commit();
  }
  clear_padding<T>(p, head, b, int(gridDim.x) / p.heads);   // while the copies are on their way
  PhiloxStream stream;
  if constexpr (dropout) stream = random_stream(p.dropout);
  const float factor = exponent_factor(p.scale);
  auto& draws = *reinterpret_cast<typename Rows::Draws*>(memory.draws + (dropout ? 2 * Config<warps>::row_tiles * warp : 0));
#pragma unroll 1
  for (int first = 0; first < sequence.nq; first += own_rows * warps) {
    const int row = first + warp * own_rows;
    if (first > 0) {
      if (row >= sequence.nq) return;
      load_queries(row);
    }
    wait_for_all_but(first == 0 ? steps : 0);
    __syncwarp();
    Rows rows;
    rows.start(own_queries, 0, p.scale);
#pragma unroll 1
    for (int i = 0; i < steps; ++i) {
      const int key = i * keys_of_step;
      const typename Rows::Place at = {p, sequence, head, row, key};
      if (row < sequence.nq) rows.draw(draws, at, stream);
      if (first == 0) {
        wait_for_all_but(steps - 1 - i);
        __syncthreads();
      }
      if (row < sequence.nq) rows.step(memory.keys + key * D, memory.values + key * D, at, factor, draws);
    }
    if (row < sequence.nq) rows.finish({p, sequence, head, row, 0});
    __syncwarp();   // the queries have been read
  }
}

bool is_small(const AttentionForward& p) { return p.max_seqlen_k <= attention_config::resident_small; }

template <class T, int warps> cudaError_t launch(const AttentionForward& p, cudaStream_t stream) {
  const auto kernel = has_dropout(p) ? attention_forward_resident<T, warps, true> : attention_forward_resident<T, warps, false>;
  return ELECTRA_LAUNCH(kernel, dim3(blocks_of_heads(p)), dim3(Config<warps>::threads), forward_resident_shared(p), stream, p);
}

}  // namespace

int64_t forward_resident_shared(const AttentionForward& p) { return is_small(p) ? Memory<__half, 4>::bytes(p) : Memory<__half, 8>::bytes(p); }

cudaError_t launch_forward_resident(const AttentionForward& p, cudaStream_t stream) {
  return dispatch_16_bit(p.type, [&](auto type) {
    using T = typename decltype(type)::type;
    return is_small(p) ? launch<T, 4>(p, stream) : launch<T, 8>(p, stream);
  });
}

}  // namespace electra::cuda
