// layer_norm: sum = residual + dropout(x + x_bias), y = (sum - mean) rstd weight + bias. One sweep forward, one sweep backward.
#pragma once
#include <stdint.h>

#include "common/philox.h"
#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// Activations [rows, n] of one type; parameters, mean and rstd in the accumulation type.
struct LayerNormForward {
  DType type;
  const void *x, *x_bias, *residual;   // x_bias and residual may be null
  const void *weight, *bias;
  double eps;
  Dropout dropout;
  void *y, *sum, *mean, *rstd;         // sum is null where it would equal x
  int64_t n;
  bool stream;                         // write y and sum past the caches; their rows must be aligned to 64 bytes
};

struct LayerNormBackward {
  DType type;
  const void *grad, *sum, *mean, *rstd, *weight;
  Dropout dropout;
  void *dx, *dresidual;                // dx is null without dropout: it would equal dresidual
  int64_t n;
  bool stream;                         // as above, of dx and dresidual
};

struct LayerNormKernels {
  int64_t (*scratch)(DType type, int64_t n);   // bytes of scratch that a call needs, to be aligned to 64
  void (*forward)(const LayerNormForward& call, int64_t begin, int64_t end, void* scratch);
  // dweight, dbias and dx_bias [n] in the accumulation type receive the sums over rows [begin, end); dx_bias may be null.
  void (*backward)(const LayerNormBackward& call, int64_t begin, int64_t end, void* dweight, void* dbias, void* dx_bias, void* scratch);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(LayerNormKernels, layer_norm_kernels)
