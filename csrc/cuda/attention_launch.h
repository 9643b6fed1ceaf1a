// The launchers of the attention kernels, one per class and direction, and the choice of their template parameters. Which one runs: attention.cu.
#pragma once
#include <type_traits>

#include "cuda/attention.h"
#include "cuda/types.cuh"

namespace electra::cuda {

cudaError_t launch_forward_short(const AttentionForward& p, cudaStream_t stream);
cudaError_t launch_forward_resident(const AttentionForward& p, cudaStream_t stream);
cudaError_t launch_forward_streaming(const AttentionForward& p, cudaStream_t stream);
cudaError_t launch_forward_hopper(const AttentionForward& p, cudaStream_t stream);
cudaError_t launch_backward_short(const AttentionBackward& p, cudaStream_t stream);
cudaError_t launch_backward_resident(const AttentionBackward& p, cudaStream_t stream);
cudaError_t launch_backward_streaming(const AttentionBackward& p, cudaStream_t stream);
cudaError_t launch_backward_short_hopper(const AttentionBackward& p, cudaStream_t stream);
cudaError_t launch_backward_hopper(const AttentionBackward& p, cudaStream_t stream);

// The widest head of the one-kernel backward: at 128 it needs more than the 255 registers of a thread.
inline constexpr int backward_short_dim = 96;

// Bytes of shared memory that a block of each would take.
int64_t forward_short_shared(const AttentionForward& p);
int64_t forward_resident_shared(const AttentionForward& p);
int64_t forward_streaming_shared(const AttentionForward& p);
int64_t forward_hopper_shared(const AttentionForward& p);
int64_t backward_short_shared(const AttentionBackward& p);
int64_t backward_resident_shared(const AttentionBackward& p);
int64_t backward_streaming_shared(const AttentionBackward& p);
int64_t backward_short_hopper_shared(const AttentionBackward& p);
int64_t backward_hopper_shared(const AttentionBackward& p);

inline bool has_dropout(const AttentionProblem& p) { return p.dropout.threshold < 256; }

// Call f(TypeTag<T>, integral_constant<int, D>, bool_constant<dropout>): the element type, the narrowest tile that holds the head dimension, dropout or none.
template <class F> auto dispatch_attention(const AttentionProblem& p, F&& f) {
  return dispatch_16_bit(p.type, [&](auto type) {
    const auto with_dim = [&](auto dim) { return has_dropout(p) ? f(type, dim, std::true_type{}) : f(type, dim, std::false_type{}); };
    if (p.dim <= 32) return with_dim(std::integral_constant<int, 32>{});
    if (p.dim <= 64) return with_dim(std::integral_constant<int, 64>{});
    if (p.dim <= 96) return with_dim(std::integral_constant<int, 96>{});
    return with_dim(std::integral_constant<int, 128>{});
  });
}

// Blocks of kernels that give each (sequence, head) one; padding rows are cleared where there is no sequence, too.
inline unsigned blocks_of_heads(const AttentionProblem& p) { return unsigned(p.batch > 0 ? p.batch : 1) * unsigned(p.heads); }

// Blocks of kernels that cut the packed rows into tiles (TileOfSequence).
inline dim3 blocks_of_tiles(const AttentionProblem& p, int64_t rows, int tile) { return dim3(unsigned(rows / tile + (p.batch > 0 ? p.batch : 1)), unsigned(p.heads)); }

}  // namespace electra::cuda
