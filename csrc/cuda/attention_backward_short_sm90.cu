// Attention backward on Hopper, class (a): both lengths at most 128, D = 64, no causal mask. A block has a head of a sequence and all its keys, 64 for each of two groups
// of four warps, so delta is a sum over what the block has in registers, and dQ needs no sum over blocks: one kernel that reads q, k, v, grad and lse, and nothing twice.
//
//   S = K Qᵀ   P = exp2(S - lse)   dV = (P ∘ M)ᵀ dO   dP = V dOᵀ   delta = sum of P ∘ M ∘ dP over the keys   dS   dK = dSᵀ Q   dQ = dS K
//
// S and dP are transposed (rows are keys); P and dS are operands from registers, and dS goes to shared memory as well, transposed as it is: dQ takes its left operand
// along the columns. One product after another, and dP of 64 queries at a time, so that 128 registers a thread do and two blocks fit a multiprocessor: one multiplies
// while the other computes or loads.
//
// Traffic per head at S = 128: 112 KiB for 10.5 MFLOP: 438 TFLOP/s at 4.8 TB/s; 2560 clocks of the tensor cores, 1024 of the exponentials.
#include "cuda/attention_backward_hopper.cuh"

namespace electra::cuda {
namespace {

using Config = attention_config::BackwardShortHopper;
using attention_config::short_keys;
constexpr int groups = short_keys / box_rows, warps = 4 * groups, threads = 32 * warps;
static_assert(threads == Config::threads);

template <class T> struct Memory {
  T keys[short_keys * hopper_dim], queries[short_keys * hopper_dim];
  union {
    struct { T values[short_keys * hopper_dim], grads[short_keys * hopper_dim]; };
    T later_gradients[short_keys * box_rows];    // of the scores of the queries from 64 on: [keys][64]
  };
  union {
    Draws draws[warps][4];                       // of 32 queries each; then, in the same place for every warp,
    T first_gradients[short_keys * box_rows];    // of the scores of the first 64 queries
  };
  float partial[warps][box_rows];                // of delta
  float lse[short_keys], delta[box_rows];
  Mbarrier scores_ready, all_ready;              // K and Q; V and dO

  __device__ __forceinline__ T* score_gradients(int half) { return half == 0 ? first_gradients : later_gradients; }
};
static_assert(sizeof(Draws[4]) == 16 * box_rows * 2, "a warp writes dS where its own draws were");

// The part of delta that lies in the warp's 16 keys, of 64 queries.
template <class T, bool dropout> __device__ __forceinline__ void sum_deltas(float* partial, const uint32_t (*weights)[4], const float (&dp)[box_rows / 2]) {
  const int lane = lane_of_warp();
#pragma unroll
  for (int j = 0; j < box_rows / 16; j += 2) {
    float of_queries[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {   // blocks of eight queries
      const float2 upper = kept_pair<T, dropout>(weights[j + i / 2][2 * (i % 2)]), lower = kept_pair<T, dropout>(weights[j + i / 2][2 * (i % 2) + 1]);
      const float* d = dp + 8 * j + 4 * i;
      of_queries[2 * i] = upper.x * d[0] + lower.x * d[2];
      of_queries[2 * i + 1] = upper.y * d[1] + lower.y * d[3];
    }
    partial[16 * j + 8 * (lane >> 3) + 2 * (lane & 3) + (lane >> 2 & 1)] = sum_over_keys(of_queries);
  }
}

// All threads: makes what lies behind the sequence in two tiles zero. A barrier must follow.
template <class T> __device__ __forceinline__ void clear_tails(T* of_keys, int nk, T* of_queries, int nq) {
  clear_tail(of_keys, nk, fetched_rows(nk), int(threadIdx.x), threads);
  clear_tail(of_queries, nq, fetched_rows(nq), int(threadIdx.x), threads);
}

// V and dO have come, and hold only numbers, for all.
template <class T> __device__ __forceinline__ void await_gradients(Memory<T>& memory, const Sequence& sequence) {
  mbarrier_wait(&memory.all_ready, 0);
  clear_tails(memory.values, sequence.nk, memory.grads, sequence.nq);
  __syncthreads();
}

// What a group does with its keys, of which at least one is there: dk and dv of them, their part of delta and of dS. It meets the other group 2 + blocks / 2 times.
template <class T, bool dropout, int blocks>
__device__ __forceinline__ void differentiate_keys(const AttentionBackward& p, Memory<T>& memory, const Sequence& sequence, int head) {
  const int warp = int(threadIdx.x) / 32, group_key = warp / 4 * box_rows, key0 = 16 * warp;
  uint32_t weights[blocks][4];
  {
    float s[8 * blocks];
    wgmma_fence();
    multiply_rows_by_rows<T, 16 * blocks>(s, memory.keys + group_key * hopper_dim, memory.queries);
    wgmma_commit();
    if constexpr (dropout) draw_columns<blocks>(memory.draws[warp], random_stream(p.dropout), uint32_t(sequence.first_q) * p.heads + head, p.heads, warp);
    wgmma_wait<0>();
    wgmma_hold(s);
    weigh_columns<T, dropout, blocks>(weights, s, memory.lse, p.scale * log2_e, sequence.nk - key0, memory.draws[warp], threshold_pair(p.dropout.threshold));
  }
  await_gradients(memory, sequence);
  {
    float dv[hopper_dim / 2];
    uint32_t kept[blocks][4];
#pragma unroll
    for (int j = 0; j < blocks; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) kept[j][i] = weights[j][i];
      keep<T, dropout>(kept[j]);
    }
    wgmma_hold(kept);
    wgmma_fence();
    multiply_by_tile<T, blocks>(dv, kept, memory.grads, false);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(dv);
    store_gradient_rows<T>(p.dv, p, sequence.first_k + key0, head, dv, p.dropout.scale, sequence.nk - key0);
  }
  uint32_t ds[blocks][4];
#pragma unroll
  for (int half = 0; half < blocks / 4; ++half) {
    float dp[box_rows / 2];
    wgmma_fence();
    multiply_rows_by_rows<T, box_rows>(dp, memory.values + group_key * hopper_dim, memory.grads + half * box_rows * hopper_dim);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(dp);
    sum_deltas<T, dropout>(memory.partial[warp], weights + 4 * half, dp);
    __syncthreads();   // the warps' sums are there; V and these dO have been read
    if (int(threadIdx.x) < box_rows) {
      float delta = 0.f;
#pragma unroll 1
      for (int w = 0; 16 * w < sequence.nk; ++w) delta += memory.partial[w][threadIdx.x];
      memory.delta[threadIdx.x] = delta;
    }
    __syncthreads();   // delta is there
    differentiate_columns<T, dropout>(ds + 4 * half, weights + 4 * half, dp, memory.delta, memory.score_gradients(half), key0);
  }
  wgmma_hold(ds);
  float dk[hopper_dim / 2];
  wgmma_fence();
  multiply_by_tile<T, blocks>(dk, ds, memory.queries, false);
  wgmma_commit();
  wgmma_wait<0>();
  wgmma_hold(dk);
  store_gradient_rows<T>(p.dk, p, sequence.first_k + key0, head, dk, p.scale * p.dropout.scale, sequence.nk - key0);
  __syncthreads();   // dS is there
}

template <class T, bool dropout, int blocks>
__device__ __forceinline__ void differentiate(const AttentionBackward& p, Memory<T>& memory, const Sequence& sequence, int head) {
  const int warp = int(threadIdx.x) / 32, group = warp / 4;
  if (group * box_rows < sequence.nk) differentiate_keys<T, dropout, blocks>(p, memory, sequence, head);
  else {
    await_gradients(memory, sequence);
    for (int i = 0; i < 1 + blocks / 2; ++i) __syncthreads();
  }
  if (group * box_rows >= sequence.nq) return;
  float dq[hopper_dim / 2];
  if (sequence.nk <= box_rows) multiply_transposed<T, box_rows / 16>(dq, memory.score_gradients(group), memory.keys);
  else multiply_transposed<T, short_keys / 16>(dq, memory.score_gradients(group), memory.keys);
  store_gradient_rows<T>(p.dq, p, sequence.first_q + 16 * warp, head, dq, p.scale * p.dropout.scale, sequence.nq - 16 * warp);
}

template <class T, bool dropout>
__global__ void __launch_bounds__(Config::threads, Config::blocks)
attention_backward_short_hopper(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k, const __grid_constant__ CUtensorMap v,
                                const __grid_constant__ CUtensorMap grad, const __grid_constant__ AttentionBackward p) {
  using Memory = Memory<T>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  const int b = int(blockIdx.x) / p.heads, head = int(blockIdx.x) % p.heads;
  const Sequence sequence(p, b);
  const bool empty = sequence.nq == 0 || sequence.nk == 0;
  if (threadIdx.x == 0 && !empty) {
    mbarrier_init(&memory->scores_ready, 1);
    mbarrier_init(&memory->all_ready, 1);
    mbarrier_fence_init();
    const uint32_t bytes = fetched_bytes(sequence.nk) + fetched_bytes(sequence.nq);
    mbarrier_arrive_expect(&memory->scores_ready, bytes);
    fetch_rows(memory->keys, &k, &memory->scores_ready, sequence.first_k, head, sequence.nk);
    fetch_rows(memory->queries, &q, &memory->scores_ready, sequence.first_q, head, sequence.nq);
    mbarrier_arrive_expect(&memory->all_ready, bytes);
    fetch_rows(memory->values, &v, &memory->all_ready, sequence.first_k, head, sequence.nk);
    fetch_rows(memory->grads, &grad, &memory->all_ready, sequence.first_q, head, sequence.nq);
  }
  clear_padding<T>(p, head, b, int(gridDim.x) / p.heads);   // while the copies are on their way
  if (empty) {   // at most one of these has rows
    clear_rows<T>(p.dq, p.heads, head, p.dim, sequence.first_q, sequence.first_q + sequence.nq, 0, 1);
    clear_rows<T>(p.dk, p.heads, head, p.dim, sequence.first_k, sequence.first_k + sequence.nk, 0, 1);
    clear_rows<T>(p.dv, p.heads, head, p.dim, sequence.first_k, sequence.first_k + sequence.nk, 0, 1);
    return;
  }
  if (threadIdx.x < short_keys)
    memory->lse[threadIdx.x] = base_2(int(threadIdx.x) < sequence.nq ? p.lse[head * p.rows_q + sequence.first_q + threadIdx.x] : -INFINITY);
  __syncthreads();   // the barriers are there
  mbarrier_wait(&memory->scores_ready, 0);
  clear_tails(memory->keys, sequence.nk, memory->queries, sequence.nq);
  __syncthreads();   // K and Q are numbers, and lse is there
  if (sequence.nq <= box_rows) differentiate<T, dropout, box_rows / 16>(p, *memory, sequence, head);
  else differentiate<T, dropout, short_keys / 16>(p, *memory, sequence, head);
}

template <class T, bool dropout> cudaError_t launch(const AttentionBackward& p, cudaStream_t stream) {
  CUtensorMap q, k, v, grad;
  cudaError_t error = boxes_of(q, p, p.q, p.rows_q);
  if (error == cudaSuccess) error = boxes_of(k, p, p.k, p.rows_k);
  if (error == cudaSuccess) error = boxes_of(v, p, p.v, p.rows_k);
  if (error == cudaSuccess) error = boxes_of(grad, p, p.grad, p.rows_q);
  if (error != cudaSuccess) return error;
  return ELECTRA_LAUNCH((attention_backward_short_hopper<T, dropout>), dim3(blocks_of_heads(p)), dim3(Config::threads), sizeof(Memory<T>), stream, q, k, v, grad, p);
}

}  // namespace

int64_t backward_short_hopper_shared(const AttentionBackward&) { return sizeof(Memory<__half>); }

cudaError_t launch_backward_short_hopper(const AttentionBackward& p, cudaStream_t stream) {
  return dispatch_16_bit(p.type, [&](auto type) {
    using T = typename decltype(type)::type;
    return has_dropout(p) ? launch<T, true>(p, stream) : launch<T, false>(p, stream);
  });
}

}  // namespace electra::cuda
