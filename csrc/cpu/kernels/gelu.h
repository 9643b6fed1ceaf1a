// gelu: y = z Φ(z), z = x + bias; one pass forward, one pass backward.
#pragma once
#include <stdint.h>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// Rows [begin, end) of x [rows, n], all activations of `type`. `bias` [n], in the accumulation type, may be null.
struct GeluKernels {
  void (*forward)(DType type, const void* x, const void* bias, void* y, int64_t begin, int64_t end, int64_t n);
  // dbias [n] in the accumulation type receives this block of rows' column sums; null when there is no bias.
  void (*backward)(DType type, const void* grad, const void* x, const void* bias, void* dx, void* dbias, int64_t begin, int64_t end, int64_t n);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(GeluKernels, gelu_kernels)
