// Attention backward, class (b): lengths at most 512, D = 64, no causal mask. One block computes all gradients of one head of one sequence: 128 keys after another, and
// for each all queries, 64 at a time. dq stays in shared memory as float32, 256 bytes a query, and is written once: five products, one kernel, a fixed order of all
// sums, where two sweeps (class (c)) take seven products and two kernels.
//
// A thread adds to the same elements of dq every time, so these lie in the order of the threads and need no barrier of their own.
#include "cuda/attention_backward_keys.cuh"
#include "cuda/reduce.cuh"

namespace electra::cuda {
namespace {

constexpr int D = attention_config::resident_dim;
using Config = attention_config::BackwardKeys<D>;
constexpr int block_keys = Config::keys, step_queries = Config::queries;
static_assert(Config::warps == 8 && step_queries == 64, "dq of a step is split into 4 x 16 queries and 2 x 32 columns, one of each a warp");

template <class T> struct Memory {
  T keys[block_keys * D], values[block_keys * D];
  struct { T queries[step_queries * D], grads[step_queries * D]; } stage[2];
  T score_gradients[block_keys * step_queries];   // [keys][queries]
  Draws draws[Config::warps];
  // Behind it, for all queries, rounded up to whole steps: lse, delta, and the sums of dq [step][4][threads].
  __device__ __forceinline__ float* lse() { return reinterpret_cast<float*>(this + 1); }
  __device__ __forceinline__ float* delta(int queries) { return lse() + queries; }
  __device__ __forceinline__ float4* sums(int queries) { return reinterpret_cast<float4*>(delta(queries) + queries); }
  static int64_t bytes(const AttentionBackward& p) {
    return int64_t(sizeof(Memory)) + round_up(int(p.max_seqlen_q), step_queries) * int64_t((2 + D) * sizeof(float));
  }
};

// lse and delta of 64 queries, made from memory by all threads, four to a query: read early, written to shared memory late.
template <class T> struct Statistics {
  uint4 grad[2], out[2];
  float lse;

  __device__ __forceinline__ void read(const AttentionBackward& p, const Sequence& sequence, int head, int query0) {
    const int query = query0 + int(threadIdx.x) / 4, part = int(threadIdx.x) % 4;
    const int64_t row = sequence.first_q + query;
    const bool there = query < sequence.nq;
    lse = there ? p.lse[head * p.rows_q + row] : -INFINITY;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = 8 * (part + 4 * i);
      grad[i] = out[i] = make_uint4(0, 0, 0, 0);
      if (!there || column >= p.dim) continue;
      grad[i] = load_words(row_pointer<T>(p.grad, row, head) + column);
      out[i] = load_words(static_cast<const T*>(p.out) + (row * p.heads + head) * p.dim + column);
    }
  }

  __device__ __forceinline__ void write(float* lse_of_queries, float* delta_of_queries, float factor) const {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t g[4] = {grad[i].x, grad[i].y, grad[i].z, grad[i].w}, o[4] = {out[i].x, out[i].y, out[i].z, out[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 x = unpack<T>(g[j]), y = unpack<T>(o[j]);
        sum += x.x * y.x + x.y * y.y;
      }
    }
    sum = warp_sum<4>(sum);
    if (threadIdx.x % 4 != 0) return;
    lse_of_queries[threadIdx.x / 4] = base_2(lse);
    delta_of_queries[threadIdx.x / 4] = sum * factor;
  }
};

template <class T, bool dropout> __global__ void __launch_bounds__(Config::threads, Config::blocks) attention_backward_resident(const AttentionBackward p) {
  constexpr int threads = Config::threads;
  using Memory = Memory<T>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  const int b = int(blockIdx.x) / p.heads, head = int(blockIdx.x) % p.heads, thread = int(threadIdx.x), warp = thread / 32;
  const Sequence sequence(p, b);
  if (sequence.nq == 0 || sequence.nk == 0) clear_padding<T>(p, head, b, int(gridDim.x) / p.heads);
  if (sequence.nk == 0) return clear_rows<T>(p.dq, p.heads, head, p.dim, sequence.first_q, sequence.first_q + sequence.nq, 0, 1);
  const int queries = round_up(int(p.max_seqlen_q), step_queries);
  float *lse = memory->lse(), *delta = memory->delta(queries);
  float4* sums = memory->sums(queries) + thread;
  PhiloxStream stream;
  if constexpr (dropout) stream = random_stream(p.dropout);
  const auto load = [&](int query, int stage) {
    const int count = sequence.nq - query;
    load_tile<T, D, threads, step_queries>(memory->stage[stage].queries, row_pointer<T>(p.q, sequence.first_q + query, head), p.q.row_stride, count, p.dim);
    load_tile<T, D, threads, step_queries>(memory->stage[stage].grads, row_pointer<T>(p.grad, sequence.first_q + query, head), p.grad.row_stride, count, p.dim);
    copy_async_commit();
  };

#pragma unroll 1
  for (int key0 = 0; key0 < sequence.nk; key0 += block_keys) {
    const bool first = key0 == 0, last = key0 + block_keys >= sequence.nk;
    const int keys = min(block_keys, sequence.nk - key0), own_key = 16 * warp;
    const bool active = own_key < keys;
    const typename KeyRows<T, D, dropout>::Place at = {p, sequence, head, key0 + own_key};
    KeyRows<T, D, dropout> own;
    own.clear();
    Statistics<T> next;
    if (!first) __syncthreads();   // everybody has read the last keys
    if (sequence.nq > 0) {
      load_tile<T, D, threads, block_keys>(memory->keys, row_pointer<T>(p.k, sequence.first_k + key0, head), p.k.row_stride, keys, p.dim);
      load_tile<T, D, threads, block_keys>(memory->values, row_pointer<T>(p.v, sequence.first_k + key0, head), p.v.row_stride, keys, p.dim);
      copy_async_commit();
      load(0, 0);
      if (first) {
        next.read(p, sequence, head, 0);
        clear_padding<T>(p, head, b, int(gridDim.x) / p.heads);   // while the copies are on their way
      }
      copy_async_wait<1>();
      __syncthreads();
      own.start(memory->keys, memory->values, own_key);
    }
#pragma unroll 1
    for (int query = 0, stage = 0; query < sequence.nq; query += step_queries, stage ^= 1) {
      if (first) next.write(lse + query, delta + query, 1.f / p.dropout.scale);
      copy_async_wait<0>();
      __syncthreads();   // this stage is there for all, and nobody reads the other, or dS, any more
      if (query + step_queries < sequence.nq) {
        load(query + step_queries, stage ^ 1);
        if (first) next.read(p, sequence, head, query + step_queries);
      }
      const auto& now = memory->stage[stage];
      if (active) own.step(now.queries, now.grads, lse + query, delta + query, query, sequence.nq - query, at, stream, memory->draws[warp], memory->score_gradients, own_key);
      __syncthreads();   // dS is there

      const int row = 16 * (warp % 4), side = warp / 4;
      if (query + row >= sequence.nq) continue;
      float sum[1][D / 16][4] = {};
      float4* place = sums + query / step_queries * (D / 16) * threads;
      if (!first) {
#pragma unroll
        for (int n = 0; n < D / 16; ++n) {
          const float4 x = place[n * threads];
          sum[0][n][0] = x.x, sum[0][n][1] = x.y, sum[0][n][2] = x.z, sum[0][n][3] = x.w;
        }
      }
#pragma unroll 2
      for (int key = 0; key < keys; key += 16) {
        uint32_t ds[1][4];
        load_a_transposed<step_queries>(ds[0], memory->score_gradients, key, warp % 4);
        multiply_rows<T, D>(sum, ds, memory->keys, key, side * (D / 32));
      }
      if (last) store_gradient<T>(p.dq, p, sequence.first_q + query + row, head, sum[0], p.scale * p.dropout.scale, sequence.nq - query - row, side * (D / 2));
      else {
#pragma unroll
        for (int n = 0; n < D / 16; ++n) place[n * threads] = make_float4(sum[0][n][0], sum[0][n][1], sum[0][n][2], sum[0][n][3]);
      }
    }
    if (active) own.finish(at);
  }
}

}  // namespace

int64_t backward_resident_shared(const AttentionBackward& p) { return Memory<__half>::bytes(p); }

cudaError_t launch_backward_resident(const AttentionBackward& p, cudaStream_t stream) {
  return dispatch_16_bit(p.type, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto kernel = has_dropout(p) ? attention_backward_resident<T, true> : attention_backward_resident<T, false>;
    return ELECTRA_LAUNCH(kernel, dim3(blocks_of_heads(p)), dim3(Config::threads), backward_resident_shared(p), stream, p);
  });
}

}  // namespace electra::cuda
