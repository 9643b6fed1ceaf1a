// embedding on CUDA: the torch boundary. Kernels: csrc/cuda/embedding_*.cu.
#include "cuda/embedding.h"

#include "cuda/bindings/tensors.h"

namespace electra::cuda::bindings {
namespace {

constexpr int64_t most_tokens = int64_t(1) << 30, most_table_rows = int64_t(1) << 30;   // indices of the backward's sort are int32

const Tensor& checked_table(const Tensor& t, const Tensor& word, const char* op, const char* argument) {
  ELECTRA_CHECK(t.dim() == 2 && t.size(1) > 0, op, ": ", argument, " must have shape [rows, columns], got ", shape_string(t));
  ELECTRA_CHECK(t.size(0) <= most_table_rows, op, ": ", argument, " must have at most ", most_table_rows, " rows on CUDA, got ", t.size(0));
  ELECTRA_CHECK(t.size(1) == word.size(1), op, ": ", argument, " must have the columns of word, ", word.size(1), ", got ", t.size(1));
  ELECTRA_CHECK(t.scalar_type() == word.scalar_type(), op, ": ", argument, " must have the dtype of word");
  check_same_device(t, word, op, argument, "word");
  return t;
}

// Values are checked on the CPU only: reading them here would wait for the device.
Tensor checked_ids(const Tensor& ids, const Tensor& like, const Tensor& word, const char* op, const char* argument) {
  ELECTRA_CHECK(ids.scalar_type() == ScalarType::Long, op, ": ", argument, " must be int64");
  ELECTRA_CHECK(same_shape(ids, like), op, ": ", argument, " must have the shape of input_ids, ", shape_string(like), ", got ", shape_string(ids));
  ELECTRA_CHECK(ids.numel() <= most_tokens, op, ": ", argument, " must have at most ", most_tokens, " elements on CUDA, got ", ids.numel());
  check_same_device(ids, word, op, argument, "word");
  return dense(ids);
}

// What forward and backward take alike, dense.
struct Inputs {
  Tensor ids[embedding_tables], tables[embedding_tables], weight, bias;
  DType table_type;
  int64_t tokens;
  int columns;

  Inputs(const Tensor& input_ids, const Tensor& position_ids, const Tensor& token_type_ids, const Tensor& word, const Tensor& position,
         const Tensor& token_type, const Tensor& weight_, const Tensor& bias_, DType type, const char* op)
      : ids{checked_ids(input_ids, input_ids, word, op, "input_ids"), checked_ids(position_ids, input_ids, word, op, "position_ids"),
            checked_ids(token_type_ids, input_ids, word, op, "token_type_ids")},
        tables{dense(checked_table(word, word, op, "word")), dense(checked_table(position, word, op, "position")),
               dense(checked_table(token_type, word, op, "token_type"))},
        weight(dense(weight_)), bias(dense(bias_)), table_type(parameter_dtype_of(word, type, op, "word")), tokens(input_ids.numel()),
        columns(int(word.size(1))) {
    ELECTRA_CHECK(word.size(1) <= embedding_most_columns, op, ": word must have at most ", embedding_most_columns, " columns on CUDA, got ", word.size(1),
                  "; the reference backend takes any");
    check_shape(weight_, {columns}, op, "weight");
    check_shape(bias_, {columns}, op, "bias");
    check_same_device(weight_, word, op, "weight", "word");
    check_same_device(bias_, word, op, "bias", "word");
  }

  void fill(EmbeddingTable (&out)[embedding_tables]) const {
    for (int t = 0; t < embedding_tables; ++t) out[t] = {tables[t].const_data_ptr(), tables[t].size(0), static_cast<const int64_t*>(ids[t].const_data_ptr())};
  }
};

DType activation_type(ScalarType t, const char* op) {
  ELECTRA_CHECK(t == ScalarType::Float || t == ScalarType::BFloat16 || t == ScalarType::Half, op, ": out_dtype must be float32, bfloat16 or float16 on CUDA");
  return t == ScalarType::Float ? DType::f32 : t == ScalarType::BFloat16 ? DType::bf16 : DType::f16;
}

std::tuple<Tensor, Tensor, Tensor> embedding(const Tensor& input_ids, const Tensor& position_ids, const Tensor& token_type_ids, const Tensor& word,
                                             const Tensor& position, const Tensor& token_type, const Tensor& weight, const Tensor& bias, double eps,
                                             double dropout_p, const std::optional<Tensor>& rng, int64_t site, int64_t /*padding_idx*/, ScalarType out_dtype) {
  const char* op = "embedding";
  const DType type = activation_type(out_dtype, op);
  const DeviceScope device(word);
  const Inputs in(input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, type, op);
  std::vector<int64_t> shape(input_ids.sizes().begin(), input_ids.sizes().end());
  shape.push_back(in.columns);
  Tensor y = torch::stable::new_empty(word, shape, out_dtype);
  Tensor mean = torch::stable::new_empty(word, {in.tokens}, ScalarType::Float), rstd = torch::stable::new_empty(word, {in.tokens}, ScalarType::Float);
  EmbeddingForward call = {type, in.table_type, {}, parameter(in.weight, type, op, "weight"), parameter(in.bias, type, op, "bias"), float(eps),
                           dropout_of(dropout_p, rng, site, word, op), y.mutable_data_ptr(), mean.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>(),
                           in.tokens, in.columns};
  in.fill(call.tables);
  check_launch(embedding_forward(call, device.stream()), op);
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> embedding_backward(const Tensor& grad_, const Tensor& input_ids, const Tensor& position_ids,
                                                                      const Tensor& token_type_ids, const Tensor& word, const Tensor& position,
                                                                      const Tensor& token_type, const Tensor& weight, const Tensor& bias, const Tensor& mean_,
                                                                      const Tensor& rstd_, double dropout_p, const std::optional<Tensor>& rng, int64_t site,
                                                                      int64_t padding_idx) {
  const char* op = "embedding_backward";
  const DType type = dtype_of(grad_, op, "grad");
  const DeviceScope device(word);
  const Inputs in(input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, type, op);
  ELECTRA_CHECK(grad_.numel() == in.tokens * in.columns, op, ": grad must have the shape of input_ids and ", in.columns, " columns, got ", shape_string(grad_));
  check_same_device(grad_, word, op, "grad", "word");
  for (const Tensor* t : {&mean_, &rstd_})
    ELECTRA_CHECK(t->numel() == in.tokens && t->scalar_type() == ScalarType::Float && t->device() == word.device(), op,
                  ": mean and rstd must be those that embedding returned");
  const Tensor grad = dense(grad_), mean = dense(mean_), rstd = dense(rstd_);
  const int64_t n = in.columns;
  Tensor dword = torch::stable::new_empty(word, {word.size(0), n}), dposition = torch::stable::new_empty(position, {position.size(0), n}),
         dtoken_type = torch::stable::new_empty(token_type, {token_type.size(0), n});
  Tensor dweight = torch::stable::new_empty(weight, {n}), dbias = torch::stable::new_empty(bias, {n});
  EmbeddingBackward call = {type, in.table_type, grad.const_data_ptr(), {}, parameter(in.weight, type, op, "weight"), mean.const_data_ptr<float>(),
                            rstd.const_data_ptr<float>(), dropout_of(dropout_p, rng, site, word, op), padding_idx,
                            {dword.mutable_data_ptr(), dposition.mutable_data_ptr(), dtoken_type.mutable_data_ptr()},
                            parameter_gradient(dweight, type, op, "weight"), parameter_gradient(dbias, type, op, "bias"), nullptr, in.tokens, in.columns};
  in.fill(call.tables);
  Tensor scratch = workspace(word, embedding_backward_workspace(call));
  call.workspace = scratch.mutable_data_ptr();
  check_launch(embedding_backward(call, device.stream()), op);
  return {dword, dposition, dtoken_type, dweight, dbias};
}

}  // namespace
}  // namespace electra::cuda::bindings

ELECTRA_CUDA_LIBRARY(m) {
  m.impl("embedding", TORCH_BOX(&electra::cuda::bindings::embedding));
  m.impl("embedding_backward", TORCH_BOX(&electra::cuda::bindings::embedding_backward));
}
