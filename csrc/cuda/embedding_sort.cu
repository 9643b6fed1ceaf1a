// Stable radix sort of token indices by id, least significant digit first. A pass is two kernels over tiles of tokens, a block each:
//   count: how many tokens of the tile have each digit;
//   place: where each digit of this tile begins (all smaller digits, then the same digit in earlier tiles: at most 64 x 256 counts, read by every block)
//          and the tokens, in order, to their places.
// Traffic: 8 bytes of id, then 8 of (key, token) read and written a pass: nothing beside the rows that follow. Integers only; shared counters are added to by
// one thread of a warp for each digit, so that ids that are all alike (token types) cost no more.
#include "cuda/embedding_scatter.h"
#include "cuda/portable.h"
#include "cuda/reduce.cuh"

namespace electra::cuda {
namespace {

constexpr int threads = radix, warps = threads / 32;   // a thread for each digit

struct Entry { int key, token; };

// Entry i of what a pass reads.
__device__ __forceinline__ Entry read(const ScatterTable& table, int pass, int i) {
  if (pass > 0) return {table.keys[(pass - 1) % 2][i], table.order[(pass - 1) % 2][i]};
  const int64_t id = table.ids[i];
  return {id >= 0 && id < table.rows && id != table.skip ? int(id) : table.rows, i};
}

__device__ __forceinline__ int digit_of(int key, int pass) { return key >> radix_bits * pass & (radix - 1); }

// The lanes that take part and have this lane's digit. All lanes must call.
__device__ __forceinline__ unsigned lanes_alike(int digit, bool takes_part) {
  unsigned alike = __ballot_sync(full_warp, takes_part);
#pragma unroll
  for (int bit = 0; bit < radix_bits; ++bit) {
    const bool set = digit >> bit & 1;
    const unsigned votes = __ballot_sync(full_warp, set);
    alike &= set ? votes : ~votes;
  }
  return alike;
}

__device__ __forceinline__ int lanes_before(unsigned lanes) { return __popc(lanes & ((1u << threadIdx.x % 32) - 1u)); }

__global__ void __launch_bounds__(threads) count_kernel(const EmbeddingScatter scatter, const int pass) {
  __shared__ int counts[radix];
  const ScatterTable& table = scatter.tables[blockIdx.y];
  if (pass >= table.passes) return;
  counts[threadIdx.x] = 0;
  __syncthreads();
  const int end = min((int(blockIdx.x) + 1) * scatter.tile, scatter.tokens);
  for (int first = blockIdx.x * scatter.tile; first < end; first += threads) {
    const bool live = first + int(threadIdx.x) < end;
    const int digit = live ? digit_of(read(table, pass, first + threadIdx.x).key, pass) : 0;
    const unsigned alike = lanes_alike(digit, live);
    if (live && lanes_before(alike) == 0) atomicAdd(&counts[digit], __popc(alike));
  }
  __syncthreads();
  table.counts[blockIdx.x * radix + threadIdx.x] = counts[threadIdx.x];
}

// Sum over the threads before this one. `shared`: warps ints.
__device__ __forceinline__ int sum_before(int x, int* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int total = x;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(full_warp, total, offset);
    if (lane >= offset) total += other;
  }
  if (lane == 31) shared[warp] = total;
  __syncthreads();
  int before = total - x;
#pragma unroll
  for (int w = 0; w < warps; ++w) before += w < warp ? shared[w] : 0;
  return before;
}

__global__ void __launch_bounds__(threads) place_kernel(const EmbeddingScatter scatter, const int pass) {
  __shared__ int place[warps][radix];   // of a warp's tokens with each digit: how many, then where the first goes
  __shared__ int shared[warps];
  const ScatterTable& table = scatter.tables[blockIdx.y];
  if (pass >= table.passes) return;
  int total = 0, earlier = 0;
#pragma unroll 8
  for (int tile = 0; tile < scatter.tiles; ++tile) {
    const int count = table.counts[tile * radix + threadIdx.x];
    total += count;
    earlier += tile < int(blockIdx.x) ? count : 0;
  }
  int next = sum_before(total, shared) + earlier;   // where the tile's next token with digit threadIdx.x goes

  const int warp = threadIdx.x / 32, end = min((int(blockIdx.x) + 1) * scatter.tile, scatter.tokens);
  for (int first = blockIdx.x * scatter.tile; first < end; first += threads) {
#pragma unroll
    for (int w = 0; w < warps; ++w) place[w][threadIdx.x] = 0;
    __syncthreads();
    const bool live = first + int(threadIdx.x) < end;
    const Entry entry = live ? read(table, pass, first + threadIdx.x) : Entry{};
    const int digit = digit_of(entry.key, pass);
    const unsigned alike = lanes_alike(digit, live);
    const int before = lanes_before(alike);
    if (live && before == 0) place[warp][digit] = __popc(alike);
    __syncthreads();
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      const int count = place[w][threadIdx.x];
      place[w][threadIdx.x] = next;
      next += count;
    }
    __syncthreads();
    if (live) {
      const int to = place[warp][digit] + before;
      table.keys[pass % 2][to] = entry.key;
      table.order[pass % 2][to] = entry.token;
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t embedding_sort(const EmbeddingScatter& scatter, cudaStream_t stream) {
  int passes = 1;
  for (const ScatterTable& table : scatter.tables) passes = table.passes > passes ? table.passes : passes;
  const dim3 grid(scatter.tiles, embedding_tables);
  for (int pass = 0; pass < passes; ++pass) {
    if (const cudaError_t error = ELECTRA_LAUNCH(count_kernel, grid, threads, 0, stream, scatter, pass); error != cudaSuccess) return error;
    if (const cudaError_t error = ELECTRA_LAUNCH(place_kernel, grid, threads, 0, stream, scatter, pass); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace electra::cuda
