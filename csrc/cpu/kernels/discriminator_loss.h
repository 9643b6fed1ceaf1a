// discriminator_loss: logit = hidden · weight + bias, binary cross-entropy summed over the rows that count.
#pragma once
#include <stdint.h>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// hidden [rows, n] of `type`; weight [n] and logits [rows] in the accumulation type; labels and mask [rows] are bytes 0 or 1, mask may be null.
struct DiscriminatorLossKernels {
  // Writes the logits of rows [begin, end) and returns the sum of their losses.
  double (*forward)(DType type, const void* hidden, const void* weight, double bias, const uint8_t* labels, const uint8_t* mask, void* logits, int64_t begin,
                    int64_t end, int64_t n);
  // `grad`: of the summed loss. dweight [n] and dbias [1], in the accumulation type, receive the sums over rows [begin, end).
  void (*backward)(DType type, double grad, const void* hidden, const void* weight, const uint8_t* labels, const uint8_t* mask, const void* logits, void* dhidden,
                   void* dweight, void* dbias, int64_t begin, int64_t end, int64_t n);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(DiscriminatorLossKernels, discriminator_loss_kernels)
