// mask_tokens: which tokens are chosen, by two kernels with a warp a sequence; the first of them also copies the ids and empties the slots.
//
// The k candidates with the smallest words are found by bisection on the word: 32 rounds of counting at most, some ten in practice, since a round that counts exactly
// k ends it. Any length, no sorting, nothing but counts of integers, so that the result does not depend on any order. Slots follow from a sum over the numbers of the
// sequences before. A few integers a token: bound by latency (three or four trips to L2 and 32 short rounds), not by bandwidth.
#include "common/philox.h"
#include "cuda/dropout.cuh"
#include "cuda/mask_tokens.h"
#include "cuda/portable.h"
#include "cuda/reduce.cuh"
#include "cuda/workspace.h"

namespace electra::cuda {
namespace {

constexpr uint32_t selection_row = 0, decision_row = 1, replacement_row = 2, replacement_decision_block = uint32_t(1) << 31;
constexpr int64_t unused = -100;
constexpr int choose_warps = 4;    // sequences a block; more blocks spread better over the multiprocessors
constexpr int place_warps = 32;    // sequences a block: each block adds up the numbers of all the sequences before its own, so there should be few

struct Scratch {
  uint32_t* words;                 // [tokens]: selection words, largest where a token is no candidate
  int32_t* list;                   // [tokens]: of each sequence, from its first token's place on, the chosen tokens; with replacement all candidates
  int32_t *number, *candidates;    // [sequences]: how many are chosen, or drawn; how many could be
  int64_t bytes;
};

Scratch scratch_of(int64_t tokens, int64_t sequences, void* memory) {
  Workspace w(memory);
  Scratch s{};
  s.words = w.take<uint32_t>(tokens);
  s.list = w.take<int32_t>(tokens);
  s.number = w.take<int32_t>(sequences);
  s.candidates = w.take<int32_t>(sequences);
  s.bytes = w.bytes();
  return s;
}

__device__ __forceinline__ uint32_t word_at(const PhiloxStream& stream, uint32_t row, uint32_t first_block, uint32_t index) {
  return philox_word(philox_draw(stream, row, first_block + index / 4), int(index % 4));
}

__device__ __forceinline__ bool is_candidate(const MaskTokens& call, int64_t id) {
  for (int64_t i = 0; i < call.specials; ++i)
    if (__ldg(call.special_ids + i) == id) return false;
  return true;
}

// Tokens of a sequence: [begin, end).
struct Span { int begin, end; };

__device__ __forceinline__ Span span_of(const MaskTokens& call, int64_t sequence) {
  const int tokens = int(call.tokens);
  const int begin = min(max(call.cu_seqlens[sequence], 0), tokens), end = min(max(call.cu_seqlens[sequence + 1], begin), tokens);
  return {begin, end};
}

__device__ __forceinline__ int number_to_choose(const MaskTokens& call, int length, int candidates) {
  if (length == 0) return 0;
  int64_t k = int64_t(rint(double(length) * call.probability));   // half to even
  if (call.max_per_sequence >= 0 && k > call.max_per_sequence) k = call.max_per_sequence;
  if (k < 1) k = 1;
  return k < candidates ? int(k) : candidates;
}

// Lanes below this one that say yes.
__device__ __forceinline__ int rank_below(uint32_t ballot, int lane) { return __popc(ballot & ((1u << lane) - 1u)); }

// The words below `limit`, and the first `ties` candidates whose word is `limit`, are the k smallest.
struct Cut { uint32_t limit; int ties; };

__device__ __forceinline__ Cut find_cut(const uint32_t* words, Span span, int k, int lane) {
  uint32_t limit = 0;
  int below = 0;
  for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
    const uint32_t trial = limit | bit;
    int count = 0;
    for (int t = span.begin + lane; t < span.end; t += 32) count += words[t] < trial;
    count = __reduce_add_sync(full_warp, count);
    if (count == k) return {trial, 0};
    if (count < k) {
      limit = trial;
      below = count;
    }
  }
  return {limit, k - below};
}

__global__ void __launch_bounds__(32 * choose_warps) choose_kernel(MaskTokens call, Scratch s) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  const int lane = int(threadIdx.x) % 32;
  for (int64_t t = thread; t < call.tokens; t += threads) call.masked_ids[t] = call.input_ids[t];
  for (int64_t p = thread; p < call.max_predictions; p += threads) {
    call.positions[p] = 0;
    call.targets[p] = unused;
  }

  const PhiloxStream stream = random_stream(call.rng, call.site);
  for (int64_t sequence = thread / 32; sequence < call.sequences; sequence += threads / 32) {
    const Span span = span_of(call, sequence);
    int candidates = 0;
    for (int first = span.begin; first < span.end; first += 32) {
      const int t = first + lane;
      const bool candidate = t < span.end && is_candidate(call, call.input_ids[t]);
      const uint32_t ballot = __ballot_sync(full_warp, candidate);
      if (call.with_replacement) {
        if (candidate) s.list[span.begin + candidates + rank_below(ballot, lane)] = t;
      } else if (t < span.end) {
        s.words[t] = candidate ? word_at(stream, selection_row, 0, uint32_t(t)) : 0xffffffffu;
      }
      candidates += __popc(ballot);
    }
    const int k = number_to_choose(call, span.end - span.begin, candidates);
    if (lane == 0) {
      s.number[sequence] = k;
      s.candidates[sequence] = candidates;
    }
    if (call.with_replacement || k == 0) continue;

    // A lane reads the words that it has written itself.
    const Cut cut = find_cut(s.words, span, k, lane);
    int chosen = 0, ties = 0;
    for (int first = span.begin; first < span.end; first += 32) {
      const int t = first + lane;
      const uint32_t word = t < span.end ? s.words[t] : 0xffffffffu;
      const bool tie = cut.ties > 0 && t < span.end && word == cut.limit && is_candidate(call, call.input_ids[t]);
      const uint32_t tie_ballot = __ballot_sync(full_warp, tie);
      const bool take = word < cut.limit || (tie && ties + rank_below(tie_ballot, lane) < cut.ties);
      const uint32_t ballot = __ballot_sync(full_warp, take);
      if (take) s.list[span.begin + chosen + rank_below(ballot, lane)] = t;
      chosen += __popc(ballot);
      ties += __popc(tie_ballot);
    }
  }
}

__global__ void __launch_bounds__(32 * place_warps) place_kernel(MaskTokens call, Scratch s) {
  __shared__ int before[place_warps], own[place_warps];
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int64_t first = int64_t(blockIdx.x) * place_warps, sequence = first + warp;
  int sum = 0;
  for (int64_t b = threadIdx.x; b < first; b += 32 * place_warps) sum += s.number[b];
  sum = __reduce_add_sync(full_warp, sum);
  const int number = sequence < call.sequences ? s.number[sequence] : 0;
  if (lane == 0) {
    before[warp] = sum;
    own[warp] = number;
  }
  __syncthreads();
  int slot = 0;
  for (int i = 0; i < place_warps; ++i) slot += before[i] + (i < warp ? own[i] : 0);

  if (number == 0) return;
  const PhiloxStream stream = random_stream(call.rng, call.site);
  const Span span = span_of(call, sequence);
  const uint32_t row = replacement_row + uint32_t(sequence), candidates = uint32_t(s.candidates[sequence]);
  for (int i = lane; i < number && int64_t(slot) + i < call.max_predictions; i += 32) {
    int t;
    uint32_t decision;
    if (call.with_replacement) {
      t = s.list[span.begin + int(uint64_t(word_at(stream, row, 0, uint32_t(i))) * candidates >> 32)];
      decision = word_at(stream, row, replacement_decision_block, uint32_t(i));
    } else {
      t = s.list[span.begin + i];
      decision = word_at(stream, decision_row, 0, uint32_t(t));
    }
    call.positions[slot + i] = t;
    call.targets[slot + i] = call.input_ids[t];
    if (decision < call.decide && !(call.with_replacement && t == span.begin)) call.masked_ids[t] = call.mask_id;   // several draws may write it, all the same
  }
}

}  // namespace

int64_t mask_tokens_workspace(int64_t tokens, int64_t sequences) { return scratch_of(tokens, sequences, nullptr).bytes; }

cudaError_t mask_tokens(const MaskTokens& call, cudaStream_t stream) {
  if (call.tokens == 0 && call.max_predictions == 0) return cudaSuccess;
  const Scratch s = scratch_of(call.tokens, call.sequences, call.workspace);
  constexpr int64_t threads = 32 * choose_warps, most_blocks = 1 << 20;
  const int64_t elements = call.tokens > call.max_predictions ? call.tokens : call.max_predictions;
  const int64_t wanted = call.sequences * 32 > elements ? call.sequences * 32 : elements, blocks = (wanted + threads - 1) / threads;
  cudaError_t error = ELECTRA_LAUNCH(choose_kernel, dim3(unsigned(blocks < most_blocks ? blocks : most_blocks)), dim3(threads), 0, stream, call, s);
  if (error != cudaSuccess || call.sequences == 0) return error;
  return ELECTRA_LAUNCH(place_kernel, dim3(unsigned((call.sequences + place_warps - 1) / place_warps)), dim3(32 * place_warps), 0, stream, call, s);
}

}  // namespace electra::cuda
