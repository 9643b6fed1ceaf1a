// encoder on the CPU: checks, allocation, the order of the work. Arithmetic: csrc/cpu/kernels/encoder.cpp and attention.cpp.
//
// A layer is two parallel loops: attention over (sequence, head) and everything else over blocks of rows. Between them threads meet; inside them they do not.
#include "cpu/kernels/encoder.h"

#include <cmath>

#include "cpu/kernels/attention.h"
#include "cpu/tensors.h"
#include "cpu/work_items.h"

namespace electra {
namespace {

constexpr int64_t tensors_per_layer = 8;
constexpr int64_t most_rows = 96;   // of an item: with 768 features and float32 sums, half of a cache of 1 MiB; each weight serves so many rows once it is read

ScalarType packed_type(Operands operands) {
  return operands == Operands::f32 ? ScalarType::Float : operands == Operands::pairs ? ScalarType::BFloat16 : ScalarType::Char;
}
int64_t elements_per_word(Operands operands) { return operands == Operands::f32 ? 1 : operands == Operands::pairs ? 2 : 4; }

Tensor pack_linear(const Tensor& weight_, const std::optional<Tensor>& bias_, ScalarType dtype) {
  ELECTRA_CHECK(weight_.dim() == 2, "pack_linear: weight must have shape [out, in], got ", shape_string(weight_));
  const DType type = dtype_of(weight_, "pack_linear", "weight");
  ELECTRA_CHECK(type != DType::f64, "pack_linear: weight must be float32 or bfloat16");
  const EncoderKernels& kernels = pick_encoder_kernels();
  Operands operands = Operands::bytes;
  if (dtype == ScalarType::Char) {
    ELECTRA_CHECK(kernels.bytes, "pack_linear: int8 needs a processor with AVX-512 VNNI, and its kernels chosen (electra-fast doctor shows which are)");
  } else {
    ELECTRA_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16, "pack_linear: dtype must be float32, bfloat16 or int8");
    operands = kernels.operands(dtype == ScalarType::Float ? DType::f32 : DType::bf16);
  }
  const Tensor weight = dense(weight_);
  const int64_t out = weight.size(0), in = weight.size(1);
  if (bias_) ELECTRA_CHECK(bias_->dim() == 1 && bias_->size(0) == out, "pack_linear: bias must have shape [", out, "], got ", shape_string(*bias_));
  const std::optional<Tensor> bias = parameter_row(bias_, DType::bf16, "pack_linear", "bias");
  const PackedShape shape = kernels.packed_shape(operands, in, out);
  Tensor packed = torch::stable::new_empty(weight, {shape.panels, shape.rows, shape.columns * elements_per_word(operands)}, packed_type(operands));
  const void* from = weight.const_data_ptr();
  const float* bias_data = static_cast<const float*>(data_or_null(bias));
  void* words = packed.mutable_data_ptr();
  for_each_item(shape.panels, in * int64_t(sizeof(float)), [&](int64_t panel, void* memory) {
    kernels.pack_panel(operands, type, from, bias_data, in, out, panel, words, static_cast<float*>(memory));
  });
  return packed;
}

Operands operands_of(const Tensor& packed) {
  switch (packed.scalar_type()) {
    case ScalarType::Float: return Operands::f32;
    case ScalarType::BFloat16: return Operands::pairs;
    case ScalarType::Char: return Operands::bytes;
    default: fail("encoder: parameters[0] must come from pack_linear");
  }
}

// The parameters of all layers, checked: what the kernels read, and what keeps it alive.
struct Layers {
  std::vector<EncoderLayer> list;
  std::vector<Tensor> kept;
  Operands operands = Operands::f32;

  const void* input_projection = nullptr;

  Layers(const std::optional<Tensor>& projection, int64_t inputs, const std::vector<Tensor>& parameters, int64_t hidden, int64_t intermediate) {
    ELECTRA_CHECK(!parameters.empty() && parameters.size() % tensors_per_layer == 0, "encoder: parameters must hold ", tensors_per_layer, " tensors a layer, got ",
                  parameters.size());
    operands = operands_of(parameters[0]);
    if (projection) input_projection = packed(*projection, "projection", inputs, hidden);
    kept.reserve(parameters.size());
    for (size_t i = 0; i < parameters.size(); i += tensors_per_layer) {
      EncoderLayer layer;
      layer.projections = packed(parameters, i, hidden, 3 * hidden);
      layer.attention_output = packed(parameters, i + 1, hidden, hidden);
      layer.attention_norm_weight = vector(parameters, i + 2, hidden);
      layer.attention_norm_bias = vector(parameters, i + 3, hidden);
      layer.intermediate = packed(parameters, i + 4, hidden, intermediate);
      layer.output = packed(parameters, i + 5, intermediate, hidden);
      layer.output_norm_weight = vector(parameters, i + 6, hidden);
      layer.output_norm_bias = vector(parameters, i + 7, hidden);
      list.push_back(layer);
    }
  }

 private:
  const void* packed(const std::vector<Tensor>& parameters, size_t i, int64_t in, int64_t out) {
    return packed(parameters[i], "parameters[" + std::to_string(i) + "]", in, out);
  }

  const void* packed(const Tensor& t, const std::string& argument, int64_t in, int64_t out) {
    const PackedShape s = pick_encoder_kernels().packed_shape(operands, in, out);
    const int64_t columns = s.columns * elements_per_word(operands);
    ELECTRA_CHECK(t.is_cpu() && t.scalar_type() == packed_type(operands) && t.is_contiguous() && t.dim() == 3 && t.size(0) == s.panels && t.size(1) == s.rows && t.size(2) == columns,
                  "encoder: ", argument, " must be pack_linear of a weight [", out, ", ", in, "] and of the same dtype as parameters[0], [", s.panels, ", ", s.rows, ", ",
                  columns, "], got ", shape_string(t));
    return t.const_data_ptr();
  }

  const float* vector(const std::vector<Tensor>& parameters, size_t i, int64_t n) {
    const Tensor& t = parameters[i];
    ELECTRA_CHECK(t.is_cpu() && t.dim() == 1 && t.size(0) == n, "encoder: parameters[", i, "] must have shape [", n, "], got ", shape_string(t));
    kept.push_back(parameter_row(t, DType::bf16, "encoder", "parameters"));
    return static_cast<const float*>(kept.back().const_data_ptr());
  }
};

struct Item { int64_t sequence, head, begin, end; };

Tensor encoder(const Tensor& x_, const Tensor& cu_seqlens_, int64_t max_seqlen, const std::optional<Tensor>& projection, const std::vector<Tensor>& parameters, int64_t hidden, int64_t heads,
               int64_t intermediate_size, double eps) {
  ELECTRA_CHECK(x_.dim() == 2 && (projection || x_.size(1) == hidden), "encoder: x must have shape [tokens, ", projection ? "inputs" : std::to_string(hidden), "], got ", shape_string(x_));
  const Tensor x = dense(x_);
  const int64_t tokens = x.size(0), inputs = x.size(1);
  ELECTRA_CHECK(heads > 0 && hidden % heads == 0, "encoder: heads must divide the hidden size, ", hidden, ", got ", heads);
  ELECTRA_CHECK(intermediate_size > 0, "encoder: intermediate_size must be positive, got ", intermediate_size);
  const DType type = dtype_of(x, "encoder", "x");
  const Layers layers(projection, inputs, parameters, hidden, intermediate_size);
  ELECTRA_CHECK(type == DType::bf16 || (type == DType::f32 && layers.operands != Operands::pairs), "encoder: x must be bfloat16",
                layers.operands == Operands::pairs ? ", as the packed weights are" : " or float32");
  const Tensor cu_seqlens = checked_cu_seqlens(cu_seqlens_, tokens, "encoder", "cu_seqlens");
  const int32_t* starts = static_cast<const int32_t*>(cu_seqlens.const_data_ptr());
  const int64_t batch = cu_seqlens.size(0) - 1;

  Tensor out = torch::stable::new_empty(x, {tokens, hidden});
  if (tokens == 0) return out;
  Tensor projections = torch::stable::new_empty(x, {tokens, 3 * hidden}), context = torch::stable::new_empty(x, {tokens, hidden});
  Tensor lse = torch::stable::new_empty(x, {heads, tokens}, ScalarType::Float);
  const int64_t used = starts[batch], element = type == DType::f32 ? 4 : 2;
  if (used < tokens) std::memset(static_cast<char*>(context.mutable_data_ptr()) + used * hidden * element, 0, size_t((tokens - used) * hidden * element));

  AttentionProblem attention{};
  attention.type = type;
  const char* first = static_cast<const char*>(projections.const_data_ptr());
  const int64_t dim = hidden / heads;
  attention.q = {first, 3 * hidden, dim};
  attention.k = {first + hidden * element, 3 * hidden, dim};
  attention.v = {first + 2 * hidden * element, 3 * hidden, dim};
  attention.heads = heads;
  attention.dim = dim;
  attention.rows_q = tokens;
  attention.cu_seqlens_q = attention.cu_seqlens_k = starts;
  attention.scale = 1.0 / std::sqrt(double(dim));
  attention.threshold = 256;
  attention.out = context.mutable_data_ptr();
  attention.lse = lse.mutable_data_ptr();
  std::vector<Item> items;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = starts[b + 1] - starts[b];
    ELECTRA_CHECK(length <= max_seqlen, "encoder: max_seqlen must be at least ", length, ", the length of a sequence, got ", max_seqlen);
    for (int64_t begin = 0; begin < length; begin += attention_chunk)
      for (int64_t h = 0; h < heads; ++h) items.push_back({b, h, begin, std::min(length, begin + attention_chunk)});
  }
  // The costliest first, so that no thread ends with a long one.
  const auto cost = [&](const Item& t) { return (t.end - t.begin) * int64_t(starts[t.sequence + 1] - starts[t.sequence]); };
  std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) { return cost(a) > cost(b); });

  const void *given = x.const_data_ptr(), *residual = projection ? out.const_data_ptr() : given;   // projected rows lie in `out`
  EncoderRows rows{type, layers.operands, hidden, intermediate_size, float(eps), nullptr, nullptr, context.const_data_ptr(), residual, out.mutable_data_ptr(),
                   projections.mutable_data_ptr(), projection ? given : nullptr, layers.input_projection, inputs};
  const EncoderKernels& kernels = pick_encoder_kernels();
  const AttentionKernels& attention_kernels = pick_attention_kernels();
  const int64_t threads = torch::stable::get_num_threads(), rounds = (tokens + threads * most_rows - 1) / (threads * most_rows);
  const int64_t size = (tokens + threads * rounds - 1) / (threads * rounds);   // the same for all threads
  const auto all_rows = [&] {
    for_each_item((tokens + size - 1) / size, kernels.memory(rows, size),
                  [&](int64_t i, void* memory) { kernels.rows(rows, i * size, std::min(tokens, (i + 1) * size), memory); });
  };
  rows.next = &layers.list[0];
  all_rows();
  for (size_t i = 0; i < layers.list.size(); ++i) {
    for_each_item(int64_t(items.size()), attention_kernels.forward_bytes(type, dim), [&](int64_t j, void* memory) {
      attention_kernels.forward(attention, items[j].sequence, items[j].head, items[j].begin, items[j].end, memory);
    });
    rows.layer = &layers.list[i];
    rows.next = i + 1 < layers.list.size() ? &layers.list[i + 1] : nullptr;
    all_rows();
    rows.residual = out.const_data_ptr();
  }
  return out;
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("pack_linear", TORCH_BOX(&electra::pack_linear));
  m.impl("encoder", TORCH_BOX(&electra::encoder));
}
