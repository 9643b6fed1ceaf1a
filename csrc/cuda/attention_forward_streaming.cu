// Attention forward, class (c): any lengths, cross-attention, causal. A block owns 128 queries of one head and streams the keys, 64 at a time: while one pair of tiles
// is computed with, the next is on its way.
//
// Per block and 64 keys: 4 * 128 * 64 * D FLOP against 256 * D bytes from L2 (K and V of a sequence are read once per 128 queries).
#include "cuda/attention_config.cuh"
#include "cuda/attention_forward.cuh"

namespace electra::cuda {
namespace {

template <int D> using Config = attention_config::Streaming<D>;
constexpr int block_queries = attention_config::streaming_queries;

template <class T, int D, bool dropout> using Rows = QueryRows<T, D, Config<D>::row_tiles, dropout>;

template <class T, int D, bool dropout> struct Memory {
  T queries[block_queries * D];
  T keys[Config<D>::stages][keys_of_step * D], values[Config<D>::stages][keys_of_step * D];
  typename Rows<T, D, dropout>::Draws draws[dropout ? Config<D>::warps : 1];
};

template <class T, int D, bool dropout>
__global__ void __launch_bounds__(Config<D>::threads, Config<D>::blocks) attention_forward_streaming(const AttentionForward p) {
  constexpr int threads = Config<D>::threads;
  using Memory = Memory<T, D, dropout>;
  ELECTRA_DYNAMIC_SHARED(Memory, memory);
  const int head = int(blockIdx.y), warp = int(threadIdx.x) / 32;
  const TileOfSequence tile(p.cu_seqlens_q, p.batch, block_queries, int(blockIdx.x));
  const Sequence sequence(p, tile.sequence);
  const int row0 = tile.tile * block_queries;
  if (row0 >= sequence.nq) return clear_padding<T>(p, head, int(blockIdx.x), int(gridDim.x));
  const int rows = min(block_queries, sequence.nq - row0);
  const int keys = sequence.visible_keys(row0 + rows - 1, p.causal);   // of the last query: the most any here sees

  const auto load = [&](int key, int stage) {
    const int count = sequence.nk - key;
    load_tile<T, D, threads, keys_of_step>(memory->keys[stage], row_pointer<T>(p.k, sequence.first_k + key, head), p.k.row_stride, count, p.dim);
    load_tile<T, D, threads, keys_of_step>(memory->values[stage], row_pointer<T>(p.v, sequence.first_k + key, head), p.v.row_stride, count, p.dim);
    copy_async_commit();
  };
  load_tile<T, D, threads, block_queries>(memory->queries, row_pointer<T>(p.q, sequence.first_q + row0, head), p.q.row_stride, rows, p.dim);
  copy_async_commit();
  load(0, 0);
  clear_padding<T>(p, head, int(blockIdx.x), int(gridDim.x));   // while the copies are on their way
  PhiloxStream stream;
  if constexpr (dropout) stream = random_stream(p.dropout);
  const float factor = exponent_factor(p.scale);
  const int own_row = 16 * Config<D>::row_tiles * warp;   // in the tile
  const bool active = own_row < rows;
  auto& draws = memory->draws[dropout ? warp : 0];
  copy_async_wait<1>();
  __syncthreads();
  Rows<T, D, dropout> own;
  own.start(memory->queries, own_row, p.scale);
#pragma unroll 1
  for (int key = 0, stage = 0; key < keys; key += keys_of_step, stage ^= 1) {
    const typename Rows<T, D, dropout>::Place at = {p, sequence, head, row0 + own_row, key};
    if (active) own.draw(draws, at, stream);
    copy_async_wait<0>();
    __syncthreads();   // these tiles are there for all, and nobody computes with the others any more
    if (key + keys_of_step < keys) load(key + keys_of_step, stage ^ 1);
    if (active) own.step(memory->keys[stage], memory->values[stage], at, factor, draws);
  }
  if (active) own.finish({p, sequence, head, row0 + own_row, 0});
}

}  // namespace

int64_t forward_streaming_shared(const AttentionForward& p) {
  return dispatch_attention(p, [](auto type, auto dim, auto dropout) {
    return int64_t(sizeof(Memory<typename decltype(type)::type, decltype(dim)::value, decltype(dropout)::value>));
  });
}

cudaError_t launch_forward_streaming(const AttentionForward& p, cudaStream_t stream) {
  return dispatch_attention(p, [&](auto type, auto dim, auto dropout) {
    constexpr int D = decltype(dim)::value;
    return ELECTRA_LAUNCH((attention_forward_streaming<typename decltype(type)::type, D, decltype(dropout)::value>), blocks_of_tiles(p, p.rows_q, block_queries),
                          dim3(Config<D>::threads), forward_streaming_shared(p), stream, p);
  });
}

}  // namespace electra::cuda
