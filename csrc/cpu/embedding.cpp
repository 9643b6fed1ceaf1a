// embedding on the CPU: checks, allocation, parallel loops. Arithmetic: csrc/cpu/kernels/embedding.cpp; the scatter of backward: csrc/cpu/scatter.h.
#include "cpu/kernels/embedding.h"

#include "cpu/reduce.h"
#include "cpu/scatter.h"
#include "cpu/scratch.h"
#include "cpu/tensors.h"

namespace electra {
namespace {

// ids as a dense int64 tensor, every one inside its table.
Tensor checked_ids(const Tensor& ids_, const Tensor& like, const Tensor& table, const char* op, const char* argument, const char* table_argument) {
  ELECTRA_CHECK(ids_.scalar_type() == ScalarType::Long, op, ": ", argument, " must be int64");
  ELECTRA_CHECK(same_shape(ids_, like), op, ": ", argument, " must have the shape of input_ids, ", shape_string(like), ", got ", shape_string(ids_));
  const Tensor ids = dense(ids_);
  const int64_t* p = static_cast<const int64_t*>(ids.const_data_ptr());
  const int64_t count = ids.numel(), rows = table.size(0);
  uint64_t outside = 0;
  for (int64_t i = 0; i < count; ++i) outside |= uint64_t(p[i] < 0) | uint64_t(p[i] >= rows);
  if (outside)
    for (int64_t i = 0; i < count; ++i)
      ELECTRA_CHECK(p[i] >= 0 && p[i] < rows, op, ": ", argument, " must be in [0, ", rows, ") to be looked up in ", table_argument, ", got ", p[i], " at index ", i);
  return ids;
}

struct Inputs {
  Tensor input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias;
  EmbeddingInputs call;
  int64_t rows;

  Inputs(const Tensor& input_ids_, const Tensor& position_ids_, const Tensor& token_type_ids_, const Tensor& word_, const Tensor& position_,
         const Tensor& token_type_, const Tensor& weight_, const Tensor& bias_, DType type, double dropout_p, const std::optional<Tensor>& rng, int64_t site,
         const char* op)
      : input_ids(checked_ids(input_ids_, input_ids_, checked_table(word_, word_, op, "word"), op, "input_ids", "word")),
        position_ids(checked_ids(position_ids_, input_ids_, checked_table(position_, word_, op, "position"), op, "position_ids", "position")),
        token_type_ids(checked_ids(token_type_ids_, input_ids_, checked_table(token_type_, word_, op, "token_type"), op, "token_type_ids", "token_type")),
        word(dense(word_)), position(dense(position_)), token_type(dense(token_type_)), weight(parameter_row(weight_, type, op, "weight")),
        bias(parameter_row(bias_, type, op, "bias")), rows(input_ids_.numel()) {
    const int64_t n = word.size(1);
    ELECTRA_CHECK(weight.dim() == 1 && weight.size(0) == n, op, ": weight must have shape [", n, "], got ", shape_string(weight));
    ELECTRA_CHECK(bias.dim() == 1 && bias.size(0) == n, op, ": bias must have shape [", n, "], got ", shape_string(bias));
    const auto ids = [](const Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); };
    call = {type, param_dtype_of(word, type, op, "word"), ids(input_ids), ids(position_ids), ids(token_type_ids), word.const_data_ptr(), position.const_data_ptr(),
            token_type.const_data_ptr(), weight.const_data_ptr(), bias.const_data_ptr(), dropout_of(dropout_p, rng, site, op), n};
  }

 private:
  static const Tensor& checked_table(const Tensor& t, const Tensor& word, const char* op, const char* argument) {
    ELECTRA_CHECK(t.dim() == 2 && t.size(1) > 0, op, ": ", argument, " must have shape [rows, columns], got ", shape_string(t));
    ELECTRA_CHECK(t.size(1) == word.size(1), op, ": ", argument, " must have the columns of word, ", word.size(1), ", got ", t.size(1));
    ELECTRA_CHECK(t.scalar_type() == word.scalar_type(), op, ": ", argument, " must have the dtype of word");
    return t;
  }
};

DType activation_type(ScalarType t, const char* op) {
  ELECTRA_CHECK(t == ScalarType::Float || t == ScalarType::BFloat16 || t == ScalarType::Double, op, ": out_dtype must be float32, bfloat16 or float64 on the CPU");
  return t == ScalarType::Float ? DType::f32 : t == ScalarType::BFloat16 ? DType::bf16 : DType::f64;
}

std::tuple<Tensor, Tensor, Tensor> embedding(const Tensor& input_ids, const Tensor& position_ids, const Tensor& token_type_ids, const Tensor& word,
                                             const Tensor& position, const Tensor& token_type, const Tensor& weight, const Tensor& bias, double eps,
                                             double dropout_p, const std::optional<Tensor>& rng, int64_t site, int64_t /*padding_idx*/, ScalarType out_dtype) {
  const char* op = "embedding";
  const DType type = activation_type(out_dtype, op);
  const Inputs in(input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, type, dropout_p, rng, site, op);
  std::vector<int64_t> shape(input_ids.sizes().begin(), input_ids.sizes().end());
  shape.push_back(in.call.n);
  Tensor y = torch::stable::new_empty(word, shape, out_dtype);
  Tensor mean = torch::stable::new_empty(word, {in.rows}, accumulate_type_of(type)), rstd = torch::stable::new_empty(word, {in.rows}, accumulate_type_of(type));
  const EmbeddingKernels& kernels = pick_embedding_kernels();
  void *yp = y.mutable_data_ptr(), *mp = mean.mutable_data_ptr(), *rp = rstd.mutable_data_ptr();
  torch::stable::parallel_for(0, in.rows, rows_per_task(in.call.n), [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels.scratch(type, in.call.n));
    kernels.forward(in.call, eps, yp, mp, rp, begin, end, scratch.data());
  });
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> embedding_backward(const Tensor& grad_, const Tensor& input_ids, const Tensor& position_ids,
                                                                      const Tensor& token_type_ids, const Tensor& word, const Tensor& position,
                                                                      const Tensor& token_type, const Tensor& weight, const Tensor& bias, const Tensor& mean_,
                                                                      const Tensor& rstd_, double dropout_p, const std::optional<Tensor>& rng, int64_t site,
                                                                      int64_t padding_idx) {
  const char* op = "embedding_backward";
  const DType type = dtype_of(grad_, op, "grad");
  const Inputs in(input_ids, position_ids, token_type_ids, word, position, token_type, weight, bias, type, dropout_p, rng, site, op);
  const int64_t n = in.call.n;
  const Tensor grad = dense(grad_), mean = dense(mean_), rstd = dense(rstd_);
  ELECTRA_CHECK(grad.numel() == in.rows * n, op, ": grad must have the shape of input_ids and ", n, " columns, got ", shape_string(grad));
  ELECTRA_CHECK(mean.numel() == in.rows && rstd.numel() == in.rows && mean.scalar_type() == accumulate_type_of(type) && rstd.scalar_type() == mean.scalar_type(), op,
                ": mean and rstd must be those that embedding returned");
  const EmbeddingKernels& kernels = pick_embedding_kernels();
  const RowBlocks blocks(in.rows);
  const PartialSums weight_sums(grad, type, blocks, n), bias_sums(grad, type, blocks, n);
  Tensor dsum = torch::stable::new_empty(grad, {in.rows, n}, accumulate_type_of(type));
  const void *gp = grad.const_data_ptr(), *mp = mean.const_data_ptr(), *rp = rstd.const_data_ptr();
  void* dp = dsum.mutable_data_ptr();
  torch::stable::parallel_for(0, blocks.count, 1, [&](int64_t first, int64_t last) {
    const Scratch scratch(kernels.scratch(type, n));
    for (int64_t b = first; b < last; ++b)
      kernels.backward(in.call, gp, mp, rp, dp, weight_sums.row(b), bias_sums.row(b), blocks.begin(b), blocks.end(b, in.rows), scratch.data());
  });

  const auto scattered = [&](const int64_t* ids, const Tensor& table, int64_t skip) {
    Tensor dtable = torch::stable::new_empty(table, {table.size(0), n});
    scatter_rows(ScatterPlan(ids, in.rows, table.size(0), skip), dsum, dtable, in.call.table_type, kernels);
    return dtable;
  };
  Tensor dword = scattered(in.call.input_ids, word, padding_idx);
  Tensor dposition = scattered(in.call.position_ids, position, -1);
  Tensor dtoken_type = scattered(in.call.token_type_ids, token_type, -1);
  Tensor dweight = torch::stable::new_empty(weight, {n}), dbias = torch::stable::new_empty(bias, {n});
  weight_sums.sum_into(dweight, op);
  bias_sums.sum_into(dbias, op);
  return {dword, dposition, dtoken_type, dweight, dbias};
}

}  // namespace
}  // namespace electra

STABLE_TORCH_LIBRARY_IMPL(electra_fast, CPU, m) {
  m.impl("embedding", TORCH_BOX(&electra::embedding));
  m.impl("embedding_backward", TORCH_BOX(&electra::embedding_backward));
}
