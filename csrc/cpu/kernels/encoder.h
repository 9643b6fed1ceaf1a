// encoder: the layers of a post-LN transformer encoder in inference, as two kinds of work items: attention of a head (attention.h), and everything between two
// attentions for a block of rows, which stays in the second-level cache from the projection of the context to the queries, keys and values of the next layer.
#pragma once
#include <stdint.h>

#include "cpu/capability.h"
#include "cpu/kernels/dtype.h"

namespace electra {

// What a product multiplies: floats, pairs of bf16, or four bytes (activations quantised row by row, weights column by column).
enum class Operands { f32, pairs, bytes };

// A linear layer's weight [out, in] and bias, laid out for the product: panels of `columns` outputs, each [rows][columns] words of 32 bits. See pack_linear.
struct PackedShape {
  int64_t panels, rows, columns;
};

struct EncoderLayer {
  const void *projections, *attention_output, *intermediate, *output;   // packed; projections: of queries, keys and values, one below the other
  const float *attention_norm_weight, *attention_norm_bias, *output_norm_weight, *output_norm_bias;
};

// What rows go through between two attentions. `layer` null: before the first, where `input` is projected to `out` if it is there; `next` null: after the last.
struct EncoderRows {
  DType type;   // of the activations: f32 or bf16
  Operands operands;
  int64_t hidden, intermediate;
  float eps;
  const EncoderLayer *layer, *next;
  const void *context, *residual;   // [T, hidden]: what attention gave, and the layer's input (may be `out`)
  void *out, *projections;          // [T, hidden]: the layer's output; [T, 3·hidden]: the next layer's queries, keys, values
  const void *input, *input_projection;   // [T, inputs], and packed weights [hidden, inputs]; or null: the first layer's input is `residual`
  int64_t inputs;
};

struct EncoderKernels {
  Operands (*operands)(DType weight);       // what products with weights of this type are made of here
  bool bytes;                               // whether they can be made of bytes
  PackedShape (*packed_shape)(Operands, int64_t in, int64_t out);
  // Panel `panel` of a weight [out, in] of `type`, bias [out] or null. column: working memory, [in].
  void (*pack_panel)(Operands, DType type, const void* weight, const float* bias, int64_t in, int64_t out, int64_t panel, void* words, float* column);
  int64_t (*memory)(const EncoderRows&, int64_t rows);   // bytes for a call with so many rows, aligned to 64
  void (*rows)(const EncoderRows&, int64_t begin, int64_t end, void* memory);
};

}  // namespace electra

ELECTRA_DECLARE_KERNELS(EncoderKernels, encoder_kernels)
