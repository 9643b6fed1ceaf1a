// Attention backward, class (a): both lengths at most 128, no causal mask. One block computes all gradients of one head of one sequence in one kernel: it holds every
// key, so delta is a sum over what it has in registers, and dq needs no sum over blocks. Nothing is read but q, k, v, grad and lse; the order of all sums is fixed.
//
// Traffic per head at S = 128, D = 64: 112 KiB (four tensors in, three out) for 10.5 MFLOP: 438 TFLOP/s at 4.8 TB/s.
#include "cuda/attention_backward.cuh"
#include "cuda/attention_config.cuh"

namespace electra::cuda {
namespace {

using attention_config::short_keys;
template <int D> using Config = attention_config::BackwardShort<D>;
constexpr int half_queries = short_keys / 2, blocks_of_queries = short_keys / 16;

// All sizes are known to the compiler, so that no address takes a register. What is no longer read makes room: the probabilities lie where the warp's rows of V were
// (if it keeps these in registers), dS where the probabilities were, and the warps' sums for delta where dO was.
template <class T, int D> struct Memory {
  static constexpr int tiles = Config<D>::row_tiles, rows = 16 * tiles;   // keys of a warp
  union Weights {
    uint4 probabilities[tiles][blocks_of_queries][32];    // of 16 keys x 16 queries, each lane its operand
    T score_gradients[tiles][blocks_of_queries][16 * 16];
    struct {
      unsigned char before[rows * short_keys * 2 - tiles * sizeof(Draws)];
      Draws draws[tiles];                                 // where the last probabilities go: no longer needed by then
    };
  };
  union Over {
    T values[rows * D];
    Weights weights;
  };
  struct Beside {
    T values[rows * D];
    Weights weights;
  };

  T keys[short_keys * D], queries[short_keys * D];
  union {
    T grads[short_keys * D];
    float partial[Config<D>::warps][short_keys];
  };
  std::conditional_t<Config<D>::operands_in_registers, Over, Beside> own[Config<D>::warps];
  float lse[short_keys], delta[short_keys];
};

// What a warp does with its keys, of which at least one is there: dk and dv of them, their part of delta and of dS. It meets the other warps five times.
// The number of queries is at most 16 * blocks.
template <class T, int D, bool dropout, int blocks>
__device__ __forceinline__ void differentiate_keys(const AttentionBackward& p, Memory<T, D>& memory, const Sequence& sequence, int head) {
  constexpr int tiles = Config<D>::row_tiles, warps = Config<D>::warps;
  const int warp = int(threadIdx.x) / 32, lane = lane_of_warp(), key0 = 16 * tiles * warp, keys_left = sequence.nk - key0;
  auto& own = memory.own[warp].weights;
  RowOperand<T, D, Config<D>::operands_in_registers> value[tiles];
#pragma unroll
  for (int m = 0; m < tiles; ++m) value[m].set(memory.own[warp].values, 16 * m);
  __syncwarp();
  {
    const float factor = p.scale * log2_e;
    PhiloxStream stream;
    if constexpr (dropout) stream = random_stream(p.dropout);
    const uint32_t thresholds = threshold_pair(p.dropout.threshold);
    RowOperand<T, D, Config<D>::operands_in_registers> key[tiles];
#pragma unroll
    for (int m = 0; m < tiles; ++m) key[m].set(memory.keys, key0 + 16 * m);
#pragma unroll 1
    for (int j = 0; j < blocks; j += 2) {
      if constexpr (dropout) {
        __syncwarp();   // the last draws have been read
#pragma unroll
        for (int m = 0; m < tiles; ++m) make_draw(own.draws[m], stream, uint32_t(sequence.first_q + 16 * j + lane) * p.heads + head, tiles * warp + m);
        __syncwarp();
      }
      uint32_t words[tiles][2][2];
#pragma unroll
      for (int m = 0; m < tiles; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          if constexpr (dropout) read_draws_transposed(words[m][i], own.draws[m], i);
      if constexpr (dropout) __syncwarp();   // probabilities may take the place of the draws
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float s[tiles][2][4] = {};
        multiply_columns<T, D>(s, key, memory.queries, 16 * (j + i));
#pragma unroll
        for (int m = 0; m < tiles; ++m) {
          uint32_t probability[4];
          probabilities<T>(probability, s[m], column_pairs(memory.lse + 16 * (j + i)), factor, keys_left - 16 * m);
          if constexpr (dropout) mark_dropped(probability, words[m][i][0], words[m][i][1], thresholds);
          own.probabilities[m][j + i][lane] = make_uint4(probability[0], probability[1], probability[2], probability[3]);
        }
      }
    }
  }
  const auto probability = [&](uint32_t(&out)[4], int m, int j) {
    const uint4 all = own.probabilities[m][j][lane];
    out[0] = all.x, out[1] = all.y, out[2] = all.z, out[3] = all.w;
  };
  copy_async_wait<0>();
  __syncthreads();   // dO is there
  {
    float sum[tiles][D / 8][4] = {};
#pragma unroll 2
    for (int j = 0; j < blocks; ++j) {
      uint32_t weights[tiles][4];
#pragma unroll
      for (int m = 0; m < tiles; ++m) {
        probability(weights[m], m, j);
        keep<T, dropout>(weights[m]);
      }
      multiply_rows<T, D>(sum, weights, memory.grads, 16 * j);
    }
#pragma unroll
    for (int m = 0; m < tiles; ++m) store_gradient<T>(p.dv, p, sequence.first_k + key0 + 16 * m, head, sum[m], p.dropout.scale, keys_left - 16 * m);
  }
  float dp[blocks][tiles][2][4] = {};
#pragma unroll
  for (int j = 0; j < blocks; ++j) multiply_columns<T, D>(dp[j], value, memory.grads, 16 * j);
  __syncthreads();   // dO has been read
#pragma unroll
  for (int j = 0; j < blocks; j += 2) {
    float of_queries[8] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int m = 0; m < tiles; ++m) {
        uint32_t weights[4];
        probability(weights, m, j + i);
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          const float2 upper = kept_pair<T, dropout>(weights[2 * side]), lower = kept_pair<T, dropout>(weights[2 * side + 1]);
          const float(&d)[4] = dp[j + i][m][side];
          of_queries[4 * i + 2 * side] += upper.x * d[0] + lower.x * d[2];
          of_queries[4 * i + 2 * side + 1] += upper.y * d[1] + lower.y * d[3];
        }
      }
    memory.partial[warp][16 * j + 8 * (lane >> 3) + 2 * (lane & 3) + (lane >> 2 & 1)] = sum_over_keys(of_queries);
  }
  __syncthreads();   // the warps' sums are there
  const int busy = divide_up(sequence.nk, 16 * tiles);
#pragma unroll 1
  for (int i = int(threadIdx.x); i < 16 * blocks; i += 32 * busy) {
    float delta = 0.f;
#pragma unroll 1
    for (int w = 0; w < busy; ++w) delta += memory.partial[w][i];
    memory.delta[i] = delta;
  }
  __syncthreads();   // delta is there
  float sum[tiles][D / 8][4] = {};
#pragma unroll
  for (int j = 0; j < blocks; ++j) {
    const ColumnPairs delta = column_pairs(memory.delta + 16 * j);
    uint32_t ds[tiles][4];
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      uint32_t weights[4];
      probability(weights, m, j);
      score_gradients<T, dropout>(ds[m], weights, dp[j][m], delta);
    }
    __syncwarp();   // the probabilities have been read
#pragma unroll
    for (int m = 0; m < tiles; ++m) store_operand<16>(own.score_gradients[m][j], ds[m], 0, 0);
    multiply_rows<T, D>(sum, ds, memory.queries, 16 * j);
  }
#pragma unroll
  for (int m = 0; m < tiles; ++m) store_gradient<T>(p.dk, p, sequence.first_k + key0 + 16 * m, head, sum[m], p.scale * p.dropout.scale, keys_left - 16 * m);
  __syncthreads();   // dS is there

}

template <class T, int D, bool dropout, int blocks>
__device__ __forceinline__ void differentiate(const AttentionBackward& p, Memory<T, D>& memory, const Sequence& sequence, int head) {
  constexpr int tiles = Config<D>::row_tiles;
  const int warp = int(threadIdx.x) / 32, row0 = 16 * tiles * warp;   // of its keys, then of its queries
  if (row0 < sequence.nk) differentiate_keys<T, D, dropout, blocks>(p, memory, sequence, head);
  else {
    copy_async_wait<0>();
    for (int i = 0; i < 5; ++i) __syncthreads();
  }
  if (row0 >= sequence.nq) return;
  float sum[tiles][D / 8][4] = {};
#pragma unroll 2
  for (int block = 0; 16 * block < sequence.nk; ++block) {
    uint32_t ds[tiles][4];
#pragma unroll
    for (int m = 0; m < tiles; ++m) load_a_transposed<16>(ds[m], memory.own[block / tiles].weights.score_gradients[block % tiles][tiles * warp + m], 0, 0);
    multiply_rows<T, D>(sum, ds, memory.keys, 16 * block);
  }
#pragma unroll
  for (int m = 0; m < tiles; ++m)
    store_gradient<T>(p.dq, p, sequence.first_q + row0 + 16 * m, head, sum[m], p.scale * p.dropout.scale, sequence.nq - row0 - 16 * m);
}

template <class T, int D, bool dropout>
__global__ void __launch_bounds__(Config<D>::threads, Config<D>::blocks) attention_backward_short(const AttentionBackward p) {
  constexpr int threads = Config<D>::threads;
  using Memory = Memory<T, D>;
  ELECTRA_DYNAMIC_SHARED(Memory, shared);
  Memory& memory = *shared;
  const int b = int(blockIdx.x) / p.heads, head = int(blockIdx.x) % p.heads;
  const Sequence sequence(p, b);
  const int warp = int(threadIdx.x) / 32, key0 = Memory::rows * warp;
  load_halves<T, D, threads>(memory.keys, row_pointer<T>(p.k, sequence.first_k, head), p.k.row_stride, sequence.nk, p.dim);
  load_halves<T, D, threads>(memory.queries, row_pointer<T>(p.q, sequence.first_q, head), p.q.row_stride, sequence.nq, p.dim);
  load_tile<T, D, 32, Memory::rows>(memory.own[warp].values, row_pointer<T>(p.v, sequence.first_k + key0, head), p.v.row_stride, sequence.nk - key0, p.dim, lane_of_warp());
  copy_async_commit();
  load_halves<T, D, threads>(memory.grads, row_pointer<T>(p.grad, sequence.first_q, head), p.grad.row_stride, sequence.nq, p.dim);
  copy_async_commit();
#pragma unroll
  for (int i = int(threadIdx.x); i < short_keys; i += threads)
    memory.lse[i] = base_2(i < sequence.nq ? p.lse[head * p.rows_q + sequence.first_q + i] : -INFINITY);
  clear_padding<T>(p, head, b, int(gridDim.x) / p.heads);   // while the copies are on their way
  copy_async_wait<1>();
  __syncthreads();
  if (sequence.nq <= half_queries) differentiate<T, D, dropout, half_queries / 16>(p, memory, sequence, head);
  else differentiate<T, D, dropout, short_keys / 16>(p, memory, sequence, head);
}

}  // namespace

int64_t backward_short_shared(const AttentionBackward& p) {
  return dispatch_attention(p, [](auto type, auto dim, auto) { return int64_t(sizeof(Memory<typename decltype(type)::type, decltype(dim)::value>)); });
}

cudaError_t launch_backward_short(const AttentionBackward& p, cudaStream_t stream) {
  return dispatch_attention(p, [&](auto type, auto dim, auto dropout) {
    constexpr int D = decltype(dim)::value < backward_short_dim ? decltype(dim)::value : backward_short_dim;   // wider heads are not taken
    return ELECTRA_LAUNCH((attention_backward_short<typename decltype(type)::type, D, decltype(dropout)::value>), dim3(blocks_of_heads(p)), dim3(Config<D>::threads),
                          backward_short_shared(p), stream, p);
  });
}

}  // namespace electra::cuda
