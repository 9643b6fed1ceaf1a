// Tiles of logits: products of rows that stay with a block and rows of another matrix that pass by, both [rows, features] and 16-bit, through shared memory and
// mma.sync. What is done with a tile is a visitor's business: generator_head_forward.cu, generator_head_gradient.cu.
//
// Shared memory holds rows in chunks of 64 features, 128 bytes, with unit u (16 bytes) of row r at u ^ (r % 8): ldmatrix then reads eight rows from eight different
// groups of banks. Chunks of the passing rows come through a ring of `stages`, asked for stages - 1 chunks ahead, also across tiles: one barrier a chunk.
//
// Of the 64 passing rows of a warp's tile, the one at accumulator column 8j + 2t + e is number 16t + 2j + e: a lane then holds 16 neighbours, 64 bytes of floats.
#pragma once
#include "cuda/copy.h"
#include "cuda/generator_head_launch.h"
#include "cuda/mma.h"
#include "cuda/reduce.cuh"
#include "cuda/types.cuh"

namespace electra::cuda {

// d[i][j][2h + e] belongs to row 16i + 8h + lane/4 and passing row 16 * (lane%4) + 2j + e of the warp's tile.
using LogitTile = float[4][8][4];

// A lane holds pieces of eight rows of its warp's tile, and keeps what belongs to a whole row for two of them: 16 * (lane%4) + lane/4, and 8 further down.
__device__ __forceinline__ int own_row(int lane, int h) { return 16 * (lane % 4) + 8 * h + lane / 4; }

// The value that the owner of row 16i + 8h + lane/4 keeps for h. All lanes call.
template <class V> __device__ __forceinline__ V from_owner(V kept, int lane, int i) { return __shfl_sync(full_warp, kept, (lane & ~3) + i); }

// Rows [first, end) of a dense matrix; those at and behind `end` read as zeros.
template <class T> struct MatrixRows {
  const T* data;
  int first, end;
};

// Asks for one chunk of `rows` rows from row `first` of a matrix; with `permuted`, 64 rows in the order above.
template <int rows, int threads, bool permuted, class T>
__device__ __forceinline__ void load_chunk(unsigned char* chunk, const T* data, int first, int end, int features, int first_feature) {
  constexpr int step = threads / 8;   // rows that the block asks for at once
  static_assert(step % 8 == 0 && rows % step == 0 && (!permuted || rows == 64));
  const int unit = int(threadIdx.x) % 8, r = int(threadIdx.x) / 8, feature = first_feature + 8 * unit;
  const int row = first + (permuted ? r % 8 / 2 * 16 + r / 8 * 2 + r % 2 : r), left = feature < features ? end - row : 0;
  const T* from = data + int64_t(row) * features + feature;
  unsigned char* to = chunk + r * 128 + ((unit ^ r % 8) << 4);
  constexpr int down = permuted ? step / 4 : step;   // rows of the matrix from one to the next
#pragma unroll
  for (int i = 0; i < rows / step; ++i) {
    copy_async_16(to + i * step * 128, from, i * down < left);
    from += int64_t(down) * features;
  }
}

// d += (64 rows of a) (64 rows of b)ᵀ over one chunk.
template <class T> __device__ __forceinline__ void multiply_chunk(LogitTile& d, const unsigned char* a, const unsigned char* b, int lane) {
  const int a_at = lane % 16 * 128 + ((lane / 16 ^ lane % 8) << 4), b_at = (lane % 8 + lane / 16 * 8) * 128 + ((lane / 8 % 2 ^ lane % 8) << 4);
#pragma unroll
  for (int k = 0; k < chunk_features / 16; ++k) {
    uint32_t fa[4][4], fb[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) ldmatrix_x4(fa[i], a + (a_at ^ k << 5) + i * 16 * 128);
#pragma unroll
    for (int j = 0; j < 4; ++j) ldmatrix_x4(fb[j], b + (b_at ^ k << 5) + j * 16 * 128);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        mma_m16n8k16<T>(d[i][2 * j], fa[i], fb[j][0], fb[j][1]);
        mma_m16n8k16<T>(d[i][2 * j + 1], fa[i], fb[j][2], fb[j][3]);
      }
  }
}

// First passing row of a column half's 64 in a tile, when a half takes `run` groups of 64 one after another before it leaves `run` to the other half.
template <int run> __device__ __forceinline__ int first_of_group(int tile, int half) { return group_columns * (tile / run * 2 * run + half * run + tile % run); }

// Visits the tiles [first_tile, last_tile), in order: visitor.begin(tile, side) fills the accumulators, visitor.end(tile, side, number) uses the product added to
// them. `side` are the entries of `sides` of the warp's 64 passing rows; sides[i] belongs to row passing.first + i and must exist for every row of every tile.
template <int variant, int run, class T, class Side, class Visitor>
__device__ __forceinline__ void sweep(const MatrixRows<T>& staying, const MatrixRows<T>& passing, const Side* sides, int features, int first_tile, int last_tile, unsigned char* shared,
                                      Visitor& visitor) {
  using S = Sweep<variant>;
  constexpr int threads = S::threads, rows = S::rows, stages = S::stages, row_bytes = S::row_bytes;
  const int thread = int(threadIdx.x), lane = thread % 32, warp_row = thread / 32 % S::warps_m, half = thread / 32 / S::warps_m;
  const int chunks = (features + chunk_features - 1) / chunk_features, places = sides_in_flight(stages, chunks);
  unsigned char* const ring = shared + (S::resident ? chunks * row_bytes : 0);
  Side* const side_ring = reinterpret_cast<Side*>(ring + stages * S::stage_bytes);

  // The next chunk to ask for.
  int ask_tile = first_tile;
  int ask_chunk = 0, ask_stage = 0, ask_place = 0;
  const auto ask = [&] {
    if (ask_tile < last_tile) {
      unsigned char* stage = ring + ask_stage * S::stage_bytes;
      if constexpr (!S::resident) {
        load_chunk<rows, threads, false>(stage, staying.data, staying.first, staying.end, features, ask_chunk * chunk_features);
        stage += row_bytes;
      }
      const int first = first_of_group<run>(ask_tile, 0), second = first_of_group<run>(ask_tile, 1);
      load_chunk<64, threads, true>(stage, passing.data, passing.first + first, passing.end, features, ask_chunk * chunk_features);
      load_chunk<64, threads, true>(stage + 64 * 128, passing.data, passing.first + second, passing.end, features, ask_chunk * chunk_features);
      if (ask_chunk == 0) {
        constexpr int units = sweep_columns * int(sizeof(Side)) / 16, units_of_half = units / 2;
        static_assert(units <= threads);
        if (thread < units)
          copy_async_16(reinterpret_cast<unsigned char*>(side_ring + ask_place * sweep_columns) + thread * 16,
                        reinterpret_cast<const unsigned char*>(sides + (thread < units_of_half ? first : second)) + thread % units_of_half * 16, true);
        ask_place = ask_place + 1 == places ? 0 : ask_place + 1;
      }
      ask_stage = ask_stage + 1 == stages ? 0 : ask_stage + 1;
      if (++ask_chunk == chunks) {
        ask_chunk = 0;
        ++ask_tile;
      }
    }
    copy_async_commit();
  };

  if constexpr (S::resident)
    for (int c = 0; c < chunks; ++c) load_chunk<rows, threads, false>(shared + c * row_bytes, staying.data, staying.first, staying.end, features, c * chunk_features);
  for (int i = 0; i < stages - 1; ++i) ask();

  LogitTile d;
  int stage = 0, place = 0;
  for (int tile = first_tile; tile < last_tile; ++tile) {
    const Side* side = side_ring + place * sweep_columns + half * 64;
    for (int c = 0; c < chunks; ++c) {
      copy_async_wait<stages - 2>();
      __syncthreads();   // this chunk is there, and every warp is done with the one before it, whose stage is asked for again
      ask();
      if (c == 0) visitor.begin(d, side);
      const unsigned char* in = ring + stage * S::stage_bytes;
      const unsigned char* a = S::resident ? shared + c * row_bytes : in;
      multiply_chunk<T>(d, a + warp_row * 64 * 128, in + (S::resident ? 0 : row_bytes) + half * 64 * 128, lane);
      stage = stage + 1 == stages ? 0 : stage + 1;
    }
    visitor.end(d, side, tile);
    place = place + 1 == places ? 0 : place + 1;
  }
}

}  // namespace electra::cuda
