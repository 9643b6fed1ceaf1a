// Attention backward, class (c): any lengths, cross-attention, causal; in two kernels without a sum over blocks. The first owns 128 queries a block, streams the keys and
// writes dq and delta; the second owns 128 keys, streams the queries and writes dk and dv. Scores and dP are computed twice: seven products for five, the price of a
// fixed order of summation without a float32 buffer for dq.
#include "cuda/attention_backward_keys.cuh"
#include "cuda/reduce.cuh"

namespace electra::cuda {
namespace {

// --- dq and delta: rows of scores are queries

template <int D> using QueriesConfig = attention_config::Streaming<D>;
constexpr int block_queries = attention_config::streaming_queries, keys_of_step = 64;

template <class T, int D, bool dropout> struct QueriesMemory {
  using Config = QueriesConfig<D>;
  T queries[block_queries * D], grads[block_queries * D];
  union {
    struct { T keys[keys_of_step * D], values[keys_of_step * D]; } stage[Config::stages];
    struct { T first[2 * keys_of_step * D], out[block_queries * D]; };   // the output, until delta has been made of it: where the second stage goes
  };
  Draws draws[dropout ? Config::warps : 1][2 * Config::row_tiles];
};

// delta of rows group and group+8 of 16: the sum over the columns of dO ∘ O, without the dropout factor's constant.
template <class T, int D> __device__ __forceinline__ void row_deltas(float (&delta)[2], const T* grads, const T* out, int row0, float factor) {
  delta[0] = delta[1] = 0.f;
#pragma unroll
  for (int kk = 0; kk < D / 16; ++kk) {
    uint32_t g[4], o[4];
    load_a<D>(g, grads, row0, kk);
    load_a<D>(o, out, row0, kk);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 x = unpack<T>(g[i]), y = unpack<T>(o[i]);
      delta[i % 2] += x.x * y.x + x.y * y.y;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) delta[half] = warp_sum<4>(delta[half]) * factor;
}

template <class T, int D, bool dropout>
__global__ void __launch_bounds__(QueriesConfig<D>::threads, QueriesConfig<D>::blocks) attention_backward_queries(const AttentionBackward p) {
  constexpr int threads = QueriesConfig<D>::threads, tiles = QueriesConfig<D>::row_tiles;
  using Memory = QueriesMemory<T, D, dropout>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  const int head = int(blockIdx.y), warp = int(threadIdx.x) / 32, lane = lane_of_warp(), group = lane >> 2, t = lane & 3;
  const TileOfSequence tile(p.cu_seqlens_q, p.batch, block_queries, int(blockIdx.x));
  const Sequence sequence(p, tile.sequence);
  const int row0 = tile.tile * block_queries;
  if (row0 >= sequence.nq) return clear_queries<T>(p, head, int(blockIdx.x), int(gridDim.x));
  const int rows = min(block_queries, sequence.nq - row0), own_row = 16 * tiles * warp;
  const int keys = sequence.visible_keys(row0 + rows - 1, p.causal);
  const bool active = own_row < rows;
  PhiloxStream stream;
  if constexpr (dropout) stream = random_stream(p.dropout);

  const auto load = [&](int key, int stage) {
    const int count = sequence.nk - key;
    load_tile<T, D, threads, keys_of_step>(memory->stage[stage].keys, row_pointer<T>(p.k, sequence.first_k + key, head), p.k.row_stride, count, p.dim);
    load_tile<T, D, threads, keys_of_step>(memory->stage[stage].values, row_pointer<T>(p.v, sequence.first_k + key, head), p.v.row_stride, count, p.dim);
    copy_async_commit();
  };
  const AttentionRows out = {p.out, int64_t(p.heads) * p.dim, p.dim};
  load_tile<T, D, threads, block_queries>(memory->grads, row_pointer<T>(p.grad, sequence.first_q + row0, head), p.grad.row_stride, rows, p.dim);
  load_tile<T, D, threads, block_queries>(memory->out, row_pointer<T>(out, sequence.first_q + row0, head), out.row_stride, rows, p.dim);
  load_tile<T, D, threads, block_queries>(memory->queries, row_pointer<T>(p.q, sequence.first_q + row0, head), p.q.row_stride, rows, p.dim);
  copy_async_commit();
  load(0, 0);
  clear_queries<T>(p, head, int(blockIdx.x), int(gridDim.x));   // while the copies are on their way
  copy_async_wait<1>();
  __syncthreads();

  RowOperand<T, D, false> query[tiles], grad[tiles];
  float lse[tiles][2], delta[tiles][2];
#pragma unroll
  for (int m = 0; m < tiles; ++m) {
    query[m].set(memory->queries, own_row + 16 * m);
    grad[m].set(memory->grads, own_row + 16 * m);
    row_deltas<T, D>(delta[m], memory->grads, memory->out, own_row + 16 * m, 1.f / p.dropout.scale);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = own_row + 16 * m + 8 * half + group;
      const int64_t place = head * p.rows_q + sequence.first_q + row0 + row;
      lse[m][half] = base_2(row < rows ? p.lse[place] : -INFINITY);
      if (t == 0 && row < rows) p.delta[place] = delta[m][half];
    }
  }

  const float factor = p.scale * log2_e;
  float dq[tiles][D / 8][4] = {};
#pragma unroll 1
  for (int key = 0, stage = 0; key < keys; key += keys_of_step, stage ^= 1) {
    if constexpr (dropout) {
      __syncwarp();   // the last draws have been read
      if (active) {
#pragma unroll 1
        for (int i = 0; i < 2 * tiles; ++i)
          make_draw(memory->draws[warp][i], stream, uint32_t(sequence.first_q + row0 + own_row + 8 * i + (lane & 7)) * p.heads + head, key / 16 + (lane >> 3));
      }
    }
    copy_async_wait<0>();
    __syncthreads();   // these tiles are there for all, and nobody reads the others any more (nor the output)
    if (key + keys_of_step < keys) load(key + keys_of_step, stage ^ 1);
    if (!active) continue;
    const T *k = memory->stage[stage].keys, *v = memory->stage[stage].values;
    if constexpr (dropout) __syncwarp();   // the draws are there
    const bool hidden = key + keys_of_step > sequence.visible_keys(row0 + own_row, p.causal);
#pragma unroll 2   // all four at once spill
    for (int j = 0; j < 4; ++j) {
      float s[tiles][2][4] = {}, dp[tiles][2][4] = {};
      multiply_columns<T, D>(s, query, k, 16 * j);
      multiply_columns<T, D>(dp, grad, v, 16 * j);
      uint32_t ds[tiles][4], words[2 * tiles];
      if constexpr (dropout) read_draws(words, memory->draws[warp], j);
#pragma unroll
      for (int m = 0; m < tiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int seen = hidden ? sequence.visible_keys(row0 + own_row + 16 * m + 8 * half + group, p.causal) - key - 16 * j - 2 * t : 16;
#pragma unroll
          for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float& x = s[m][n][2 * half + e];
              float d = dp[m][n][2 * half + e];
              x = 8 * n + e < seen ? fast_exp2(x * factor - lse[m][half]) : 0.f;
              if constexpr (dropout) d = int(words[2 * m + half] >> 8 * (2 * e + n) & 255u) < p.dropout.threshold ? d : 0.f;
              x *= d - delta[m][half];
            }
        }
        pack_operand<T>(ds[m], s[m][0], s[m][1]);
      }
      multiply_rows<T, D>(dq, ds, k, 16 * j);
    }
  }
#pragma unroll
  for (int m = 0; m < tiles; ++m)
    if (active) store_gradient<T>(p.dq, p, sequence.first_q + row0 + own_row + 16 * m, head, dq[m], p.scale * p.dropout.scale, rows - own_row - 16 * m);
}

// --- dk and dv: rows of scores are keys

template <int D> using KeysConfig = attention_config::BackwardKeys<D>;

template <class T, int D, bool dropout> struct KeysMemory {
  using Config = KeysConfig<D>;
  T keys[Config::keys * D], values[Config::keys * D];
  struct {
    T queries[Config::queries * D], grads[Config::queries * D];
    float lse[Config::queries], delta[Config::queries];
  } stage[2];
  Draws draws[dropout ? Config::warps : 1];
};

template <class T, int D, bool dropout>
__global__ void __launch_bounds__(KeysConfig<D>::threads, KeysConfig<D>::blocks) attention_backward_keys(const AttentionBackward p) {
  constexpr int threads = KeysConfig<D>::threads, block_keys = KeysConfig<D>::keys, step_queries = KeysConfig<D>::queries;
  using Memory = KeysMemory<T, D, dropout>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  const int head = int(blockIdx.y), warp = int(threadIdx.x) / 32, thread = int(threadIdx.x);
  const TileOfSequence tile(p.cu_seqlens_k, p.batch, block_keys, int(blockIdx.x));
  const Sequence sequence(p, tile.sequence);
  const int key0 = tile.tile * block_keys;
  if (key0 >= sequence.nk) return clear_keys<T>(p, head, int(blockIdx.x), int(gridDim.x));
  const int keys = min(block_keys, sequence.nk - key0), own_key = 16 * warp;
  // The first query that sees the first of these keys, if not all do.
  const int first = p.causal ? max(0, key0 - (sequence.nk - sequence.nq)) / step_queries * step_queries : 0;
  PhiloxStream stream;
  if constexpr (dropout) stream = random_stream(p.dropout);

  float next_lse = 0.f, next_delta = 0.f;   // of one query of the next tile: read early, written to shared memory late
  const auto load = [&](int query, int stage) {
    const int count = sequence.nq - query;
    load_tile<T, D, threads, step_queries>(memory->stage[stage].queries, row_pointer<T>(p.q, sequence.first_q + query, head), p.q.row_stride, count, p.dim);
    load_tile<T, D, threads, step_queries>(memory->stage[stage].grads, row_pointer<T>(p.grad, sequence.first_q + query, head), p.grad.row_stride, count, p.dim);
    copy_async_commit();
    if (thread < step_queries) {
      const int64_t place = head * p.rows_q + sequence.first_q + query + thread;
      next_lse = thread < count ? p.lse[place] : -INFINITY;
      next_delta = thread < count ? p.delta[place] : 0.f;
    }
  };
  load_tile<T, D, threads, block_keys>(memory->keys, row_pointer<T>(p.k, sequence.first_k + key0, head), p.k.row_stride, keys, p.dim);
  load_tile<T, D, threads, block_keys>(memory->values, row_pointer<T>(p.v, sequence.first_k + key0, head), p.v.row_stride, keys, p.dim);
  copy_async_commit();
  load(first, 0);
  clear_keys<T>(p, head, int(blockIdx.x), int(gridDim.x));   // while the copies are on their way

  const bool active = own_key < keys;
  const typename KeyRows<T, D, dropout>::Place at = {p, sequence, head, key0 + own_key};
  KeyRows<T, D, dropout> own;
  own.clear();
  copy_async_wait<1>();
  __syncthreads();
  own.start(memory->keys, memory->values, own_key);
#pragma unroll 1
  for (int query = first, stage = 0; query < sequence.nq; query += step_queries, stage ^= 1) {
    if (thread < step_queries) {
      memory->stage[stage].lse[thread] = base_2(next_lse);
      memory->stage[stage].delta[thread] = next_delta;
    }
    copy_async_wait<0>();
    __syncthreads();   // this stage is there for all, and nobody reads the other any more
    if (query + step_queries < sequence.nq) load(query + step_queries, stage ^ 1);
    const auto& now = memory->stage[stage];
    if (active) own.step(now.queries, now.grads, now.lse, now.delta, query, sequence.nq - query, at, stream, memory->draws[dropout ? warp : 0], static_cast<T*>(nullptr), 0);
  }
  if (active) own.finish(at);
}

}  // namespace

int64_t backward_streaming_shared(const AttentionBackward& p) {
  return dispatch_attention(p, [](auto type, auto dim, auto dropout) {
    using T = typename decltype(type)::type;
    constexpr int64_t queries = sizeof(QueriesMemory<T, decltype(dim)::value, decltype(dropout)::value>), keys = sizeof(KeysMemory<T, decltype(dim)::value, decltype(dropout)::value>);
    return queries > keys ? queries : keys;
  });
}

cudaError_t launch_backward_streaming(const AttentionBackward& p, cudaStream_t stream) {
  return dispatch_attention(p, [&](auto type, auto dim, auto dropout_) {
    using T = typename decltype(type)::type;
    constexpr int D = decltype(dim)::value;
    constexpr bool dropout = decltype(dropout_)::value;
    const cudaError_t error = ELECTRA_LAUNCH((attention_backward_queries<T, D, dropout>), blocks_of_tiles(p, p.rows_q, block_queries), dim3(QueriesConfig<D>::threads),
                                             sizeof(QueriesMemory<T, D, dropout>), stream, p);
    if (error != cudaSuccess) return error;
    return ELECTRA_LAUNCH((attention_backward_keys<T, D, dropout>), blocks_of_tiles(p, p.rows_k, KeysConfig<D>::keys), dim3(KeysConfig<D>::threads),
                          sizeof(KeysMemory<T, D, dropout>), stream, p);
  });
}

}  // namespace electra::cuda
