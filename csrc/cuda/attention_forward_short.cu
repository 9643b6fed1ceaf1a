// Attention forward, class (a): both lengths at most 128, no causal mask. One block computes one head of one sequence; a row of scores is complete, so the softmax
// needs one pass and nothing is rescaled.
//
// Traffic per head at S = 128, D = 64: q, k, v read and out written once, 64 KiB, for 4.2 MFLOP: bound by memory (307 TFLOP/s at 4.8 TB/s).
#include "cuda/attention_config.cuh"
#include "cuda/attention_launch.h"
#include "cuda/attention_math.cuh"
#include "cuda/attention_sequence.cuh"
#include "cuda/attention_tile.cuh"
#include "cuda/reduce.cuh"

namespace electra::cuda {
namespace {

using attention_config::short_keys;
template <int D> using Config = attention_config::ForwardShort<D>;

template <class T, int D, bool dropout> struct Memory {
  T keys[short_keys * D], values[short_keys * D], queries[short_keys * D];
  Draws draws[dropout ? Config<D>::warps : 1][2];   // of eight queries each
};

// The number of keys computed with is this or all 128, known to the compiler: branches on blocks of 16 cost more than they save, in moves and spills.
constexpr int half_keys = short_keys / 2;

// Scores of 16 queries with 16 * blocks keys, -inf from key nk on.
template <class T, int D, int blocks>
__device__ __forceinline__ void scores(float (&s)[blocks][1][2][4], const T* queries, const T* keys, int row0, int nk, float scale) {
  RowOperand<T, D, true> query[1];
  query[0].set(queries, row0, sign_flip(scale));
#pragma unroll
  for (int j = 0; j < blocks; ++j) {
    multiply_columns<T, D>(s[j], query, keys, 16 * j);
    if (16 * j + 16 > nk) {
      const int first = 16 * j + 2 * (lane_of_warp() & 3);
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) s[j][0][n][e] = first + 8 * n + e % 2 < nk ? s[j][0][n][e] : -INFINITY;
    }
  }
}

// The softmax of a row, in the log2 domain: probabilities times `mass` as mma operands, and the statistics of rows group and group+8.
template <class T, int blocks>
__device__ __forceinline__ void softmax(float (&s)[blocks][1][2][4], uint32_t (&p)[blocks][1][4], float (&largest)[2], float (&mass)[2], float factor) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float x = -INFINITY;
#pragma unroll
    for (int j = 0; j < blocks; ++j)
#pragma unroll
      for (int n = 0; n < 2; ++n) x = fmaxf(x, fmaxf(s[j][0][n][2 * half], s[j][0][n][2 * half + 1]));
    x = warp_max<4>(x);
    largest[half] = x == -INFINITY ? 0.f : x * factor;
    mass[half] = 0.f;
  }
#pragma unroll
  for (int j = 0; j < blocks; ++j) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[j][0][n][e] = fast_exp2(s[j][0][n][e] * factor - largest[e / 2]);
        mass[e / 2] += s[j][0][n][e];
      }
    pack_operand<T>(p[j][0], s[j][0][0], s[j][0][1]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) mass[half] = warp_sum<4>(mass[half]);
}

// All queries of the head, 16 a warp; V is awaited where it is needed first. The number of keys is at most 16 * blocks.
template <class T, int D, bool dropout, int blocks>
__device__ __forceinline__ void attend(const AttentionForward& p, Memory<T, D, dropout>& memory, const Sequence& sequence, int head) {
  const int warp = int(threadIdx.x) / 32, lane = lane_of_warp(), group = lane >> 2;
  PhiloxStream stream;
  if constexpr (dropout) stream = random_stream(p.dropout);
#pragma unroll 1
  for (int first = 0; first < sequence.nq; first += 16 * Config<D>::warps) {
    const int row0 = first + 16 * warp;
    const bool active = row0 < sequence.nq;
    uint32_t weights[blocks][1][4];
    float largest[2], mass[2];
    if (active) {
      float s[blocks][1][2][4] = {};
      scores<T, D, blocks>(s, memory.queries, memory.keys, row0, sequence.nk, p.scale);
      softmax<T, blocks>(s, weights, largest, mass, exponent_factor(p.scale));
      if constexpr (dropout) {
        const uint32_t thresholds = threshold_pair(p.dropout.threshold);
#pragma unroll
        for (int j = 0; j < blocks; j += 4) {
          __syncwarp();   // the last draws have been read
#pragma unroll
          for (int half = 0; half < 2; ++half)
            make_draw(memory.draws[warp][half], stream, uint32_t(sequence.first_q + row0 + 8 * half + (lane & 7)) * p.heads + head, j + (lane >> 3));
          __syncwarp();
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            uint32_t words[2];
            read_draws(words, memory.draws[warp], i);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              weights[j + i][0][half] &= keep_pair<false>(words[half], thresholds);
              weights[j + i][0][2 + half] &= keep_pair<true>(words[half], thresholds);
            }
          }
        }
      }
    }
    if (first == 0) {
      copy_async_wait<0>();
      __syncthreads();
    }
    if (!active) continue;
    float out[1][D / 8][4] = {};
#pragma unroll
    for (int j = 0; j < blocks; ++j) multiply_rows<T, D>(out, weights[j], memory.values, 16 * j);
    float norm[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row0 + group + 8 * half;
      norm[half] = mass[half] == 0.f ? 0.f : p.dropout.scale / mass[half];
      if ((lane & 3) == 0 && row < sequence.nq)
        p.lse[head * p.rows_q + sequence.first_q + row] = mass[half] == 0.f ? -INFINITY : (largest[half] + log2f(mass[half])) * ln_2;
    }
    T* rows = static_cast<T*>(p.out) + (int64_t(sequence.first_q + row0) * p.heads + head) * p.dim;
    store_tile<T>(rows, int64_t(p.heads) * p.dim, out[0], norm, sequence.nq - row0, p.dim);
  }
}

template <class T, int D, bool dropout>
__global__ void __launch_bounds__(Config<D>::threads, Config<D>::blocks) attention_forward_short(const AttentionForward p) {
  constexpr int threads = Config<D>::threads;
  using Memory = Memory<T, D, dropout>;
  ELECTRA_DYNAMIC_SHARED(Memory, shared);
  Memory& memory = *shared;
  const int b = int(blockIdx.x) / p.heads, head = int(blockIdx.x) % p.heads;
  const Sequence sequence(p, b);
  load_halves<T, D, threads>(memory.queries, row_pointer<T>(p.q, sequence.first_q, head), p.q.row_stride, sequence.nq, p.dim);
  load_halves<T, D, threads>(memory.keys, row_pointer<T>(p.k, sequence.first_k, head), p.k.row_stride, sequence.nk, p.dim);
  copy_async_commit();
  load_halves<T, D, threads>(memory.values, row_pointer<T>(p.v, sequence.first_k, head), p.v.row_stride, sequence.nk, p.dim);
  copy_async_commit();
  clear_padding<T>(p, head, b, int(gridDim.x) / p.heads);   // while the copies are on their way
  if (sequence.nq == 0) return;
  copy_async_wait<1>();
  __syncthreads();
  if (sequence.nk <= half_keys) attend<T, D, dropout, half_keys / 16>(p, memory, sequence, head);
  else attend<T, D, dropout, short_keys / 16>(p, memory, sequence, head);
}

}  // namespace

int64_t forward_short_shared(const AttentionForward& p) {
  return dispatch_attention(p, [](auto type, auto dim, auto dropout) {
    return int64_t(sizeof(Memory<typename decltype(type)::type, decltype(dim)::value, decltype(dropout)::value>));
  });
}

cudaError_t launch_forward_short(const AttentionForward& p, cudaStream_t stream) {
  return dispatch_attention(p, [&](auto type, auto dim, auto dropout) {
    constexpr int D = decltype(dim)::value;
    return ELECTRA_LAUNCH((attention_forward_short<typename decltype(type)::type, D, decltype(dropout)::value>), dim3(blocks_of_heads(p)), dim3(Config<D>::threads),
                          forward_short_shared(p), stream, p);
  });
}

}  // namespace electra::cuda
