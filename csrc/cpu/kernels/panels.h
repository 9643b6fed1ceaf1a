// Factors of products as panels, for training: weights laid out anew in every call, which costs a few percent of the product, and activations laid out by tokens.
//
// A panel is 64 columns, read front to back once for every tile of six rows (packed_linear.h):
//   x Wᵀ   rows of x                times panels of Wᵀ (64 outputs, depth `in`)
//   g W    rows of g                times panels of W  (64 inputs, depth `out`)
//   gᵀ x   columns of g, as rows,   times panels of x  (64 inputs, depth tokens); both laid out by tokens first
#pragma once
#include <stdint.h>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

struct PanelKernels {
  int64_t panel_columns;
  // Bytes of a panel of so much depth, for products of factors of `type`.
  int64_t (*panel_bytes)(DType type, int64_t depth);
  // Columns [panel · panel_columns, …) of Wᵀ or of W: weight [out, in]. rows: columns of x [count, columns] over its rows.
  void (*pack_outputs)(DType type, const void* weight, int64_t out, int64_t in, int64_t panel, void* words);
  void (*pack_columns)(DType type, const void* x, int64_t count, int64_t columns, int64_t panel, void* words);
  // Rows of panel `row_panel` and columns of panels [first, last) of dW [out, in] of `gradient` type, from both factors' panels over `tokens`.
  int64_t (*weight_bytes)(int64_t panels);
  void (*weight)(DType type, const void* grad_panels, const void* x_panels, int64_t tokens, int64_t out, int64_t in, int64_t row_panel, int64_t first, int64_t last, DType gradient,
                 void* dweight, void* memory);
  // Sums over the tokens of panel `panel` of g's panels, into db.
  void (*bias)(DType type, const void* grad_panels, int64_t tokens, int64_t out, int64_t panel, float* dbias);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(PanelKernels, panel_kernels)
