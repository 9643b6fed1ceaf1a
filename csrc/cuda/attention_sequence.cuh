// Which sequence a block works on.
#pragma once
#include "cuda/attention.h"
#include "cuda/portable.h"

namespace electra::cuda {

struct Sequence {
  int first_q, first_k;   // packed rows
  int nq, nk;

  // Sequence b, or none if there are not so many.
  __device__ __forceinline__ Sequence(const AttentionProblem& p, int b) : first_q(0), first_k(0), nq(0), nk(0) {
    if (b >= p.batch) return;
    first_q = p.cu_seqlens_q[b];
    first_k = p.cu_seqlens_k[b];
    nq = p.cu_seqlens_q[b + 1] - first_q;
    nk = p.cu_seqlens_k[b + 1] - first_k;
    // Memory was planned for the bounds. The host cannot check them without waiting for the device; the CPU's boundary does.
    if (nq < 0 || nk < 0 || nq > p.max_seqlen_q || nk > p.max_seqlen_k || first_q + nq > p.rows_q || first_k + nk > p.rows_k) __trap();
  }

  // Keys that query i sees are those below this.
  __device__ __forceinline__ int visible_keys(int i, bool causal) const { return causal ? max(0, min(nk, i + nk - nq + 1)) : nk; }
};

// Packed rows cut into tiles that never span two sequences: sequence b owns the tiles from cu_seqlens[b] / rows + b on, which are enough for its
// ceil(length / rows) since neighbouring floors differ by no more than one tile less. So `total / rows + batch` blocks serve any lengths, and no bound
// of a sequence's length is needed.
struct TileOfSequence {
  int sequence, tile;   // sequence `batch`: behind the last one

  // All lanes of the warp call.
  __device__ __forceinline__ TileOfSequence(const int32_t* cu_seqlens, int batch, int rows, int index) {
    const int lane = int(threadIdx.x) % 32;
    const auto first_tile = [&](int b) { return cu_seqlens[b] / rows + b; };
    int low = 0, high = batch + 1;   // first_tile(low) <= index, and first_tile(high) > index where high <= batch
    while (high - low > 1) {
      const int step = (high - low + 31) / 32, probe = low + lane * step;
      const unsigned below = __ballot_sync(0xffffffffu, probe < high && first_tile(min(probe, batch)) <= index);
      low += (__popc(below) - 1) * step;
      high = min(high, low + step);
    }
    sequence = low;
    tile = index - first_tile(low);
  }
};

}  // namespace electra::cuda
