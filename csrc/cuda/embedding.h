// embedding on CUDA: the launchers. Formulas, shapes and what may be absent: docs/design.md. Design and figures: docs/notes/cuda-memory-bound-ops.md.
//
// Nothing here can stop for an id outside its table (that would take a wait for the device). Such a row is NaN in y, reads nothing and gives nothing to the
// gradient of the table it missed.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/dropout.h"
#include "cuda/dtype.h"

namespace electra::cuda {

constexpr int64_t embedding_most_columns = 8192;
constexpr int embedding_tables = 3;   // word, position, token_type

// One look-up: data [rows, columns], ids [tokens].
struct EmbeddingTable {
  const void* data;
  int64_t rows;
  const int64_t* ids;
};

struct EmbeddingForward {
  DType type, table_type;   // of y; of the tables: float32 or that of y
  EmbeddingTable tables[embedding_tables];
  Parameter weight, bias;
  float eps;
  Dropout dropout;
  void* y;   // [tokens, columns]
  float *mean, *rstd;
  int64_t tokens;
  int columns;
};

struct EmbeddingBackward {
  DType type, table_type;
  const void* grad;
  EmbeddingTable tables[embedding_tables];
  Parameter weight;
  const float *mean, *rstd;
  Dropout dropout;
  int64_t padding_idx;   // of the first table; -1: none
  void* dtables[embedding_tables];
  ParameterGradient dweight, dbias;
  void* workspace;
  int64_t tokens;
  int columns;
};

cudaError_t embedding_forward(const EmbeddingForward& call, cudaStream_t stream);

// Bytes of call.workspace, which may still be null.
int64_t embedding_backward_workspace(const EmbeddingBackward& call);
cudaError_t embedding_backward(const EmbeddingBackward& call, cudaStream_t stream);

}  // namespace electra::cuda
