// embedding: y = dropout(LN(word[id] + position[p] + token_type[t])), and the sums of rows that its backward is made of.
#pragma once
#include <stdint.h>

#include "common/philox.h"
#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// What forward and backward look up. ids are int64 [rows], already checked against the tables; the tables are of one type.
struct EmbeddingInputs {
  DType type, table_type;              // of the activations, of the three tables
  const int64_t *input_ids, *position_ids, *token_type_ids;
  const void *word, *position, *token_type;
  const void *weight, *bias;           // [n], accumulation type
  Dropout dropout;
  int64_t n;
};

struct EmbeddingKernels {
  int64_t (*scratch)(DType type, int64_t n);   // bytes of scratch that a call needs, to be aligned to 64
  void (*forward)(const EmbeddingInputs& in, double eps, void* y, void* mean, void* rstd, int64_t begin, int64_t end, void* scratch);
  // dsum [rows, n] receives the gradient of the sum of the three rows; dweight and dbias [n] the sums over rows [begin, end). All in the accumulation type.
  void (*backward)(const EmbeddingInputs& in, const void* grad, const void* mean, const void* rstd, void* dsum, void* dweight, void* dbias, int64_t begin, int64_t end,
                   void* scratch);
  // out [n] = sum over k < count of rows[index[k]] (rows[k] where index is null), in that order, columns [0, n). rows are of accumulation type `accumulate`.
  void (*sum_rows)(DType accumulate, DType out_type, const void* rows, const int64_t* index, int64_t count, int64_t n, void* out);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(EmbeddingKernels, embedding_kernels)
