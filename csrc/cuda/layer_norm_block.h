// layer_norm for the rows that fit no warp: longer than 1024, or not made of aligned 16-byte pieces. csrc/cuda/layer_norm_block.cu
#pragma once
#include "cuda/layer_norm.h"

namespace electra::cuda {

cudaError_t layer_norm_forward_block(const LayerNormForward& call, cudaStream_t stream);
cudaError_t layer_norm_backward_block(const LayerNormBackward& call, cudaStream_t stream);

}  // namespace electra::cuda
