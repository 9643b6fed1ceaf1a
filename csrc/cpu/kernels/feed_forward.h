// feed_forward: y = gelu(x W1ᵀ + b1) W2ᵀ and its gradients, for training: a block of rows goes through both products while what lies between them is in cache.
//
// Forward leaves u = x W1ᵀ + b1 for backward, and not gelu(u), which is made again. Backward goes, for a block of rows, from dy to dg = dy W2, du = dg gelu'(u) and
// dx = du W1, and lays x, dy, gelu(u) and du out by tokens, as the products over tokens want them (panels.h): dW1 = duᵀ x, dW2 = dyᵀ gelu(u), db1 = Σ du.
#pragma once
#include <stdint.h>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// Activations of `type`, rows contiguous: x, dx [tokens, in]; u [tokens, middle]; y, dy [tokens, out]. Weights as panels (panels.h).
struct FeedForward {
  DType type;
  int64_t tokens, in, middle, out;
  const void* x;
  const float* bias;             // [middle]
  // forward: panels of outputs of W1 and W2
  const void *first, *second;
  void *u, *y;
  // backward: panels of columns of W1 and W2; and, written, panels over tokens
  const void *first_columns, *second_columns, *saved, *dy;
  void *dx, *x_panels, *dy_panels, *gelu_panels, *du_panels;
};

struct FeedForwardKernels {
  // Rows of a block: what they take in between stays in the second-level cache; even, so that a pair of tokens lies in one block.
  int64_t (*most_rows)(const FeedForward&);
  int64_t (*bytes)(const FeedForward&, int64_t rows);
  void (*forward)(const FeedForward&, int64_t begin, int64_t end, void* memory);
  void (*backward)(const FeedForward&, int64_t begin, int64_t end, void* memory);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(FeedForwardKernels, feed_forward_kernels)
