// embedding for the rows that fit no warp: longer than 1024, or not made of aligned 16-byte pieces. csrc/cuda/embedding_block.cu
#pragma once
#include "cuda/embedding.h"
#include "cuda/layer_norm_columns.h"

namespace electra::cuda {

cudaError_t embedding_forward_block(const EmbeddingForward& call, cudaStream_t stream);

// The gradients of the sums of rows, `dsum` [tokens, pitch], and those of weight and bias.
cudaError_t embedding_backward_block(const EmbeddingBackward& call, float* dsum, int pitch, Workspace& memory, cudaStream_t stream);

}  // namespace electra::cuda
