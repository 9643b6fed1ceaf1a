// replace_tokens: the samples of each position are added up by integer atomics, which give the same sum in any order; then one pass over the tokens.
//
// Several slots may share a position (masking with replacement), so neither "the slot of a token" nor plain writing would do. Traffic: 12 bytes a token cleared and
// read again, 24 a slot, 17 a token in the last pass: some microseconds, most of them latency.
#include "cuda/portable.h"
#include "cuda/replace_tokens.h"
#include "cuda/workspace.h"

namespace electra::cuda {
namespace {

constexpr int64_t unused = -100;
constexpr int threads = 256;

struct Means {
  unsigned long long* sums;   // [tokens], two's complement
  int* counts;                // [tokens]
  int64_t bytes;
};

Means means_of(int64_t tokens, void* memory) {
  Workspace w(memory);
  Means m{};
  m.sums = w.take<unsigned long long>(tokens);
  m.counts = w.take<int>(tokens);
  m.bytes = w.bytes();
  return m;
}

__global__ void __launch_bounds__(threads) add_samples_kernel(ReplaceTokens call, Means m) {
  const int64_t slot = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (slot >= call.slots || call.targets[slot] == unused) return;
  const int64_t position = call.positions[slot];
  if (position < 0 || position >= call.tokens) return;
  atomicAdd(m.sums + position, static_cast<unsigned long long>(call.sampled[slot]));
  atomicAdd(m.counts + position, 1);
}

__device__ __forceinline__ int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }   // b > 0

__global__ void __launch_bounds__(threads) write_tokens_kernel(ReplaceTokens call, Means m) {
  const int64_t t = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (t >= call.tokens) return;
  const int64_t original = call.input_ids[t];
  const int count = m.counts[t];
  int64_t id = original;
  if (count == 1) id = int64_t(m.sums[t]);
  else if (count > 1) id = floor_divide(int64_t(m.sums[t]), count);
  call.corrupted[t] = id;
  call.labels[t] = id != original;
}

unsigned blocks_for(int64_t n) { return unsigned((n + threads - 1) / threads); }

}  // namespace

int64_t replace_tokens_workspace(int64_t tokens) { return means_of(tokens, nullptr).bytes; }

cudaError_t replace_tokens(const ReplaceTokens& call, cudaStream_t stream) {
  if (call.tokens == 0) return cudaSuccess;
  const Means m = means_of(call.tokens, call.workspace);
  cudaError_t error = cudaMemsetAsync(call.workspace, 0, size_t(m.bytes), stream);
  if (error == cudaSuccess && call.slots > 0) error = ELECTRA_LAUNCH(add_samples_kernel, dim3(blocks_for(call.slots)), dim3(threads), 0, stream, call, m);
  return error != cudaSuccess ? error : ELECTRA_LAUNCH(write_tokens_kernel, dim3(blocks_for(call.tokens)), dim3(threads), 0, stream, call, m);
}

}  // namespace electra::cuda
